"""Fits the probability that two damages are one, on pairs that the service itself would verify.

True pairs are photos and their rephotographs, plain and mirrored, and the real pairs known to be the same;
false ones are the nearest of all other photos, which is what the service verifies in vain, and the real look-alikes.
Only pairs on which the probability decides are fitted: without a homography there is no alert whatever it says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.optimize import minimize  # type: ignore[import-untyped]

from damagewatch.domain import AlertKind, ClaimImage, Damage, DamageType, Sighting, Signals
from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision import decide
from damagewatch.vision.calibration import Calibration, Thresholds, features
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perceived, Perception
from damagewatch_training.data import windows
from damagewatch_training.data.sources import SAME, Pair, Photo
from damagewatch_training.evaluate import metrics

CANDIDATES, PHOTOS, PAIRS = 20, 8, 2
"""How widely the service searches by default: damages for a damage, photos, pairs of damages of two photos."""
SIGNS = (1, 1, 1, 1, 1, 1, -1)
"""Which way each signal speaks (`damagewatch.vision.calibration.FEATURES`): only distance of hashes, against."""
SURELY_INLIERS, SURELY_ALIGNED = 100, 0.85
"""From which an unlabelled pair is no negative: of 37 pairs with so many inliers that were looked at all were the
same damage, and the nearest of different cars (one model on one turntable) align by 0.79."""
WEIGHT_OF_TRUE = 0.01
"""Of a true pair in the fit, a false one being 1: true pairs are rare in the field, so that what tells them from the
rare look-alikes matters more than what tells them from most."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A verified pair of damages on which a homography was found; `query` is mirrored where that was needed."""

    query: Sighting
    match: Sighting
    signals: Signals
    same: bool


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the service saw: pairs with a homography, and who asked whether or not any was found."""

    pairs: list[Candidate]
    photos: int
    """Photos that asked for all the others: none of them should alert, but for known pairs."""
    again: tuple[str, ...]
    """Photo ids of the rephotographs: each should alert."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration and how good it is."""

    calibration: Calibration
    quality: dict[str, float]

    def entry(self) -> dict[str, Any]:
        """For the manifest."""
        data = "train photos, rephotographs of them, and pairs of them judged by eye"
        return self.calibration.model_dump(mode="json") | {"data": data, "quality": self.quality}


