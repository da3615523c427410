"""How badly a car is damaged: the photo's head, fitted when the pixels are learned.

Few photos are graded, and a logistic regression on what the trained encoder gives for whole photos is stable where
training along with the pixels is noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from torch import nn

from damagewatch_training.data.sources import SEVERITIES, Photo
from damagewatch_training.detector.examples import letterbox
from damagewatch_training.detector.network import Detector

PENALTY = 0.01
"""Inverse strength of the regression's penalty, scikit-learn's C."""


def pooled(model: Detector, photos: Sequence[Photo], size: int) -> NDArray[np.float32]:
    """What the head sees of each photo, whole and letterboxed: float32 (N, D)."""
    device = next(model.parameters()).device
    model.eval()
    rows = []
    for photo in photos:
        pixels = np.ascontiguousarray(letterbox(photo.read(), size)[..., ::-1].transpose(2, 0, 1))
        with torch.inference_mode():
            features = model.pooled(torch.from_numpy(pixels)[None].to(device).float() / 127.5 - 1)
        rows.append(features[0].cpu().numpy())
    return np.stack(rows)


def fit(model: Detector, features: NDArray[np.float32], grades: NDArray[np.int64]) -> None:
    """Sets the head of `model` to a logistic regression, classes weighing alike.

    Args:
        model: its last layer takes the standardised features.
        features: float32 (N, D), as `pooled` gives them.
        grades: int64 (N,), 0 to 2; each occurs.
    """
    norm, _, last = model.photo
    assert isinstance(norm, nn.LayerNorm) and isinstance(last, nn.Linear)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    with torch.inference_mode():
        seen = norm.cpu()(torch.from_numpy(features)).numpy().astype(np.float64)
    mean, spread = seen.mean(0), seen.std(0) + 1e-6
    regression = LogisticRegression(C=PENALTY, max_iter=2000, class_weight="balanced")
    regression.fit((seen - mean) / spread, grades)
    weight = regression.coef_ / spread
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(regression.intercept_ - weight @ mean))


def of(severity: Mapping[str, int], photos: Sequence[Photo]) -> NDArray[np.int64]:
    """The grades of photos, int64 (N,)."""
    return np.array([severity[photo.name] for photo in photos], np.int64)


def enough(grades: NDArray[np.int64]) -> bool:
    """Whether each grade occurs at least five times."""
    return bool((np.bincount(grades, minlength=len(SEVERITIES)) >= 5).all())
