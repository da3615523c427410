"""The fit of the calibration. Skipped where the training extra is not installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra `train` is not installed")

from damagewatch.domain import AlertKind, Signals
from damagewatch.vision.calibration import Calibration, Logistic
from damagewatch_training.calibrate import evidence, reliability, telling
from damagewatch_training.calibrate import fit as calibrate
from damagewatch_training.data.dataset import DataRefusedError
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


def test_a_signal_without_a_sign_is_left_out() -> None:
    x, y = sample([1.0, 1.0], 0.0)
    weights, _ = calibrate.monotone_logistic(x, y, np.ones(len(y)), (1, 0))
    assert weights[0] > 0.5
    assert weights[1] == 0


def test_penalty_shrinks() -> None:
    x, y = sample([1.0], 0.0)
    free, _ = calibrate.monotone_logistic(x, y, np.ones(len(y)), (1,), penalty=0.0)
    held, _ = calibrate.monotone_logistic(x, y, np.ones(len(y)), (1,), penalty=1.0)
    assert 0 < held[0] < 0.5 * free[0]


def test_certainty_undoes_a_stretch_and_a_shift() -> None:
    x, y = sample([1.0], 0.0)
    stretched = 1 / (1 + np.exp(-(0.5 * x[:, 0] - 1)))
    surer, shift = calibrate.certainty(stretched, y, np.ones(len(y)))
    assert surer == pytest.approx(2, abs=0.1)
    assert shift == pytest.approx(2, abs=0.1)


def test_pairs_told_apart_without_an_error_make_nothing_certain() -> None:
    same = np.array([True] * 12 + [False] * 10)
    surer, shift = calibrate.certainty(np.where(same, 0.8, 0.1), same, np.ones(22))
    for told in (0.8, 0.1):
        logit = surer * np.log(told / (1 - told)) + shift
        assert 0.02 < 1 / (1 + np.exp(-logit)) < 0.98


@pytest.mark.parametrize("whole", [False, True])
def test_a_rescaled_calibration_scales_its_logits(whole: bool) -> None:
    plain = Calibration(whole=Logistic(intercept=-2.0))
    signals = Signals(0.5, 20, 10, 0.4, 0.6, 0.8, 16, 0.7, whole=whole)
    before, after = (c.probability(signals) for c in (plain, calibrate.rescaled(plain, 2.0, -0.5)))
    assert np.log(after / (1 - after)) == pytest.approx(2 * np.log(before / (1 - before)) - 0.5, abs=1e-4)


def test_photos_of_telling_pairs_are_a_third() -> None:
    photos = [Photo(str(number), path=None) for number in range(100)]  # type: ignore[arg-type]
    known = [Pair(str(number), str(number + 1), "diff") for number in range(0, 80, 2)]
    known.append(Pair("98", "99", "copy"))
    chosen = [int(photo.name) for photo in evidence.choose(photos, known, 30, seed=0)]
    assert len(set(chosen)) == 30
    assert sum(number < 80 for number in chosen) == 10


def told(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, what is true in just so many of a hundred, and weights."""
    rng = np.random.default_rng(seed)
    probability = rng.random(count)
    return probability, rng.random(count) < probability, rng.uniform(0.1, 3, count)


def test_a_probability_that_means_what_it_says_has_no_calibration_error() -> None:
    probability, same, weight = told(200_000)
    bins = reliability.bins(probability, same, weight)
    assert reliability.expected_calibration_error(bins) < 0.01
    assert sum(one.pairs for one in bins) == len(probability)
    assert sum(one.share for one in bins) == pytest.approx(1)
    assert all(one.least <= one.said <= one.most for one in bins)


def test_calibration_error_by_hand() -> None:
    probability = np.array([0.05, 0.05, 0.95, 0.95])
    same = np.array([False, True, True, True])
    weight = np.array([3.0, 1.0, 2.0, 2.0])
    bins = reliability.bins(probability, same, weight)
    assert [(one.pairs, one.true) for one in bins] == [(2, 0.25), (2, 1.0)]
    assert reliability.expected_calibration_error(bins) == pytest.approx(0.5 * 0.2 + 0.5 * 0.05)
    scores = reliability.scores(probability, same, weight)
    assert scores["brier"] == pytest.approx((3 * 0.05**2 + 0.95**2 + 4 * 0.05**2) / 8, abs=1e-6)
    expected = -(3 * np.log(0.95) + np.log(0.05) + 4 * np.log(0.95)) / 8
    assert scores["log_loss"] == pytest.approx(expected, abs=1e-5)


