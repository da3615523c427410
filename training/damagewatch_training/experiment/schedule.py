"""The learning rate over a training."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch.optim import Optimizer

Rate = Annotated[float, Field(gt=0, le=1)]
"""A full rate, as a setting."""


def warm_cosine(progress: float, rise: float = 0.05) -> float:
    """The share of the full rate at `progress` 0..1 of the training: a short rise, then half a cosine."""
    if progress < rise:
        return max(progress / rise, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) + 1e-3


def set_rates(optimiser: Optimizer, full: list[float], progress: float) -> None:
    """Sets each parameter group's rate. Depends on `progress` alone, so a resumed training may be longer."""
    for group, rate in zip(optimiser.param_groups, full, strict=True):
        group["lr"] = rate * warm_cosine(progress)
