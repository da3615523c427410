"""Remembers a batch of photos and finds where each was seen before.

Every photo of the batch is remembered, visibly, before any is searched for: of two workers with the same
damage in hand at once, at least one then sees the other's point, so that no pair is missed.

Turns. After a crash the index holds photos whose offsets were not committed. When they come again, a photo
delivered *before* such a leftover finds it, and the leftover finds that photo again in its own turn: two
alerts for one pair. So a candidate that lies ahead of us on a partition that we own is left for its own turn.
That misses nothing: whoever commits the candidate's offset later searches after our point was made visible,
and a worker that lost the partition cannot commit (`Positions` is dropped with the assignment).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

from damagewatch.domain import (
    Alert,
    AlertSide,
    Detections,
    Match,
    Origin,
    PhotoRef,
    Refused,
    Sighting,
)
from damagewatch.index.interface import Candidate, Copy, DamageIndex, Entry
from damagewatch.pipeline.intake import Seen
from damagewatch.vision import looks
from damagewatch.vision.calibration import Calibration
from damagewatch.vision.closer import Closer
from damagewatch.vision.detect import MAX_DAMAGES
from damagewatch.vision.perceive import Perceived

_COPY = 2.0
"""Alike beyond any cosine: the photos' hashes agree."""

Hit = TypeVar("Hit", Candidate, Copy)

_LEFTOVERS = 1000
"""Damages to come that a search looks past: a crash leaves fewer. A stream read again from its beginning has the
whole index ahead of it; with 8,000 damages each search then took 3 s and 1 GB, and both grow with the index."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A damage of the photo in hand and one of another claim, and how alike they look."""

    query: Sighting
    candidate: Entry
    alike: float


@dataclass(frozen=True, slots=True)
class Options:
    """How widely is searched."""

    candidates: int = 30
    """Nearest damages that the index returns for each damage."""
    photos: int = 30
    """Photos among them that are verified."""
    pairs: int = 2
    """Pairs of damages that are verified for each of these photos; all, where a homography is found for one."""
    least_cosine: float = 0.47
    """Of two damages that are verified. Of 33 real pairs of photographs of one damage 32 had 0.477 or more (the
    other's 0.395 goes with too few common points for an alert), of rephotographs 99 in 100 more than 0.66."""
    similar_damage: bool = False
    """Whether SIMILAR_DAMAGE is alerted."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The verdict on a photo."""

    detections: Detections
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class Near:
    """A damage that looks alike, and the verdict on it (None: no alert)."""

    candidate: Sighting
    cosine: float
    match: Match | None


@dataclass(slots=True)
class Positions:
    """How far we are on each partition that we own: the offset of the next photo whose turn it is.

    Keys are (topic id, partition). One for each assignment; a partition not in it is another worker's.
    """

    next_offset: dict[tuple[str, int], int] = field(default_factory=dict)

    def advance(self, origin: Origin | None) -> None:
        """The photo at `origin` has its turn now."""
        if origin is not None:
            self.next_offset[origin.topic_id, origin.partition] = origin.offset + 1

    def is_ahead(self, origin: Origin | None) -> bool:
        """Whether the photo at `origin` is ours and its turn is still to come."""
        if origin is None:
            return False
        position = self.next_offset.get((origin.topic_id, origin.partition))
        return position is not None and origin.offset >= position