def test_certain_and_wrong_is_finite() -> None:
    found = reliability.scores(np.array([0.0, 1.0]), np.array([True, False]), np.ones(2))
    assert np.isfinite(found["log_loss"])


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_recall_at_precision_is_that_of_trying_every_threshold(level: float) -> None:
    probability, same, weight = told(300, seed=5)
    probability = probability.round(2)  # with ties
    best = 0.0
    for threshold in np.unique(probability):
        above = probability >= threshold
        true = (weight * same)[above].sum()
        if true >= level * weight[above].sum():
            best = max(best, true / (weight * same).sum())
    assert reliability.recall_at_precision(probability, same, weight, level) == pytest.approx(best, abs=1e-4)


def test_the_plot_is_one_page_that_names_the_base_rate(tmp_path: Path) -> None:
    bins = reliability.bins(*told(500))
    reliability.write(tmp_path / "page.html", bins, {"brier": 0.1}, 0.0123, 0.5)
    text = (tmp_path / "page.html").read_text()
    assert "1.23%" in text
    assert "<svg" in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")


def matched(same: bool, count: int, seed: int, **more: object) -> evidence.Candidate:
    """A pair whose matched features lean to one side where it is true, to the other where not."""
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 64))
    descriptors[:, 0] += 6 if same else -6
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    geometry = SimpleNamespace(descriptors=descriptors.astype(np.float32), inliers=count)
    side = SimpleNamespace(photo=seed, window=None)
    entry = {"kind": None, "verdict": None} | more
    return evidence.Candidate(side, side, False, geometry, same=same, **entry)  # type: ignore[arg-type]


def test_what_matches_falsely_is_learned_to_tell_little() -> None:
    pairs = [matched(number % 2 == 0, 30, number) for number in range(40)]
    found = telling.learned(pairs, seed=1)
    true, false = matched(True, 200, 100), matched(False, 200, 101)
    assert found.mean(true.geometry.descriptors) > 0.75
    assert found.mean(false.geometry.descriptors) < 0.25
    assert telling.learned(pairs, seed=1) == found


def test_nothing_is_learned_from_pairs_that_may_be_one_car_nor_twice_from_one_window() -> None:
    doubtful = matched(False, telling.DOUBTFUL, 1)
    judged = matched(False, telling.DOUBTFUL, 2, verdict="diff")
    once = matched(True, 20, 3)
    descriptors, same = telling.matches([doubtful, judged, once, once], seed=0)
    assert len(descriptors) == len(same) == telling.AT_MOST + 20
    assert same.sum() == 20


def test_too_few_matches_make_no_network() -> None:
    assert telling.learned([matched(True, 30, 0), matched(False, 12, 1)], seed=0).hidden == 0


def asked(kind: AlertKind, name: str, same: bool) -> evidence.Candidate:
    side = SimpleNamespace(photo=SimpleNamespace(photo_id=name))
    return evidence.Candidate(side, side, False, None, kind, same)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("true", "false", "named"),
    [
        (0, 0, "0 pairs of a photo and its"),
        (9, 30, "9 pairs of a photo and its"),
        (10, 9, "9 pairs of different"),
    ],
)
def test_too_little_to_calibrate_on_says_what_is_lacking(true: int, false: int, named: str) -> None:
    pairs = [asked(AlertKind.SAME_DAMAGE, "a again", True) for _ in range(true)]
    pairs += [asked(AlertKind.SAME_DAMAGE, "a", False) for _ in range(false)]
    pairs += [asked(AlertKind.DUPLICATE_PHOTO, "a again", True)] * 20  # on which no probability decides
    with pytest.raises(DataRefusedError, match=named):
        calibrate.base_rate(evidence.Evidence(pairs, ("a", "b"), ("a again",)), 0.003)


def test_the_base_rate_is_by_photos_that_return_and_that_ask() -> None:
    pairs = [asked(AlertKind.SAME_DAMAGE, "a again", True) for _ in range(10)]
    pairs += [asked(AlertKind.SAME_DAMAGE, "a", False) for _ in range(20)]
    found = calibrate.base_rate(evidence.Evidence(pairs, ("a", "b", "c", "d"), ("a again", "b again")), 0.1)
    assert found == pytest.approx(0.1 * 5 / (0.1 * 5 + 5))
