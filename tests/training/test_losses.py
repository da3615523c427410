"""Losses against naive loops. Skipped where the training extra is not installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the extra `train` is not installed")

from damagewatch.domain import Box  # noqa: E402
from damagewatch_training.data.sources import Label, Photo  # noqa: E402
from damagewatch_training.detector import train as detector  # noqa: E402
from damagewatch_training.embedder import train as embedder  # noqa: E402
from damagewatch_training.experiment.schedule import warm_cosine  # noqa: E402


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_distillation_loss_is_that_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    teacher, student, window = unit(rng, 6, 4), unit(rng, 3, 4), [4, 0, 2]
    settings = embedder.Settings(temperature=0.1, relational=2.0, alike=0.3)
    regression = contrast = relational = 0.0
    for i, w in enumerate(window):
        regression += (1 - student[i] @ teacher[w]) / 3
        kept = [j for j in range(6) if j == w or teacher[w] @ teacher[j] <= 0.3]
        total = sum(math.exp(student[i] @ teacher[j] / 0.1) for j in kept)
        contrast -= math.log(math.exp(student[i] @ teacher[w] / 0.1) / total) / 3
        for k, v in enumerate(window):
            relational += (student[i] @ student[k] - teacher[w] @ teacher[v]) ** 2 / 9
    found = embedder.loss_of(
        torch.from_numpy(student), torch.tensor(window), torch.from_numpy(teacher), settings
    )
    assert float(found) == pytest.approx(regression + 0.5 * contrast + 2.0 * relational, rel=1e-4)


def test_detector_loss_falls_towards_the_labels_and_ignores_what_is_unlabelled() -> None:
    labels = torch.full((1, 3, 8, 8), detector.UNLABELLED, dtype=torch.uint8)
    labels[:, 0] = 0
    labels[:, :, :4] = torch.tensor([255, 1, 2], dtype=torch.uint8)[:, None, None]
    right = torch.full((1, 7, 2, 2), -20.0)
    right[0, 0, 0] = 20
    right[0, 2, 0] = right[0, 6, 0] = 20
    assert float(detector.loss_of(right, labels)) < 0.01
    wrong = right.clone()
    wrong[0, 1:, 1] = 99  # type and severity where nothing is damaged
    assert float(detector.loss_of(wrong, labels)) == pytest.approx(float(detector.loss_of(right, labels)))
    assert float(detector.loss_of(-right, labels)) > 1


def test_label_map_keeps_a_small_damage_on_a_large_one() -> None:
    def square(x0: float, x1: float, kind: int) -> Label:
        corners = np.array([[x0, x0], [x1, x0], [x1, x1], [x0, x1]], np.float32)
        return Label((corners,), Box(x0, x0, x1, x1), kind, kind)

    photo = Photo("photo", path=None, labels=(square(5, 8, 0), square(0, 20, 1)))  # type: ignore[arg-type]
    labels = detector.label_map(photo, 32, 32)
    assert labels[6, 6].tolist() == [255, 0, 0]
    assert labels[15, 15].tolist() == [255, 1, 1]
    assert labels[30, 30].tolist() == [0, detector.UNLABELLED, detector.UNLABELLED]


def test_rate_rises_then_falls() -> None:
    rates = [warm_cosine(p) for p in np.linspace(0, 1, 101)]
    top = rates.index(max(rates))
    assert rates[0] < 0.05
    assert 3 <= top <= 8
    assert all(a >= b for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
    assert rates[-1] < 0.01
