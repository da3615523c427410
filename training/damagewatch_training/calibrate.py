"""Fits the probability that two damages are one, on pairs that the service itself would verify.

True pairs are photos and their rephotographs, plain and mirrored, and the real pairs known to be the same;
false ones are the nearest of all other photos, which is what the service verifies in vain, and the real look-alikes.
Only pairs on which a homography was found are fitted: without one there is no alert, whatever the probability.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from damagewatch.domain import AlertKind, ClaimImage, Sighting, Signals
from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision import decide
from damagewatch.vision.calibration import Calibration, Thresholds, features
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perceived, Perception
from damagewatch.vision.verify import verify
from damagewatch_training import metrics
from damagewatch_training.data import SAME, Pair, Photo

CANDIDATES, PHOTOS, PAIRS = 20, 8, 2
"""How widely the service searches by default: damages for a damage, photos, pairs of damages of two photos."""
SURELY_COPIES = 100
"""Inliers from which an unlabelled pair is no negative: of 37 such pairs looked at all were the same damage."""


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
    """`count` of the photos: those of the telling pairs first (all but plain copies), the others by chance."""
    telling = {name for pair in known if pair.verdict not in {"copy", "unsure"} for name in (pair.a, pair.b)}
    order = np.random.default_rng(seed).permutation(len(photos))
    shuffled = sorted((photos[i] for i in order), key=lambda photo: photo.name not in telling)
    return shuffled[:count]


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
    seen = {
        photo.name: _perceived(perception, photo.name, photo.path.read_bytes()) for photo in track(photos)
    }
    gallery = [sighting for perceived in seen.values() for sighting in perceived.sightings]
    embeddings = np.stack([sighting.embedding for sighting in gallery])
    owners = np.array([sighting.photo.photo_id for sighting in gallery])
    verdicts = {frozenset((pair.a, pair.b)): pair.verdict for pair in known}
    pairs: list[Candidate] = []
    for name, perceived in track(seen.items(), "false pairs"):
        for query, match in _nearest(perceived, gallery, np.where(owners == name, np.nan, embeddings.T).T):
            if frozenset((name, match.photo.photo_id)) not in verdicts:
                found = _verified(perceived, query, match, same=False)
                pairs += [pair for pair in found if pair.signals.inliers < SURELY_COPIES]
    rng = np.random.default_rng(seed)
    asked = []
    for photo in track([photos[i] for i in rng.permutation(len(photos))[:again]], "true pairs"):
        mirror = bool(rng.random() < 0.2)
        taken = rephotograph(photo.read(), rng, strength=rng.uniform(0.5, 1.3), mirror=mirror)
        perceived = _perceived(perception, f"{photo.name} again", taken.encoded())
        asked.append(f"{photo.name} again")
        for query, match in _nearest(perceived, gallery, embeddings):
            if match.photo.photo_id == photo.name:
                pairs += _verified(perceived, query, match, same=True)
    for pair in track([pair for pair in known if pair.a in seen and pair.b in seen], "known pairs"):
        if pair.verdict != "unsure":
            a, b = seen[pair.a], seen[pair.b]
            for query, match in _closest(a, b):
                pairs += _verified(a, query, match, same=pair.verdict in SAME)
    return Evidence(pairs, len(photos), tuple(asked))


def _perceived(perception: Perception, name: str, content: bytes) -> Perceived:
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


def _closest(a: Perceived, b: Perceived) -> list[tuple[Sighting, Sighting]]:
    """The most alike damages of two photos, the whole photos among them."""
    pairs = [(query, match) for query in a.sightings for match in b.sightings]
    rest = sorted(pairs[1:], key=lambda pair: -float(pair[0].embedding @ pair[1].embedding))
    return [pairs[0], *rest[:PAIRS]]


def _verified(perceived: Perceived, query: Sighting, match: Sighting, *, same: bool) -> list[Candidate]:
    for mirrored in (False, True):
        asked = perceived.mirrored(query) if mirrored else query
        geometry = verify(asked, match)
        if geometry is not None:
            return [Candidate(asked, match, decide.measure(asked, match, geometry), same)]
    return []


def fitted(evidence: Evidence, base_rate: float = 0.003, false_alerts: float = 0.001) -> Fitted:
    """A logistic regression with L2 on standardised signals, its intercept moved to `base_rate`.

    The threshold is the least probability from one half on at which at most `false_alerts` of the asking photos
    alert falsely.
    """
    pairs = evidence.pairs
    x = np.array([features(pair.signals) for pair in pairs])
    y = np.array([pair.same for pair in pairs])
    mean, scale = x.mean(0), x.std(0) + 1e-9
    model = LogisticRegression(C=1.0, max_iter=2000).fit((x - mean) / scale, y)
    shift = _logit(base_rate) - _logit(float(y.mean()))
    cosines = np.array([pair.signals.cosine for pair in pairs if pair.same])
    thresholds = Thresholds(same_damage=1e-9, mirrored_cosine=round(float(np.quantile(cosines, 0.02)), 3))
    calibration = Calibration(
        mean=tuple(mean.round(6).tolist()),
        scale=tuple(scale.round(6).tolist()),
        coefficients=tuple(model.coef_[0].round(6).tolist()),
        intercept=round(float(model.intercept_[0]) + shift, 6),
        base_rate=base_rate,
        thresholds=thresholds,
    )
    judged = [(pair, decide.judge(pair.query, pair.match, calibration)) for pair in pairs]
    alerts = [
        (pair, 1.0 if match.kind is AlertKind.DUPLICATE_PHOTO else match.probability)
        for pair, match in judged
        if match is not None
    ]
    wrong = sorted(_best((pair, p) for pair, p in alerts if not pair.same).values(), reverse=True)
    allowed = int(false_alerts * evidence.photos)
    threshold = float(np.clip(wrong[allowed] + 1e-3 if allowed < len(wrong) else 0.5, 0.5, 0.999))
    right = _best((pair, p) for pair, p in alerts if pair.same)
    again = [right.get(name, 0.0) >= threshold for name in evidence.again]
    probability = np.array([calibration.probability(pair.signals) for pair in pairs])
    quality = {
        "pairs": len(pairs),
        "true_pairs": int(y.sum()),
        "recall_at_precision_0.99": round(metrics.recall_at_precision(probability, y, 0.99), 4),
        "rephotographs": len(again),
        "rephotographs_alerted": round(float(np.mean(again)), 4),
        "photos_asked": evidence.photos,
        "photos_alerted_falsely": int(sum(p >= threshold for p in wrong)),
    }
    thresholds = thresholds.model_copy(update={"same_damage": round(threshold, 4)})
    return Fitted(calibration.model_copy(update={"thresholds": thresholds}), quality)


def _best(alerts: Iterable[tuple[Candidate, float]]) -> dict[str, float]:
    """The highest probability that each asking photo reached."""
    best: dict[str, float] = defaultdict(float)
    for pair, probability in alerts:
        name = pair.query.photo.photo_id
        best[name] = max(best[name], probability)
    return best


def _logit(p: float) -> float:
    return float(np.log(p / (1 - p)))
