"""The first stages of a timm encoder, left as they came: few photos cannot teach edges better than ImageNet did."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from damagewatch_training.experiment.config import ConfigError

_HOLDERS = ("blocks", "stages", "layers")
"""Sequences of stages in timm's networks: EfficientNet, MobileNet and ViT; ConvNeXt; Swin."""
_STAGE = re.compile(r"layer[1-9]|(blocks|stages|layers)_\d+")
"""A stage that is a child of its own: of a ResNet, or of a network that timm flattened to give its maps."""


def freeze(encoder: nn.Module, stages: int, name: str) -> None:
    """Stops the training of the first stages of an encoder and of all that comes before them.

    Args:
        encoder: a network of timm, or what timm makes of it with `features_only`.
        stages: how many; 0: nothing is frozen.
        name: of the encoder, for the error.

    Raises:
        ConfigError: it does not have so many stages, or none that can be told apart.
    """
    if stages == 0:
        return
    frozen, seen = [], 0
    for part, is_stage in _parts(encoder):
        if is_stage and seen == stages:
            break
        frozen.append(part)
        seen += is_stage
    if seen < stages:
        raise ConfigError(f"network.frozen_stages: {stages} is too many, {name} has {seen} named stages")
    for part in frozen:
        part.requires_grad_(False)


def keep_frozen(encoder: nn.Module) -> None:
    """Leaves the batch statistics of what `freeze` froze as they are, after all was set to train."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def _parts(encoder: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """The parts of an encoder in their order, and whether each is a stage."""
    for name, child in encoder.named_children():
        if name in _HOLDERS and isinstance(child, nn.Sequential):
            yield from ((stage, True) for stage in child)
        else:
            yield child, _STAGE.fullmatch(name) is not None
