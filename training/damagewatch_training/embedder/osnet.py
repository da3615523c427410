"""OSNet x1_0, the omni-scale network of Zhou et al. (ICCV 2019, arXiv 1905.00953).

Written after the paper. Two differences, both for metric learning: the embedding is Linear + BatchNorm without
the last ReLU (a ReLU would keep all embeddings in one orthant), and it leaves the network L2-normalised.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def _conv(inside: int, out: int, size: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inside, out, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(out),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class LightConv3x3(nn.Sequential):
    """The paper's Lite 3x3: a 1x1 convolution (linear), then a 3x3 depthwise one."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__(
            nn.Conv2d(inside, out, 1, bias=False),
            nn.Conv2d(out, out, 3, padding=1, groups=out, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )


class Gate(nn.Module):
    """The aggregation gate: weighs each channel of a stream by the whole picture. All streams share one."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        weights = functional.adaptive_avg_pool2d(x, 1)
        weights = torch.sigmoid(self.fc2(functional.relu(self.fc1(weights))))
        return x * weights


class OSBlock(nn.Module):
    """The omni-scale residual block: four streams of 1 to 4 Lite 3x3, gated, added."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        middle = out // 4
        self.reduce = _conv(inside, middle, 1)
        self.streams = nn.ModuleList(
            nn.Sequential(*(LightConv3x3(middle, middle) for _ in range(depth))) for depth in (1, 2, 3, 4)
        )
        self.gate = Gate(middle)
        self.expand = _conv(middle, out, 1, relu=False)
        self.shortcut = _conv(inside, out, 1, relu=False) if inside != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) to (N, out, H, W)."""
        reduced = self.reduce(x)
        merged = torch.stack([self.gate(stream(reduced)) for stream in self.streams]).sum(0)
        return functional.relu(self.expand(merged) + self.shortcut(x))


class OSNet(nn.Module):
    """OSNet x1_0: (N, 3, S, S), normalised RGB, to L2-normalised embeddings (N, `dimension`)."""

    def __init__(
        self, channels: tuple[int, int, int, int] = (64, 256, 384, 512), dimension: int = 512
    ) -> None:
        super().__init__()
        stem, c2, c3, c4 = channels
        self.features = nn.Sequential(
            _conv(3, stem, 7, stride=2),
            nn.MaxPool2d(3, 2, padding=1),
            OSBlock(stem, c2),
            OSBlock(c2, c2),
            _conv(c2, c2, 1),
            nn.AvgPool2d(2),
            OSBlock(c2, c3),
            OSBlock(c3, c3),
            _conv(c3, c3, 1),
            nn.AvgPool2d(2),
            OSBlock(c3, c4),
            OSBlock(c4, c4),
            _conv(c4, c4, 1),
        )
        self.embed = nn.Sequential(nn.Linear(c4, dimension, bias=False), nn.BatchNorm1d(dimension))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of unit length."""
        pooled = self.features(x).mean((2, 3))
        return functional.normalize(self.embed(pooled), dim=1)
