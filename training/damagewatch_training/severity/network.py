"""The network that grades whole photos: any timm backbone, pooled, and one linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import timm
from pydantic import Field
from torch import Tensor, nn

from damagewatch_training.data.sources import SEVERITIES
from damagewatch_training.experiment import imagenet
from damagewatch_training.experiment.freeze import freeze


@dataclass(frozen=True, slots=True)
class Network:
    """What it is made of."""

    backbone: str = "tf_efficientnet_lite0"
    """Any name of timm."""
    weights: imagenet.Weights = "imagenet"
    """Of the backbone at the start: those that a package carries where there is one, else timm's own download."""
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    """So many stages of the backbone, and the stem before them, are not trained; 0: all of it is."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3


class Grader(nn.Module):
    """Photos, float (N, 3, S, S), to logits, float (N, 3): minor, moderate, severe."""

    def __init__(self, settings: Network) -> None:
        """Builds the network.

        Raises:
            ConfigError: there is no such backbone, its weights cannot be had, or more stages are to be frozen than
                it has.
        """
        super().__init__()
        download = imagenet.downloads(settings.backbone, settings.weights)
        with imagenet.making(settings.backbone, "network.backbone"):
            self.colours = imagenet.Colours(settings.backbone)
            self.backbone = timm.create_model(settings.backbone, pretrained=download, num_classes=0)
        imagenet.load_carried(self.backbone, settings.backbone, settings.weights)
        # Of what is pooled: some backbones have a layer behind it, which `num_features` does not count.
        width = getattr(self.backbone, "head_hidden_size", self.backbone.num_features)
        assert isinstance(width, int)
        self.head = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(width, len(SEVERITIES)))
        freeze(self.backbone, settings.frozen_stages, settings.backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.backbone(self.colours(images)))
        return logits

    def train(self, mode: bool = True) -> Grader:
        """As of any module, but the backbone keeps ImageNet's statistics: batches are small."""
        super().train(mode)
        imagenet.keep_statistics(self.backbone)
        return self
