"""From the signals of compared pairs to the probability that both show one damage.

Only pairs on which the probability decides are fitted: without a homography, or with nothing matched on the damages,
there is no alert whatever it says, and one picture is a duplicate whatever it says.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]

from damagewatch.domain import AlertKind, Signals
from damagewatch.vision import decide
from damagewatch.vision.calibration import FEATURES, Calibration, Logistic, Thresholds, features
from damagewatch_training.calibrate import reliability, telling
from damagewatch_training.calibrate.evidence import Candidate, Evidence
from damagewatch_training.data.dataset import DataRefusedError

SIGNS = (0, 1, 1, 1, 1, 1, 0, 1)
"""Which way each signal speaks (`damagewatch.vision.calibration.FEATURES`). The distance of hashes says nothing here:
one picture is told before, and a real second photograph is as far from the first as any other. Nor does the cosine:
by it the pairs were chosen, and among these it tells rephotographs, which the embedder has learned, from real second
photographs. With one false pair above the threshold, 10 of 13 real ones are as well without the cosine, 6 with it."""
PARTS = 5
"""Into which the photos are parted for the figures."""
UNTURNED = 0.01
"""Share of the mirrored copies that look too little alike to be turned."""
FEWEST = 10
"""Pairs of rephotographs, and of different cars, on which the probability decides: fewer fit nothing."""
PENALTY = 0.015
"""Of the regression. There are a hundred false pairs to learn from, and held back ones are told apart best by small
coefficients. What it takes from the certainty of all, `certainty` gives back."""
LEAST_THRESHOLD = 0.5
"""No alert is less likely to be right than wrong, even where none was false. Of 160 photos photographed again one
reached less."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration, how good it is on pairs held back from the fit, and the bins of its reliability."""

    calibration: Calibration
    quality: dict[str, float]
    bins: list[reliability.Bin]

    def entry(self) -> dict[str, Any]:
        """For the manifest."""
        data = "train photos, rephotographs of them, and pairs of them judged by eye"
        return self.calibration.model_dump(mode="json") | {"data": data, "quality": self.quality}


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """What the logistic is fitted to: N pairs, their true share being the base rate by their weights."""

    pairs: list[Candidate]
    same: NDArray[np.bool_]
    weight: NDArray[np.float64]


def fitted(
    evidence: Evidence,
    groups: Mapping[str, str],
    returning: float = 0.003,
    false_alerts: float = 0.0002,
    seed: int = 0,
) -> Fitted:
    """A logistic regression on standardised signals, and the threshold that it needs.

    It is fitted several times more, each time without a part of the photos, whose pairs it then tells: the figures
    and the threshold are of these. Copies of one photo are in one part.

    Args:
        evidence: What the service saw.
        groups: By the name of a photo that has copies, a name that they share.
        returning: The share of photos that show a damage seen before. With the pairs that one such photo gives,
            and those that any photo gives in vain, it makes the base rate: the share of true pairs among those on
            which the probability decides.
        false_alerts: The share of asking photos that may alert falsely, rounded up: the threshold is the least at
            which no more do, and `LEAST_THRESHOLD` at least.
        seed: Of the network's learning and of the parts.

    Raises:
        DataRefusedError: There are too few pairs of one kind.
    """
    names = sorted({groups.get(name, name) for name in evidence.photos})
    places = np.random.default_rng(seed).permutation(len(names)) % PARTS
    part_of = dict(zip(names, places.tolist(), strict=True))
    parts = [tuple(part_of[groups.get(name, name)] for name in pair.photos) for pair in evidence.pairs]
    rate = base_rate(evidence, returning)
    sample = _sample(evidence.pairs, rate)
    probability = np.zeros(len(sample.pairs))
    asked = np.array([part_of[groups.get(pair.photos[0], pair.photos[0])] for pair in sample.pairs])
    for held_back in range(PARTS):
        others = [pair for pair, two in zip(evidence.pairs, parts, strict=True) if held_back not in two]
        calibration = _calibration(others, rate, seed)
        for number in np.flatnonzero(asked == held_back):
            probability[number] = calibration.probability(_signals(sample.pairs[number], calibration))
    told = np.zeros(len(sample.pairs))
    for held_back in range(PARTS):
        there, here = asked != held_back, asked == held_back
        surer, shift = certainty(probability[there], sample.same[there], sample.weight[there])
        told[here] = _sigmoid(surer * _logit(probability[here]) + shift)
    surer, shift = certainty(probability, sample.same, sample.weight)
    calibration = rescaled(_calibration(evidence.pairs, rate, seed), surer, shift)
    return _described(evidence, calibration, sample, told, false_alerts)


