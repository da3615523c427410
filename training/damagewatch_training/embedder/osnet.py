"""OSNet, the omni-scale network of Zhou et al. (ICCV 2019, arXiv 1905.00953), and its sibling AIN.

Written after the papers; AIN (arXiv 1910.06827) puts instance normalisation where its search found it best for
domains never trained on. What differs from the papers, for metric learning, is the head (`embedder.network`): Linear
and batch norm without the last ReLU, which would keep all embeddings in one orthant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (64, 256, 384, 512)
"""Of the stem and the three stages of x1_0."""


@dataclass(frozen=True, slots=True)
class Variant:
    """`width` multiplies all channels. `instance_norm`: of the stem, then of the six blocks."""

    width: float
    instance_norm: tuple[bool, ...] = (False,) * 7


_AIN = (True, True, True, False, True, True, False)

VARIANTS = {
    "osnet_x1_0": Variant(1.0),
    "osnet_x0_75": Variant(0.75),
    "osnet_x0_5": Variant(0.5),
    "osnet_x0_25": Variant(0.25),
    "osnet_ain_x1_0": Variant(1.0, _AIN),
}


def features(variant: Variant) -> tuple[nn.Sequential, int]:
    """The convolutions of a variant, (N, 3, S, S) to maps (N, C, S/16, S/16), and their number C.

    No weights of OSNet install from a package index: they start random.
    """
    stem, c2, c3, c4 = (int(channels * variant.width) for channels in CHANNELS)
    first, *blocks = variant.instance_norm
    layers = nn.Sequential(
        _conv(3, stem, 7, stride=2, norm=_instance if first else nn.BatchNorm2d),
        nn.MaxPool2d(3, 2, padding=1),
        OSBlock(stem, c2, blocks[0]),
        OSBlock(c2, c2, blocks[1]),
        _conv(c2, c2, 1),
        nn.AvgPool2d(2),
        OSBlock(c2, c3, blocks[2]),
        OSBlock(c3, c3, blocks[3]),
        _conv(c3, c3, 1),
        nn.AvgPool2d(2),
        OSBlock(c3, c4, blocks[4]),
        OSBlock(c4, c4, blocks[5]),
        _conv(c4, c4, 1),
    )
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return layers, c4


def _instance(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


def _conv(
    inside: int,
    out: int,
    size: int,
    stride: int = 1,
    relu: bool = True,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inside, out, size, stride, padding=size // 2, bias=False)]
    if norm is not None:
        layers.append(norm(out))
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
        inner = max(channels // reduction, 1)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        weights = functional.adaptive_avg_pool2d(x, 1)
        weights = torch.sigmoid(self.fc2(functional.relu(self.fc1(weights))))
        return x * weights


class OSBlock(nn.Module):
    """The omni-scale residual block: four streams of 1 to 4 Lite 3x3, gated, added.

    With `instance_norm` the residual is normalised for each picture by itself before it is added (AIN).
    """

    def __init__(self, inside: int, out: int, instance_norm: bool = False) -> None:
        super().__init__()
        middle = out // 4
        self.reduce = _conv(inside, middle, 1)
        self.streams = nn.ModuleList(
            nn.Sequential(*(LightConv3x3(middle, middle) for _ in range(depth))) for depth in (1, 2, 3, 4)
        )
        self.gate = Gate(middle)
        self.expand = _conv(middle, out, 1, relu=False, norm=None if instance_norm else nn.BatchNorm2d)
        if instance_norm:
            self.expand.append(_instance(out))
        self.shortcut = _conv(inside, out, 1, relu=False) if inside != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) to (N, out, H, W)."""
        reduced = self.reduce(x)
        merged = torch.stack([self.gate(stream(reduced)) for stream in self.streams]).sum(0)
        return functional.relu(self.expand(merged) + self.shortcut(x))
