"""The pairs of damages that the service would compare, and which of them are one damage.

True pairs are photos and their rephotographs, plain and mirrored, and the real pairs known to be the same; false ones
are the nearest of all other photos, which is what the service verifies in vain, and the real look-alikes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from damagewatch.domain import AlertKind, ClaimImage, Damage, DamageType, Sighting
from damagewatch.pipeline.recognition import Options
from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision import closer, decide, looks, verify
from damagewatch.vision.calibration import Calibration
from damagewatch.vision.decode import Photo as Decoded
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perceived, Perception
from damagewatch.vision.verify import Geometry
from damagewatch_training.data import windows
from damagewatch_training.data.sources import SAME, Pair, Photo
from damagewatch_training.evaluate.chain import in_order

SURELY_INLIERS, SURELY_ALIGNED = 100, 0.85
"""From which an unlabelled pair is no negative: of 37 pairs with so many inliers that were looked at all were the
same damage, and the nearest of different cars (one model on one turntable) align by 0.79."""

_AGAIN = " again"
_NO_PICTURE = Decoded(np.zeros((1, 1, 3), np.uint8), 1, 1, 1.0)
_UNFITTED = Calibration()
"""Its defaults: every pair is taken for probable, and what is refused then is refused for other reasons."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A pair of damages on which a homography was found; `query` is mirrored where that was needed.

    `kind` is what it would be if any probability were enough: SAME_DAMAGE where the probability decides.
    `verdict` is a person's on the two photos; other pairs are true or false by how they were made.
    """

    query: Sighting
    match: Sighting
    mirrored: bool
    geometry: Geometry
    kind: AlertKind | None
    same: bool
    verdict: str | None = None

    @property
    def photos(self) -> tuple[str, str]:
        """Names of the photos that both come from, a rephotograph's being its original's."""
        return self.query.photo.photo_id.removesuffix(_AGAIN), self.match.photo.photo_id


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the service saw: pairs with a homography, and who asked whether or not any was found."""

    pairs: list[Candidate]
    photos: tuple[str, ...]
    """Photos that asked for all the others: none of them should alert, but for known pairs."""
    again: tuple[str, ...]
    """Photo ids of the rephotographs: each should alert."""