def base_rate(evidence: Evidence, returning: float) -> float:
    """The share of true pairs among the pairs on which the probability decides, where so many photos return.

    Raises:
        DataRefusedError: There are too few pairs of one kind.
    """
    again = set(evidence.again)
    decided = [pair for pair in evidence.pairs if pair.kind is AlertKind.SAME_DAMAGE]
    right = sum(pair.query.photo.photo_id in again for pair in decided)
    wrong = sum(not pair.same for pair in decided)
    for count, what, more in (
        (right, "pairs of a photo and its rephotograph", "--again"),
        (wrong, "pairs of different cars", "--photos"),
    ):
        if count < FEWEST:
            raise DataRefusedError(
                f"too little to calibrate on: {len(evidence.photos)} photos and {len(again)} rephotographs gave"
                f" {count} {what} that match at all, at least {FEWEST} are wanted; give more photos ({more})"
            )
    true, false = right / len(again), wrong / len(evidence.photos)
    return returning * true / (returning * true + false)


def _sample(evidence: Sequence[Candidate], rate: float) -> _Sample:
    pairs = [pair for pair in evidence if pair.kind is AlertKind.SAME_DAMAGE]
    y = np.array([pair.same for pair in pairs], np.bool_)
    # Rephotographs are easier than real second photographs, of which there are few: both count the same in all.
    real = np.array([pair.verdict in {"same", "mirror"} for pair in pairs], np.bool_) & y
    made = ~real & y
    weight = np.where(y, 0.0, 1.0)
    for part in (real, made):
        weight[part] = rate / (1 - rate) * (~y).sum() / max(part.sum(), 1)
    weight[y] *= 1 / max(bool(real.any()) + bool(made.any()), 1)
    return _Sample(pairs, y, weight)


def certainty(
    probability: NDArray[np.float64], same: NDArray[np.bool_], weight: NDArray[np.float64]
) -> tuple[float, float]:
    """By how much the logits of pairs held back are to be stretched and shifted, so that they are probabilities.

    Platt, "Probabilistic outputs for support vector machines", 1999, with his targets a little inside 0 and 1: pairs
    which are told apart without an error would make all others certain.
    """
    high, low = (same.sum() + 1) / (same.sum() + 2), 1 / ((~same).sum() + 2)
    target = np.where(same, high, low)
    logits = np.tile(_logit(probability), 2)[:, None]
    labels = np.repeat([True, False], len(same))
    weights, intercept = monotone_logistic(
        logits, labels, np.concatenate([weight * target, weight * (1 - target)]), (1,), penalty=0.0
    )
    return float(weights[0]), intercept


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0, -logit)), np.float64)


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(probability, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(kept / (1 - kept)), np.float64)


def rescaled(calibration: Calibration, surer: float, shift: float) -> Calibration:
    """The calibration with each logit multiplied by `surer`, plus `shift`."""

    def of(logistic: Logistic) -> dict[str, Any]:
        return {
            "coefficients": tuple(round(surer * weight, 6) for weight in logistic.coefficients),
            "intercept": round(surer * logistic.intercept + shift, 6),
        }

    update = of(calibration)
    if calibration.whole is not None:
        update["whole"] = calibration.whole.model_copy(update=of(calibration.whole))
    return calibration.model_copy(update=update)


def _signals(pair: Candidate, calibration: Calibration) -> Signals:
    return decide.measure(pair.query, pair.match, pair.geometry, calibration)


def _calibration(evidence: Sequence[Candidate], rate: float, seed: int) -> Calibration:
    distinctness = telling.learned(evidence, seed)
    sample = _sample(evidence, rate)
    measured = Calibration(distinctness=distinctness)
    signals = [_signals(pair, measured) for pair in sample.pairs]
    x = np.array([features(one) for one in signals]).reshape(-1, len(FEATURES))
    whole = np.array([one.whole for one in signals], np.bool_)
    return Calibration(
        **_regression(x[~whole], sample.same[~whole], sample.weight[~whole]),
        whole=Logistic(**_regression(x[whole], sample.same[whole], sample.weight[whole])),
        base_rate=round(rate, 6),
        distinctness=distinctness,
    )


def _regression(
    x: NDArray[np.float64], same: NDArray[np.bool_], weight: NDArray[np.float64]
) -> dict[str, Any]:
    """The numbers of a `Logistic`; its defaults where there are no pairs of both kinds."""
    if same.all() or not same.any():
        return {}
    mean, scale = x.mean(0), x.std(0) + 1e-9
    coefficients, intercept = monotone_logistic((x - mean) / scale, same, weight, SIGNS)
    return {
        "mean": tuple(mean.round(6).tolist()),
        "scale": tuple(scale.round(6).tolist()),
        "coefficients": tuple(coefficients.round(6).tolist()),
        "intercept": round(intercept, 6),
    }


