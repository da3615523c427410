"""The detector's networks: an FPN (Lin et al., CVPR 2017) or a U-Net (Ronneberger et al., MICCAI 2015).

The encoder is any of timm's.

Seven channels for the pixels: damage (sigmoid), scratch, dent, broken (softmax), minor, moderate, severe (softmax).
Beside them three logits for the photo as a whole: how badly the car in it is damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import segmentation_models_pytorch as smp
import torch
from pydantic import Field
from torch import Tensor, nn

from damagewatch_training.experiment import imagenet
from damagewatch_training.experiment.freeze import freeze, keep_frozen

CHANNELS = 7
SEVERITIES = 3

Architecture = Literal["fpn", "unet"]
Norm = Literal["frozen", "group", "batch"]


@dataclass(frozen=True, slots=True)
class Network:
    """What the detector is made of."""

    architecture: Architecture = "fpn"
    encoder: str = "tf_efficientnet_lite0"
    """Any name of timm."""
    weights: imagenet.Weights = "imagenet"
    """Of the encoder at the start: those that a package carries where there is one, else timm's own download."""
    norm: Norm = "frozen"
    """`frozen`: the encoder keeps its statistics, for small batches. `group`: group norm everywhere, which needs no
    statistics and costs time when run. `batch`: statistics of each batch, for batches of 16 and more."""
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    """So many stages of the encoder, and the stem before them, are not trained; 0: all of it is."""


class Detector(nn.Module):
    """Pixels and photo: (N, 3, H, W) to float (N, 7, h, w) and float (N, 3).

    h and w are a quarter of H and W for an FPN, all of them for a U-Net.
    """

    def __init__(self, settings: Network) -> None:
        """Builds the network.

        Raises:
            ConfigError: there is no such encoder, its weights cannot be had, or more stages are to be frozen than
                it has.
        """
        super().__init__()
        self.settings = settings
        with imagenet.making(settings.encoder, "network.encoder"):
            self.colours = imagenet.Colours(settings.encoder)
            self.pixels = _pixels(settings)
        imagenet.load_carried(self.encoder, settings.encoder, settings.weights)
        if settings.norm == "group":
            _replace(self, nn.BatchNorm2d, lambda norm: _group_norm(norm.num_features))
        else:
            # Batch norm folds into the convolutions of the exported file; group norm costs time there.
            _replace(self.pixels.decoder, nn.GroupNorm, lambda norm: nn.BatchNorm2d(norm.num_channels))
        deepest = self.encoder.out_channels[-2:]
        self.photo = nn.Sequential(
            nn.LayerNorm(sum(deepest)), nn.Dropout(0.2), nn.Linear(sum(deepest), SEVERITIES)
        )
        freeze(self.encoder.model, settings.frozen_stages, settings.encoder)  # type: ignore[arg-type]

    @property
    def encoder(self) -> nn.Module:
        """The pretrained part."""
        return self.pixels.encoder  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the pixels and of the photo."""
        features = self.encoder(self.colours(images))
        pixels = self.pixels.segmentation_head(self.pixels.decoder(features))
        return pixels, self.photo(_pooled(features))

    def pooled(self, images: Tensor) -> Tensor:
        """What the photo's head sees: the mean of each channel of the two deepest maps, float (N, D)."""
        return _pooled(self.encoder(self.colours(images)))

    def train(self, mode: bool = True) -> Detector:
        """As of any module, but statistics that are frozen stay so: `requires_grad` alone would let them move."""
        super().train(mode)
        if self.settings.norm == "frozen":
            imagenet.keep_statistics(self.encoder)
        keep_frozen(self.encoder)
        return self


def _pooled(features: list[Tensor]) -> Tensor:
    return torch.cat([feature.float().mean((2, 3)) for feature in features[-2:]], 1)


def _pixels(settings: Network) -> nn.Module:
    name = f"tu-{settings.encoder}"
    weights = True if imagenet.downloads(settings.encoder, settings.weights) else None
    if settings.architecture == "unet":
        return smp.Unet(
            name, encoder_weights=weights, decoder_channels=(128, 64, 32, 16, 16), classes=CHANNELS
        )
    return smp.FPN(
        name,
        encoder_weights=weights,
        decoder_pyramid_channels=64,
        decoder_segmentation_channels=32,
        decoder_dropout=0.1,
        classes=CHANNELS,
        upsampling=1,
    )


def _replace(root: nn.Module, kind: type[nn.Module], by: Callable[..., nn.Module]) -> None:
    for parent in list(root.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, _with_activation(child, by(child)))


def _with_activation(old: nn.Module, new: nn.Module) -> nn.Module:
    """timm's norms carry their activation: what takes their place must, too."""
    activation = getattr(old, "act", None)
    return new if activation is None else nn.Sequential(new, activation)


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = next(count for count in (16, 8, 4, 2, 1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)