def choose(photos: Sequence[Photo], known: Sequence[Pair], count: int, seed: int) -> list[Photo]:
    """`count` of the photos by chance, at most a third of them from telling pairs (all but plain copies)."""
    telling = {name for pair in known if pair.verdict not in {"copy", "unsure"} for name in (pair.a, pair.b)}
    shuffled = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))]
    chosen = [photo for photo in shuffled if photo.name in telling][: count // 3]
    return chosen + [photo for photo in shuffled if photo.name not in telling][: count - len(chosen)]


def gather(
    photos: Sequence[Photo], known: Sequence[Pair], models: Models, again: int, seed: int, threads: int
) -> Evidence:
    """Lets the service look at `photos` and compare what it would compare.

    Args:
        photos: The gallery. Each also asks for all the others, which gives negatives.
        known: Pairs judged by eye; those among `photos` are compared as well.
        models: The models that look.
        again: How many of the photos are photographed again, a fifth of them mirrored.
        seed: Of all chance.
        threads: Photos looked at at once.
    """
    perception = Perception(models)

    def look(photo: Photo) -> Perceived:
        perceived = perceive(perception, photo.name, photo.path.read_bytes())
        # All that is ever asked of the picture, which is megabytes; a closer look takes the crops.
        perceived.mirrored(perceived.sightings[0])
        return replace(perceived, _image=_NO_PICTURE)

    seen = {p.photo.photo_id: p for p in track(in_order(look, photos, threads), "looking", total=len(photos))}
    gallery = _Gallery(list(seen.values()))
    verdicts = {frozenset((pair.a, pair.b)): pair.verdict for pair in known}

    compare = _Comparison(models, seen)

    def ask(perceived: Perceived) -> list[Candidate]:
        name = perceived.photo.photo_id
        return [
            candidate
            for other, pairs in gallery.near(perceived)
            if frozenset((name, other)) not in verdicts
            for candidate in _unless_sure(compare(perceived, pairs, same=False))
        ]

    pairs: list[Candidate] = []
    for found in track(in_order(ask, seen.values(), threads), "false pairs", total=len(seen)):
        pairs += found
    order = np.random.default_rng(seed).permutation(len(photos))[:again]

    def return_(number: int) -> list[Candidate]:
        return _returned(photos[number], perception, gallery, compare, np.random.default_rng([seed, number]))

    for found in track(in_order(return_, order.tolist(), threads), "true pairs", total=len(order)):
        pairs += found
    for pair in track([pair for pair in known if pair.a in seen and pair.b in seen], "known pairs"):
        if pair.verdict != "unsure":
            pairs += _judged(seen[pair.a], seen[pair.b], compare, pair.verdict)
    return Evidence(pairs, tuple(seen), tuple(photos[number].name + _AGAIN for number in order))


def perceive(perception: Perception, name: str, content: bytes) -> Perceived:
    """The photo as the service sees it, in a claim of its own."""
    return perception.perceive(ClaimImage("train", name, name, content))


class _Gallery:
    """Searches as the service does by default: the nearest damages of the nearest photos."""

    def __init__(self, seen: Sequence[Perceived]) -> None:
        self._sightings = [sighting for perceived in seen for sighting in perceived.sightings]
        self._embeddings = np.stack([sighting.embedding for sighting in self._sightings])
        self._whole = {perceived.photo.photo_id: perceived.sightings[0] for perceived in seen}
        self._owners = np.array([sighting.photo.photo_id for sighting in self._sightings])

    def near(self, perceived: Perceived) -> list[tuple[str, list[tuple[Sighting, Sighting]]]]:
        """The pairs that the service compares, by the other photo's name, the most alike first."""
        options = Options()
        others = self._owners != perceived.photo.photo_id
        pairs: list[tuple[float, Sighting, Sighting]] = []
        for query in perceived.sightings:
            cosine = np.where(others, self._embeddings @ query.embedding, -1)
            nearest = np.argsort(-cosine, kind="stable")[: options.candidates]
            pairs += [(float(cosine[i]), query, self._sightings[i]) for i in nearest]
        by_photo: dict[str, list[tuple[Sighting, Sighting]]] = defaultdict(list)
        for cosine_, query, match in sorted(pairs, key=lambda pair: -pair[0]):
            if cosine_ >= options.least_cosine:
                by_photo[match.photo.photo_id].append((query, match))
        chosen = list(by_photo.items())[: options.photos]
        whole = perceived.sightings[0]
        return [(name, _whole_second((whole, self._whole[name]), found)) for name, found in chosen]


def _whole_second(
    wholes: tuple[Sighting, Sighting], pairs: list[tuple[Sighting, Sighting]]
) -> list[tuple[Sighting, Sighting]]:
    """That of the whole photos in second place at the latest, as the service puts it."""
    if pairs[0] == wholes:
        return pairs
    return [pairs[0], wholes, *(pair for pair in pairs[1:] if pair != wholes)]


def _unless_sure(candidates: list[Candidate]) -> list[Candidate]:
    """The looks at two photos that nobody judged; none where one of them shows that they are no negatives."""
    sure = any(
        one.geometry.inliers >= SURELY_INLIERS or one.geometry.alignment >= SURELY_ALIGNED
        for one in candidates
    )
    return [] if sure else candidates


class _Comparison:
    """Compares two photos as the service does; each look that found a geometry is a candidate.

    But closer looks are not counted, and mirrored queries are tried as by default: from how alike they have to be is
    fitted here, too.
    """

    def __init__(self, models: Models, seen: Mapping[str, Perceived]) -> None:
        self._extractor = models.local_features
        by_default = {"mirrored_cosine": _UNFITTED.thresholds.mirrored_cosine}
        thresholds = models.calibration.thresholds.model_copy(update=by_default)
        self._calibration = models.calibration.model_copy(update={"thresholds": thresholds})
        self._seen = seen

    def __call__(
        self,
        perceived: Perceived,
        pairs: Sequence[tuple[Sighting, Sighting]],
        *,
        same: bool,
        verdict: str | None = None,
    ) -> list[Candidate]:
        """The looks at two photos, of which `pairs` are damages, the most alike first; by the calibration so far."""
        if not pairs:
            return []
        options = Options()
        other = self._seen[pairs[0][1].photo.photo_id]
        return [
            Candidate(look.query, look.match, look.mirrored, look.geometry, _kind(look), same, verdict)
            for look in looks.at_photos(
                pairs[: options.pairs],
                perceived.sightings,
                lambda: other.sightings,
                self._calibration,
                options.least_cosine,
                perceived.mirrored,
                closer.of_photos(self._extractor, perceived, other),
            )
            if look.geometry is not None
        ]


def _kind(look: looks.Look) -> AlertKind | None:
    """What the pair would be if any probability were enough."""
    signals = decide.measure(look.query, look.match, look.geometry, _UNFITTED)
    return decide.kind_of(
        look.query, look.match, look.geometry, signals, look.mirrored, 1.0, _UNFITTED.thresholds
    )


def _returned(
    photo: Photo,
    perception: Perception,
    gallery: _Gallery,
    compare: _Comparison,
    rng: np.random.Generator,
) -> list[Candidate]:
    """The pairs of a photo and its rephotograph, as far as the service would compare them."""
    mirror = bool(rng.random() < 0.2)
    taken = rephotograph(photo.read(), rng, strength=rng.uniform(0.5, 1.2), mirror=mirror)
    perceived = perceive(perception, photo.name + _AGAIN, taken.encoded())
    back = np.asarray(np.linalg.inv(taken.homography), np.float64)
    pairs: Mapping[str, Sequence[tuple[Sighting, Sighting]]] = dict(gallery.near(perceived))
    return [
        candidate
        for candidate in compare(perceived, pairs.get(photo.name, ()), same=True)
        if candidate.mirrored == mirror
        and _is_seen_in(candidate.query.damage, candidate.match.damage, back, candidate.match)
    ]


def _is_seen_in(query: Damage, match: Damage, back: NDArray[np.float64], photo: Sighting) -> bool:
    """Whether a damage of a rephotograph is one of the photo; the whole photo shows each."""
    if DamageType.WHOLE in {query.type, match.type}:
        return True
    box = windows.mapped(query.box, back, photo.width, photo.height)
    return box is not None and box.intersection(match.box) is not None


def _judged(a: Perceived, b: Perceived, compare: _Comparison, verdict: str) -> list[Candidate]:
    """Pairs of damages of two photos that a person judged.

    Which of their damages is the same was not judged: of true pairs, those that lie on each other are taken; by the
    mirrored geometry of what was judged to be mirrored, else by the better of plain and mirrored.
    """
    pairs = sorted(
        itertools.product(a.sightings, b.sightings),
        key=lambda pair: -float(pair[0].embedding @ pair[1].embedding),
    )
    pairs = _whole_second((a.sightings[0], b.sightings[0]), pairs)
    same = verdict in SAME
    candidates = compare(a, pairs, same=same, verdict=verdict)
    if same and candidates:
        better = max(candidates, key=lambda pair: pair.geometry.inliers)
        mirrored = verdict == "mirror" or better.mirrored
        candidates = [pair for pair in candidates if pair.mirrored == mirrored and _on_each_other(pair)]
    return candidates


def _on_each_other(pair: Candidate) -> bool:
    if DamageType.WHOLE in {pair.query.damage.type, pair.match.damage.type}:
        return True
    box = verify.bounds(pair.geometry.homography, pair.query.damage.box)
    return box is not None and box.intersection(pair.match.damage.box) is not None