class Recognition:
    """Judges batches. Several threads may share it, each with `Positions` of its own."""

    def __init__(
        self,
        index: DamageIndex,
        calibration: Calibration,
        models: Mapping[str, str],
        options: Options | None = None,
        observe: Callable[[str, float], None] = lambda stage, seconds: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        also: DamageIndex | None = None,
        also_first: bool = False,
        closer: Callable[[Perceived], Closer | None] = lambda perceived: None,
    ) -> None:
        """Prepares.

        Args:
            index: where damages are remembered.
            calibration: turns the signals of a pair into a probability.
            models: version of each model, named in every output.
            options: how widely is searched.
            observe: told the seconds of each step.
            clock: the time that outputs carry.
            also: another embedder's collection, that every photo is remembered in too (`Seen.also`).
            also_first: whether there before in `index`. Of two collections the next one always comes first, so that
                who walks the other (`damagewatch.pipeline.backfill`) meets no damage that is on its way.
            closer: for a photo in hand, what sees parts of its windows and of remembered ones again; gives None where
                nothing is looked at twice, as by default.
        """
        self._index = index
        self._calibration = calibration
        self._models = models
        self._options = options or Options()
        self._observe = observe
        self._clock = clock
        self._also = also
        self._also_first = also_first
        self._closer = closer

    def __call__(
        self, batch: Sequence[Seen | Refused], positions: Positions | None = None
    ) -> list[Decided | Refused]:
        """Remembers the batch, then judges each of its photos; refused ones pass through in their place.

        Raises:
            DependencyDownError: the index does not answer; nothing of the batch counts as done.
        """
        seen = [item for item in batch if isinstance(item, Seen)]
        self.remember(seen)
        decided = iter(self.judge(seen, positions))
        outcomes = [item if isinstance(item, Refused) else next(decided) for item in batch]
        self._index.flush()
        if self._also is not None:
            self._also.flush()
        return outcomes

    def judge(self, seen: Sequence[Seen], positions: Positions | None = None) -> list[Decided]:
        """Where each photo was seen before, among all that is remembered.

        Raises:
            DependencyDownError: the index does not answer.
        """
        candidates = self._candidates([(item.perceived, item.origin) for item in seen], positions)
        chosen = [self._chosen(item.perceived, pairs) for item, pairs in zip(seen, candidates, strict=True)]
        # The bulk of what is stored of a damage, its local features, is read for these few alone.
        start = time.perf_counter()
        first = self._options.pairs
        known = self._index.complete(
            [pair.candidate for photos in chosen for pairs in photos for pair in pairs[:first]]
        )
        self._observe("read", time.perf_counter() - start)
        return [
            self._decided(item.perceived, photos, known) for item, photos in zip(seen, chosen, strict=True)
        ]

    def remember(self, seen: Sequence[Seen]) -> None:
        """Makes photos visible to every search that starts after the return.

        Raises:
            DependencyDownError: the index does not answer.
        """
        start = time.perf_counter()
        writes = [(self._index, [sighting for item in seen for sighting in item.perceived.sightings])]
        if self._also is not None:
            also = self._also, [sighting for item in seen for sighting in item.also]
            writes.insert(0 if self._also_first else 1, also)
        for index, sightings in writes:
            index.upsert(sightings)
        self._observe("upsert", time.perf_counter() - start)

    def nearest(self, perceived: Perceived) -> list[Near]:
        """The damages that look most like those of a photo, judged: for a person who searches."""
        best: dict[UUID, _Pair] = {}
        for pair in self._candidates([(perceived, None)])[0]:
            known = best.get(pair.candidate.damage_id)
            if known is None or pair.alike > known.alike:
                best[pair.candidate.damage_id] = pair
        whole = self._index.complete([pair.candidate for pair in best.values()])
        closer = self._closer(perceived)
        return [
            Near(
                candidate,
                float(pair.query.embedding @ candidate.embedding),
                looks.judge(pair.query, candidate, self._calibration, perceived.mirrored, closer=closer),
            )
            for pair in sorted(best.values(), key=lambda pair: -pair.alike)
            if (candidate := whole.get(pair.candidate.damage_id)) is not None
        ]

    def _candidates(
        self, photos: Sequence[tuple[Perceived, Origin | None]], positions: Positions | None = None
    ) -> list[list[_Pair]]:
        """For each photo, in its turn, the pairs of damages worth a closer look, without local features yet."""
        start = time.perf_counter()
        queries = [sighting for perceived, _ in photos for sighting in perceived.sightings]
        answers = iter(
            self._index.search(
                queries,
                self._options.candidates,
                but=_later_in(photos) if positions is not None else None,
            )
        )
        copies = self._index.copies(
            [perceived.sightings[0] for perceived, _ in photos],
            [perceived.mirrored_hash for perceived, _ in photos],
            self._options.photos,
        )
        found: list[list[_Pair]] = []
        for (perceived, origin), same in zip(photos, copies, strict=True):
            if positions is not None:
                positions.advance(origin)
            query, mirrored_hash = perceived.sightings[0], perceived.mirrored_hash
            due = self._due(
                same, self._options.photos, partial(self._copies, query, mirrored_hash), positions
            )
            pairs = [_Pair(query, copy.entry, _COPY) for copy in due]
            for sighting in perceived.sightings:
                nearest = self._due(
                    next(answers), self._options.candidates, partial(self._nearest, sighting), positions
                )
                pairs.extend(_Pair(sighting, near.entry, near.score) for near in nearest)
            found.append(pairs)
        self._observe("search", time.perf_counter() - start)
        return found

    def _due(
        self,
        answer: Sequence[Hit],
        wanted: int,
        ask: Callable[[int], Sequence[Hit]],
        positions: Positions | None,
    ) -> Sequence[Hit]:
        """The best whose turn is not still to come. Those ahead of us must not take the places of others:
        which ones there are depends on batches and crashes, and what is alerted must not.

        Asks for more as often as needed, but not without end: where a whole topic is read again, all that is
        remembered lies ahead, and finds us in its own turn.
        """
        if positions is None:
            return answer
        asked, most = wanted, wanted + _LEFTOVERS
        while True:
            due = [hit for hit in answer if not positions.is_ahead(hit.entry.origin)]
            if len(due) >= wanted or len(answer) < asked or asked == most:
                return due[:wanted]
            asked = min(4 * asked, most)
            answer = ask(asked)

    def _nearest(self, query: Sighting, limit: int) -> Sequence[Candidate]:
        return self._index.search([query], limit)[0]

    def _copies(self, photo: Sighting, mirrored_hash: int, limit: int) -> Sequence[Copy]:
        return self._index.copies([photo], [mirrored_hash], limit)[0]

    def _chosen(self, perceived: Perceived, pairs: Sequence[_Pair]) -> list[list[_Pair]]:
        """The pairs of the most alike photos, by photo, the most alike first and the whole photos second."""
        by_photo: dict[PhotoRef, list[_Pair]] = defaultdict(list)
        for pair in sorted(pairs, key=lambda pair: -pair.alike):
            if pair.alike >= self._options.least_cosine:
                by_photo[pair.candidate.photo].append(pair)
        whole = perceived.sightings[0]
        return [_whole_second(whole, found) for found in list(by_photo.values())[: self._options.photos]]

    def _decided(
        self, perceived: Perceived, photos: Sequence[Sequence[_Pair]], known: Mapping[UUID, Sighting]
    ) -> Decided:
        start = time.perf_counter()
        now = self._clock()
        closer = self._closer(perceived)
        matches = (self._best(perceived, pairs, known, closer) for pairs in photos)
        alerts = tuple(self._alert(match, now) for match in matches if match is not None)
        self._observe("verify", time.perf_counter() - start)
        detections = Detections(
            perceived.photo,
            perceived.width,
            perceived.height,
            perceived.damages,
            self._models,
            now,
            perceived.severity,
        )
        return Decided(detections, alerts)

    def _best(
        self,
        perceived: Perceived,
        pairs: Sequence[_Pair],
        known: Mapping[UUID, Sighting],
        closer: Closer | None,
    ) -> Match | None:
        """The most telling pair of damages of two photos."""
        other = pairs[0].candidate
        seen = looks.at_photos(
            [
                (pair.query, known[pair.candidate.damage_id])
                for pair in pairs[: self._options.pairs]
                if pair.candidate.damage_id in known  # not erased meanwhile
            ],
            perceived.sightings,
            lambda: self._index.complete(_damages_of(other)).values(),
            self._calibration,
            self._options.least_cosine,
            perceived.mirrored,
            closer,
        )
        return looks.most_telling(look.found for look in seen if look.alerts or self._options.similar_damage)

    def _alert(self, match: Match, now: datetime) -> Alert:
        return Alert(
            alert_id=Alert.id_of(match.query.photo, match.match.photo),
            kind=match.kind,
            probability=match.probability,
            mirrored=match.mirrored,
            query=side_of(match.query),
            match=side_of(match.match),
            signals=match.signals,
            models=self._models,
            decided_at=now,
            homography=match.homography,
            points=match.points,
        )


