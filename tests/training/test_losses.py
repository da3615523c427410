"""Losses against naive loops. Skipped where the training extra is not installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the extra `train` is not installed")

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


def test_rate_rises_then_falls() -> None:
    rates = [warm_cosine(p) for p in np.linspace(0, 1, 101)]
    top = rates.index(max(rates))
    assert rates[0] < 0.05
    assert 3 <= top <= 8
    assert all(a >= b for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
    assert rates[-1] < 0.01