def _described(
    evidence: Evidence,
    calibration: Calibration,
    told: _Sample,
    probability: NDArray[np.float64],
    false_alerts: float,
) -> Fitted:
    """Sets the threshold, and measures, both on the probabilities that were `told` of pairs held back."""
    same, weight = told.same, told.weight
    duplicates = [(pair, 1.0) for pair in evidence.pairs if pair.kind is AlertKind.DUPLICATE_PHOTO]
    alerts = [
        (pair, value)
        for pair, value in [*zip(told.pairs, probability.tolist(), strict=True), *duplicates]
        if _may_alert(pair, value, calibration)
    ]
    wrong = sorted(_best(alert for alert in alerts if not alert[0].same).values(), reverse=True)
    allowed = math.ceil(false_alerts * len(evidence.photos))  # at least one: no single pair decides
    least = wrong[allowed] * 1.02 if allowed < len(wrong) else 0.0
    threshold = round(min(max(least, LEAST_THRESHOLD), 0.99), 3)
    right = _best(alert for alert in alerts if alert[0].same)
    again = [right.get(name, 0.0) for name in evidence.again]
    cosines = {  # once for two photos, however often they were looked at
        pair.photos: float(pair.query.embedding @ pair.match.embedding)
        for pair in evidence.pairs
        if pair.mirrored and pair.same
    }
    thresholds = Thresholds(
        same_damage=threshold,
        mirrored_cosine=round(float(np.quantile([*cosines.values()], UNTURNED)), 3)
        if cosines
        else Thresholds().mirrored_cosine,
    )
    bins = reliability.bins(probability, same, weight)
    quality = {
        "pairs": len(told.pairs),
        "true_pairs": int(same.sum()),
        **reliability.scores(probability, same, weight),
        "expected_calibration_error": reliability.expected_calibration_error(bins),
        **{
            f"recall_at_precision_{level}": reliability.recall_at_precision(probability, same, weight, level)
            for level in (0.99, 0.97, 0.95, 0.9)
        },
        "rephotographs": len(again),
        "rephotographs_alerted": round(float(np.mean(np.array(again) >= threshold)), 4),
        "photos_asked": len(evidence.photos),
        "photos_alerted_falsely": sum(value >= threshold for value in wrong),
    }
    return Fitted(calibration.model_copy(update={"thresholds": thresholds}), quality, bins)


def _may_alert(pair: Candidate, probability: float, calibration: Calibration) -> bool:
    """Whether the service's rules let the pair alert at some threshold, now that it is known what is telling."""
    least = Thresholds(same_damage=1e-9, duplicate_photo=calibration.thresholds.duplicate_photo)
    kind = decide.kind_of(
        pair.query, pair.match, pair.geometry, _signals(pair, calibration), pair.mirrored, probability, least
    )
    return kind is not None


def monotone_logistic(
    x: NDArray[np.float64],
    y: NDArray[np.bool_],
    weight: NDArray[np.float64],
    signs: Sequence[int],
    penalty: float = PENALTY,
) -> tuple[NDArray[np.float64], float]:
    """Logistic regression whose coefficients keep given signs (or are 0, as where the sign is), with an L2 penalty.

    Signals go together, and a free fit then sets some against the others: more inliers would count against a pair.
    That fits these pairs a little better and other pairs worse.

    Returns:
        The coefficients, and the intercept.
    """
    target, weight = np.where(y, 1.0, -1.0), weight / weight.sum()

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = target * (x @ w[:-1] + w[-1])
        pull = -weight * target * np.exp(-np.logaddexp(0, margin))
        gradient = np.append(x.T @ pull + 2 * penalty * w[:-1], pull.sum())
        return float(weight @ np.logaddexp(0, -margin) + penalty * (w[:-1] ** 2).sum()), gradient

    bounds = [(0 if sign >= 0 else None, 0 if sign <= 0 else None) for sign in signs]
    found = minimize(
        loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)]
    )
    return found.x[:-1], float(found.x[-1])


def _best(alerts: Iterable[tuple[Candidate, float]]) -> dict[str, float]:
    """The highest probability that each asking photo reached."""
    best: dict[str, float] = defaultdict(float)
    for pair, probability in alerts:
        name = pair.query.photo.photo_id
        best[name] = max(best[name], probability)
    return best
