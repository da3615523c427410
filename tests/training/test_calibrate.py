"""The fit of the calibration. Skipped where the training extra is not installed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra `train` is not installed")

from damagewatch_training.calibrate import fit as calibrate
from damagewatch_training.data.sources import Pair, Photo


def sample(weights: list[float], intercept: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, len(weights)))
    return x, rng.random(count) < 1 / (1 + np.exp(-(x @ weights + intercept)))


def test_fit_finds_the_weights_that_made_the_labels() -> None:
    x, y = sample([1.5, 0.5, -1.0], -2.0)
    weights, intercept = calibrate.monotone_logistic(x, y, np.ones(len(y)), (1, 1, -1), penalty=0.0)
    assert weights == pytest.approx([1.5, 0.5, -1.0], abs=0.12)
    assert intercept == pytest.approx(-2.0, abs=0.12)


def test_weights_count_as_so_many_samples() -> None:
    x, y = sample([1.0], 0.5, 200)
    weight = np.random.default_rng(1).integers(1, 4, 200)
    weighted = calibrate.monotone_logistic(x, y, weight.astype(float), (1,))
    repeated = calibrate.monotone_logistic(
        x.repeat(weight, axis=0), y.repeat(weight), np.ones(weight.sum()), (1,)
    )
    assert weighted[0] == pytest.approx(repeated[0], abs=1e-3)
    assert weighted[1] == pytest.approx(repeated[1], abs=1e-3)


def test_a_signal_that_speaks_the_wrong_way_is_left_out() -> None:
    x, y = sample([1.0, -1.0], 0.0)
    weights, _ = calibrate.monotone_logistic(x, y, np.ones(len(y)), (1, 1))
    assert weights[0] > 0.5
    assert weights[1] == 0


def test_penalty_shrinks() -> None:
    x, y = sample([1.0], 0.0)
    free, _ = calibrate.monotone_logistic(x, y, np.ones(len(y)), (1,), penalty=0.0)
    held, _ = calibrate.monotone_logistic(x, y, np.ones(len(y)), (1,), penalty=1.0)
    assert 0 < held[0] < 0.5 * free[0]


def test_photos_of_telling_pairs_are_a_third() -> None:
    photos = [Photo(str(number), path=None) for number in range(100)]  # type: ignore[arg-type]
    known = [Pair(str(number), str(number + 1), "diff") for number in range(0, 80, 2)]
    known.append(Pair("98", "99", "copy"))
    chosen = [int(photo.name) for photo in calibrate.choose(photos, known, 30, seed=0)]
    assert len(set(chosen)) == 30
    assert sum(number < 80 for number in chosen) == 10