def choose(photos: Sequence[Photo], known: Sequence[Pair], count: int, seed: int) -> list[Photo]:
    """`count` of the photos by chance, at most a third of them from telling pairs (all but plain copies)."""
    telling = {name for pair in known if pair.verdict not in {"copy", "unsure"} for name in (pair.a, pair.b)}
    shuffled = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))]
    chosen = [photo for photo in shuffled if photo.name in telling][: count // 3]
    return chosen + [photo for photo in shuffled if photo.name not in telling][: count - len(chosen)]


def candidates(
    photos: Sequence[Photo], known: Sequence[Pair], models: Models, again: int, seed: int
) -> Evidence:
    """Lets the service look at `photos` and verify what it would verify.

    Args:
        photos: The gallery. Each also asks for all the others, which gives negatives.
        known: Pairs judged by eye; those among `photos` are compared as well.
        models: The models folder.
        again: How many of the photos are photographed again, a fifth of them mirrored.
        seed: Of all chance.
    """
    perception = Perception(models)
    seen = {photo.name: perceive(perception, photo.name, photo.path.read_bytes()) for photo in track(photos)}
    gallery = [sighting for perceived in seen.values() for sighting in perceived.sightings]
    embeddings = np.stack([sighting.embedding for sighting in gallery])
    owners = np.array([sighting.photo.photo_id for sighting in gallery])
    verdicts = {frozenset((pair.a, pair.b)): pair.verdict for pair in known}
    pairs: list[Candidate] = []
    for name, perceived in track(seen.items(), "false pairs"):
        for query, match in _nearest(perceived, gallery, np.where(owners == name, np.nan, embeddings.T).T):
            if frozenset((name, match.photo.photo_id)) not in verdicts:
                found = _verified(perceived, query, match, same=False)
                pairs += [
                    pair
                    for pair in found
                    if pair.signals.inliers < SURELY_INLIERS and pair.signals.alignment < SURELY_ALIGNED
                ]
    rng = np.random.default_rng(seed)
    asked = []
    for photo in track([photos[i] for i in rng.permutation(len(photos))[:again]], "true pairs"):
        mirror = bool(rng.random() < 0.2)
        taken = rephotograph(photo.read(), rng, strength=rng.uniform(0.5, 1.2), mirror=mirror)
        perceived = perceive(perception, f"{photo.name} again", taken.encoded())
        asked.append(f"{photo.name} again")
        back = np.asarray(np.linalg.inv(taken.homography), np.float64)
        for query, match in _nearest(perceived, gallery, embeddings):
            if match.photo.photo_id == photo.name and _is_seen_in(query.damage, match.damage, back, match):
                pairs += _verified(perceived, query, match, same=True)
    for pair in track([pair for pair in known if pair.a in seen and pair.b in seen], "known pairs"):
        a, b = seen[pair.a], seen[pair.b]
        if pair.verdict in SAME:  # which of their damages is the same was not judged
            pairs += _verified(a, a.sightings[0], b.sightings[0], same=True)
        elif pair.verdict != "unsure":
            for query, match in closest(a, b):
                pairs += _verified(a, query, match, same=False)
    return Evidence(pairs, len(photos), tuple(asked))


def perceive(perception: Perception, name: str, content: bytes) -> Perceived:
    """The photo as the service sees it, in a claim of its own."""
    return perception.perceive(ClaimImage("train", name, name, content))


def _nearest(
    perceived: Perceived, gallery: list[Sighting], embeddings: NDArray[np.float32]
) -> Iterator[tuple[Sighting, Sighting]]:
    """The pairs that the service verifies: the nearest damages of the nearest photos; NaN is far from all."""
    pairs: list[tuple[float, Sighting, Sighting]] = []
    for query in perceived.sightings:
        distance = -(embeddings @ query.embedding)
        pairs += [(float(distance[i]), query, gallery[i]) for i in np.argsort(distance)[:CANDIDATES]]
    by_photo: dict[str, list[tuple[Sighting, Sighting]]] = defaultdict(list)
    for _, query, match in sorted(pairs, key=lambda pair: pair[0]):
        by_photo[match.photo.photo_id].append((query, match))
    for chosen in list(by_photo.values())[:PHOTOS]:
        yield from chosen[:PAIRS]


def closest(a: Perceived, b: Perceived) -> list[tuple[Sighting, Sighting]]:
    """The most alike damages of two photos, the whole photos among them."""
    pairs = [(query, match) for query in a.sightings for match in b.sightings]
    rest = sorted(pairs[1:], key=lambda pair: -float(pair[0].embedding @ pair[1].embedding))
    return [pairs[0], *rest[:PAIRS]]


def _is_seen_in(query: Damage, match: Damage, back: NDArray[np.float64], photo: Sighting) -> bool:
    """Whether a damage of a rephotograph is one of the photo; the whole photo shows each."""
    if DamageType.WHOLE in {query.type, match.type}:
        return True
    box = windows.mapped(query.box, back, photo.width, photo.height)
    return box is not None and box.intersection(match.box) is not None


def _verified(perceived: Perceived, query: Sighting, match: Sighting, *, same: bool) -> list[Candidate]:
    """The pair with its better geometry, plain or mirrored; none if there is neither."""
    found = []
    for mirrored in (False, True):
        asked = perceived.mirrored(query) if mirrored else query
        geometry = decide.compared(asked, match, mirrored)
        if geometry is not None:
            found.append(Candidate(asked, match, decide.measure(asked, match, geometry), same))
    return sorted(found, key=lambda pair: -pair.signals.inliers)[:1]


def fitted(evidence: Evidence, returning: float = 0.003, false_alerts: float = 0.001) -> Fitted:
    """A logistic regression on standardised signals, and the threshold that it needs.

    Args:
        evidence: What the service saw.
        returning: The share of photos that show a damage seen before. With the pairs that one such photo gives,
            and those that any photo gives in vain, it is the base rate to which the intercept is moved.
        false_alerts: The share of asking photos that may alert falsely: the threshold is the least at which no
            more do.
    """
    pairs, duplicates = _judged(evidence.pairs)
    x = np.array([features(pair.signals) for pair in pairs])
    y = np.array([pair.same for pair in pairs])
    mean, scale = x.mean(0), x.std(0) + 1e-9
    weight = np.where(y, WEIGHT_OF_TRUE, 1.0)
    coefficients, intercept = monotone_logistic((x - mean) / scale, y, weight, SIGNS)
    again = set(evidence.again)
    true_pairs = sum(pair.query.photo.photo_id in again for pair in pairs) / len(again)
    false_pairs = int((~y).sum()) / evidence.photos
    base_rate = returning * true_pairs / (returning * true_pairs + false_pairs)
    mirrored_cosine = float(np.quantile([pair.signals.cosine for pair in pairs if pair.same], 0.02))
    calibration = Calibration(
        mean=tuple(mean.round(6).tolist()),
        scale=tuple(scale.round(6).tolist()),
        coefficients=tuple(coefficients.round(6).tolist()),
        intercept=round(intercept + _logit(base_rate) - _logit(float(weight[y].sum() / weight.sum())), 6),
        base_rate=round(base_rate, 6),
        thresholds=Thresholds(mirrored_cosine=round(mirrored_cosine, 3)),
    )
    probability = np.array([calibration.probability(pair.signals) for pair in pairs])
    alerts = [*zip(pairs, probability.tolist(), strict=True), *((pair, 1.0) for pair in duplicates)]
    wrong = sorted(_best(alert for alert in alerts if not alert[0].same).values(), reverse=True)
    allowed = round(false_alerts * evidence.photos)
    threshold = round(min(max(wrong[allowed] * 1.05 if allowed < len(wrong) else 0.0, 0.01), 0.99), 4)
    right = _best(alert for alert in alerts if alert[0].same)
    quality = {
        "pairs": len(pairs),
        "true_pairs": int(y.sum()),
        "recall_at_precision_0.99": round(metrics.recall_at_precision(probability, y, 0.99), 4),
        "rephotographs": len(again),
        "rephotographs_alerted": round(
            float(np.mean([right.get(name, 0) >= threshold for name in again])), 4
        ),
        "photos_asked": evidence.photos,
        "photos_alerted_falsely": sum(p >= threshold for p in wrong),
    }
    thresholds = calibration.thresholds.model_copy(update={"same_damage": threshold})
    return Fitted(calibration.model_copy(update={"thresholds": thresholds}), quality)


def _judged(pairs: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The pairs on which the probability decides, and those that are one picture whatever it says."""
    anything = Calibration(coefficients=(0.0,) * 7, intercept=0.0, thresholds=Thresholds(same_damage=0.5))
    undecided: list[Candidate] = []
    duplicates: list[Candidate] = []
    for pair in pairs:
        match = decide.judge(pair.query, pair.match, anything)
        if match is not None:
            (duplicates if match.kind is AlertKind.DUPLICATE_PHOTO else undecided).append(pair)
    return undecided, duplicates


def monotone_logistic(
    x: NDArray[np.float64],
    y: NDArray[np.bool_],
    weight: NDArray[np.float64],
    signs: Sequence[int],
    penalty: float = 1e-5,
) -> tuple[NDArray[np.float64], float]:
    """Logistic regression whose coefficients keep given signs (or are 0), with an L2 penalty on them.

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

    bounds = [(0, None) if sign > 0 else (None, 0) for sign in signs]
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


def _logit(p: float) -> float:
    return float(np.log(p / (1 - p)))
