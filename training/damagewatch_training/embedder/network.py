"""The embedder: a backbone by name, a pooling, and a head that gives vectors of unit length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import timm
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from damagewatch_training.embedder import osnet
from damagewatch_training.embedder.whitening import Whitening
from damagewatch_training.experiment import imagenet
from damagewatch_training.experiment.config import ConfigError

ALIASES = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "mobilenetv2": "mobilenetv2_100",
}


@dataclass(frozen=True, slots=True)
class Network:
    """What the embedder is made of."""

    backbone: str = "osnet_x1_0"
    """One of OSNet's variants (`osnet.VARIANTS`), one of `ALIASES`, or any of timm's names that gives maps."""
    pooling: Literal["average", "gem"] = "average"
    dimension: Annotated[int, Field(ge=8, le=4096)] = 512
    norm: Literal["trained", "frozen"] = "trained"
    """`frozen`: the backbone keeps the batch statistics that it came with; for ImageNet weights and small batches."""
    weights: imagenet.Weights = "imagenet"
    """Of timm's backbones at the start: those that a package carries where there is one, else timm's own download.
    There are none of OSNet, which starts from noise."""


class GeM(nn.Module):
    """Generalised mean pooling, (N, C, H, W) to (N, C); p is learned (Radenovic et al., arXiv 1711.02512).

    p = 1 is the average, p to infinity the maximum. Maps below zero count as zero.
    """

    def __init__(self, power: float = 3.0, least: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))
        self.least = least

    def forward(self, maps: Tensor) -> Tensor:
        """In float32, since powers overflow bfloat16."""
        clamped = maps.float().clamp(min=self.least)
        return clamped.pow(self.power).mean((2, 3)).pow(1 / self.power)


class Average(nn.Module):
    """Average pooling, (N, C, H, W) to (N, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        """The mean over each map."""
        return maps.mean((2, 3))


class TimmMaps(nn.Module):
    """The last maps of one of timm's networks, before its pooling."""

    def __init__(self, name: str, weights: imagenet.Weights) -> None:
        super().__init__()
        if not timm.is_model(name):
            own = ", ".join((*osnet.VARIANTS, *ALIASES))
            raise ConfigError(f"no backbone {name!r}: there are {own}, and what timm.list_models() names")
        with imagenet.making(name, "network.backbone"):
            self.colours = imagenet.Colours(name)
            self.model = timm.create_model(name, pretrained=imagenet.downloads(name, weights), num_classes=0)
        imagenet.load_carried(self.model, name, weights)
        for unused in ("head", "pre_logits"):  # VGG's holds most of its weights, and wants one size
            if hasattr(self.model, unused):
                setattr(self.model, unused, nn.Identity())
        self.last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        """Whether the channels come last."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, C, h, w)."""
        maps: Tensor = self.model.forward_features(self.colours(images))
        return maps.permute(0, 3, 1, 2) if self.last else maps


class Embedder(nn.Module):
    """(N, 3, S, S), RGB normalised by `imagenet.MEAN` and `STD`, to embeddings (N, D) of unit length."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        if network.backbone in osnet.VARIANTS:
            self.features, channels = osnet.features(osnet.VARIANTS[network.backbone])
        else:
            self.features = TimmMaps(ALIASES.get(network.backbone, network.backbone), network.weights)
            channels = _channels(self.features, network.backbone)
        self.pool = GeM() if network.pooling == "gem" else Average()
        self.embed = nn.Sequential(
            nn.Linear(channels, network.dimension, bias=False), nn.BatchNorm1d(network.dimension)
        )
        self.whiten: nn.Linear | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings."""
        embeddings = functional.normalize(self.embed(self.pool(self.features(images))), dim=1)
        if self.whiten is not None:
            embeddings = functional.normalize(self.whiten(embeddings), dim=1)
        return embeddings

    def train(self, mode: bool = True) -> Embedder:
        """As torch's, but for statistics that stay frozen."""
        super().train(mode)
        if mode and self.network.norm == "frozen":
            imagenet.keep_statistics(self.features)
        return self

    def whitened(self, whitening: Whitening) -> Embedder:
        """With a whitening behind it; the dimension becomes that of the whitening."""
        weight = torch.from_numpy(whitening.projection).float()
        self.whiten = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.whiten.weight.copy_(weight)
            self.whiten.bias.copy_(-weight @ torch.from_numpy(whitening.mean).float())
        return self


def _channels(features: nn.Module, name: str) -> int:
    """How many maps come out. A vision transformer gives tokens instead, which cannot be pooled as maps.

    What the maps do not depend on, some backbones' last layers, is left out of the training: several processes want
    to hear of all that is trained.
    """
    features.eval()
    try:
        maps = features(torch.zeros(1, 3, 64, 64))
        maps.sum().backward()
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(f"backbone {name!r} does not take photos of any size: {error}") from None
    if maps.ndim != 4:
        raise ConfigError(f"backbone {name!r} gives {maps.ndim - 2}-dimensional tokens, not maps")
    for parameter in features.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    features.train()  # some keep what they computed otherwise, which cannot be copied
    return int(maps.shape[1])