def _damages_of(entry: Entry) -> list[Entry]:
    """All that a photo may have had remembered of it."""
    ids = (entry.photo.damage_id(number) for number in range(MAX_DAMAGES + 1))
    return [Entry(damage_id, entry.photo, entry.origin) for damage_id in ids]


def _whole_second(whole: Sighting, pairs: Sequence[_Pair]) -> list[_Pair]:
    """The pairs of two photos, that of the whole photos in second place at the latest, whether found or not.

    Of a photo and its crop the damages that look most alike are often two others.
    """
    first = pairs[0].candidate
    entry = Entry(first.photo.damage_id(0), first.photo, first.origin)

    def is_whole(pair: _Pair) -> bool:
        return pair.query is whole and pair.candidate.damage_id == entry.damage_id

    wholes = [pair for pair in pairs if is_whole(pair)] or [_Pair(whole, entry, 0.0)]
    others = [pair for pair in pairs if not is_whole(pair)]
    return [*wholes, *others] if is_whole(pairs[0]) else [others[0], *wholes, *others[1:]]


def side_of(sighting: Sighting) -> AlertSide:
    """What an alert says of one of its damages."""
    return AlertSide(
        tenant=sighting.photo.tenant,
        claim_id=sighting.photo.claim_id,
        photo_id=sighting.photo.photo_id,
        damage_id=sighting.damage.damage_id,
        sha256=sighting.photo.sha256,
        box=sighting.damage.box,
        type=sighting.damage.type,
        severity=sighting.damage.severity,
        crop_uri=sighting.crop_uri,
        crop_box=sighting.window,
        width=sighting.width,
        height=sighting.height,
        received_at=sighting.received_at,
    )


def _later_in(batch: Sequence[tuple[Perceived, Origin | None]]) -> list[frozenset[UUID]]:
    """For each damage of a batch those of the photos behind its own, whose turn is still to come."""
    behind: frozenset[UUID] = frozenset()
    left_out: list[frozenset[UUID]] = []
    for perceived, _ in reversed(batch):
        left_out += [behind] * len(perceived.sightings)
        behind |= {sighting.damage.damage_id for sighting in perceived.sightings}
    return left_out[::-1]
