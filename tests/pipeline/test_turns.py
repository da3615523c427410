"""Guarantees 2 and 3 of the design, as properties: no pair is missed and, with one worker, none alerted twice.

The real `Recognition` over an index in memory; photos of one *motif* are copies of each other. A schedule of
batches, crashes (what was remembered stays, what was not committed comes again) and rebalances is drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from typing import cast
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.domain import (
    Alert,
    Box,
    Damage,
    DamageType,
    LocalFeatures,
    Origin,
    PhotoRef,
    Severity,
    Sighting,
)
from damagewatch.index.interface import Candidate, Copy, Entry
from damagewatch.pipeline.intake import Seen
from damagewatch.pipeline.recognition import Decided, Options, Positions, Recognition
from damagewatch.vision.calibration import Calibration
from damagewatch.vision.perceive import Perceived

NO_FEATURES = LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 64), np.int8))


def entry_of(sighting: Sighting) -> Entry:
    return Entry(sighting.damage.damage_id, sighting.photo, sighting.origin)


@dataclass
class MemoryIndex:
    """A `DamageIndex` that finds photos of the same motif (the same SHA-256) in other claims."""

    points: dict[UUID, Sighting] = field(default_factory=dict)
    with_copies: bool = False
    widest: int = 0
    """The most that a search has asked for."""

    def upsert(self, sightings: Sequence[Sighting]) -> None:
        self.points.update({sighting.damage.damage_id: sighting for sighting in sightings})

    def search(
        self,
        queries: Sequence[Sighting],
        limit: int,
        *,
        but: Sequence[Collection[UUID]] | None = None,
    ) -> list[list[Candidate]]:
        self.widest = max(self.widest, limit)
        return [
            [
                Candidate(entry_of(point), 1.0)
                for point in self.points.values()
                if point.photo.sha256 == query.photo.sha256
                and point.photo.claim_id != query.photo.claim_id
                and point.damage.damage_id not in left_out
            ][:limit]
            for query, left_out in zip(queries, but or [()] * len(queries), strict=True)
        ]

    def complete(self, entries: Iterable[Entry]) -> dict[UUID, Sighting]:
        return {entry.damage_id: self.points[entry.damage_id] for entry in entries}

    def copies(
        self,
        photos: Sequence[Sighting],
        mirrored_hashes: Sequence[int],
        limit: int,
    ) -> list[list[Copy]]:
        return [
            [Copy(hit.entry, True, 0, False) for hit in hits]
            for hits in (self.search(photos, limit) if self.with_copies else [[] for _ in photos])
        ]

    def erase(self, tenant: str, claim_id: str) -> int:
        raise NotImplementedError

    def count(self) -> int:
        return len(self.points)

    def flush(self) -> None:
        pass

    def optimize(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class FakePerceived:
    """As much of a `Perceived` as a recognition looks at."""

    photo: PhotoRef
    sightings: tuple[Sighting, ...]
    width: int = 10
    height: int = 10
    damages: tuple[Damage, ...] = ()
    mirrored_hash: int = 0
    severity: None = None

    def mirrored(self, sighting: Sighting) -> Sighting:
        return sighting


def photo(partition: int, offset: int, motif: int) -> Seen:
    """A photo of `motif` in a claim of its own."""
    ref = PhotoRef("t", f"claim-{partition}-{offset}", "p", f"{motif:064x}")
    whole = Box(0, 0, 10, 10)
    origin = Origin("topic", partition, offset)
    sighting = Sighting(
        photo=ref,
        damage=Damage(ref.damage_id(0), whole, (), DamageType.WHOLE, Severity.UNKNOWN, 1.0),
        width=10,
        height=10,
        window=whole,
        embedding=np.ones(1, np.float32),
        features=NO_FEATURES,
        thumbnail=np.zeros((64, 64), np.uint8),
        photo_hash=0,
        origin=origin,
    )
    return Seen(cast(Perceived, FakePerceived(ref, (sighting,))), origin)


def recognition(index: MemoryIndex) -> Recognition:
    return Recognition(
        index,
        Calibration(),
        {},
        Options(photos=100),
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )


def alerts_of(outcomes: Sequence[object]) -> list[Alert]:
    return [alert for outcome in outcomes if isinstance(outcome, Decided) for alert in outcome.alerts]


Stream = list[list[int]]
"""Motifs by partition and offset."""

streams = st.lists(st.lists(st.integers(0, 3), max_size=7), min_size=1, max_size=3)


def expected_ids(stream: Stream) -> set[UUID]:
    photos = [
        (photo(partition, offset, motif), motif)
        for partition, motifs in enumerate(stream)
        for offset, motif in enumerate(motifs)
    ]
    return {
        Alert.id_of(one.perceived.photo, other.perceived.photo)
        for (one, motif), (other, same) in combinations(photos, 2)
        if motif == same
    }


class Worker:
    """A matcher between two commits: takes photos of its partitions, and commits or crashes."""

    def __init__(self, stream: Stream, index: MemoryIndex, committed: dict[int, int]) -> None:
        self.stream = stream
        self.recognition = recognition(index)
        self.committed = committed
        self.assign([])

    def assign(self, partitions: Sequence[int]) -> None:
        """A new assignment: what was in hand is dropped, reading goes on from the committed offsets."""
        self.next = {partition: self.committed[partition] for partition in partitions}
        self.positions = Positions({("topic", p): offset for p, offset in self.next.items()})
        self.uncommitted: list[tuple[int, int, list[Alert]]] = []  # partition, offset, alerts

    def step(self, draw: st.DataObject) -> bool:
        """One batch of what comes next, in an order that is drawn. False where nothing is left."""
        batch: list[Seen] = []
        for _ in range(draw.draw(st.integers(1, 4), label="batch")):
            left = [p for p, offset in self.next.items() if offset < len(self.stream[p])]
            if not left:
                break
            partition = draw.draw(st.sampled_from(left), label="partition")
            offset = self.next[partition]
            batch.append(photo(partition, offset, self.stream[partition][offset]))
            self.next[partition] += 1
        if batch:
            for seen, outcome in zip(batch, self.recognition(batch, self.positions), strict=True):
                assert seen.origin is not None
                self.uncommitted.append((seen.origin.partition, seen.origin.offset, alerts_of([outcome])))
        return bool(batch)

    def commit(self, most: int = 1000) -> list[Alert]:
        """Outputs and offsets, together, of what was judged first."""
        batch, self.uncommitted = self.uncommitted[:most], self.uncommitted[most:]
        self.committed.update({partition: offset + 1 for partition, offset, _ in batch})
        return [alert for _, _, alerts in batch for alert in alerts]


@given(stream=streams, data=st.data())
@settings(max_examples=150)
def test_one_worker_that_crashes_alerts_every_pair_exactly_once(stream: Stream, data: st.DataObject) -> None:
    index, committed = MemoryIndex(), dict.fromkeys(range(len(stream)), 0)
    published: list[Alert] = []
    worker = Worker(stream, index, committed)
    worker.assign(range(len(stream)))
    crashes = data.draw(st.integers(0, 4), label="crashes")
    while worker.step(data):
        match data.draw(st.sampled_from(["go on", "commit", "crash"]), label="then"):
            case "commit":
                published += worker.commit(data.draw(st.integers(1, 20), label="at most"))
            case "crash" if crashes:
                crashes -= 1
                worker = Worker(stream, index, committed)
                worker.assign(range(len(stream)))
            case _:
                pass
    published += worker.commit()
    ids = [alert.alert_id for alert in published]
    assert len(ids) == len(set(ids))
    assert set(ids) == expected_ids(stream)


@given(stream=streams, data=st.data())
@settings(max_examples=150)
def test_workers_that_come_and_go_miss_no_pair(stream: Stream, data: st.DataObject) -> None:
    index, committed = MemoryIndex(), dict.fromkeys(range(len(stream)), 0)
    published: list[Alert] = []
    workers = [Worker(stream, index, committed) for _ in range(2)]

    def rebalance() -> None:
        owner = [data.draw(st.integers(0, 1), label="owner") for _ in stream]
        for number, worker in enumerate(workers):
            worker.assign([p for p, owned_by in enumerate(owner) if owned_by == number])

    rebalance()
    changes = data.draw(st.integers(0, 4), label="rebalances")
    busy = True
    while busy:
        first = data.draw(st.integers(0, 1), label="who")
        busy = workers[first].step(data) or workers[1 - first].step(data)
        for worker in workers:
            if data.draw(st.booleans(), label="commit"):
                published += worker.commit()
        if changes and data.draw(st.booleans(), label="rebalance"):
            changes -= 1
            rebalance()
            busy = True
    for worker in workers:
        published += worker.commit()
    assert {alert.alert_id for alert in published} == expected_ids(stream)


def test_a_leftover_of_another_workers_partition_is_alerted_at_once() -> None:
    index = MemoryIndex()
    recognition(index).remember([photo(1, 5, 0)])
    ours = Positions({("topic", 0): 0})
    (outcome,) = recognition(index)([photo(0, 0, 0)], ours)
    assert len(alerts_of([outcome])) == 1


def test_a_photo_of_an_older_topic_of_the_same_name_is_not_taken_for_one_to_come() -> None:
    index = MemoryIndex()
    old = photo(0, 99, 0)
    sighting = old.perceived.sightings[0]
    object.__setattr__(sighting, "origin", Origin("an older topic", 0, 99))
    recognition(index).remember([old])
    (outcome,) = recognition(index)([photo(0, 0, 0)], Positions({("topic", 0): 0}))
    assert len(alerts_of([outcome])) == 1


@pytest.mark.parametrize("with_copies", [False, True])
def test_leftovers_to_come_take_no_candidates_place(with_copies: bool) -> None:
    index = MemoryIndex(with_copies=with_copies)
    options = Options(candidates=1, photos=2) if with_copies else Options(candidates=2)
    judging = Recognition(index, Calibration(), {}, options)
    judging.remember([photo(0, offset, 0) for offset in range(9, 4, -1)])
    judging.remember([photo(0, 0, 0), photo(0, 1, 0), photo(0, 2, 0)])
    (outcome,) = judging([photo(0, 3, 0)], Positions({("topic", 0): 3}))
    assert {alert.match.claim_id for alert in alerts_of([outcome])} == {"claim-0-0", "claim-0-1"}


def test_a_stream_read_again_from_its_beginning_does_not_search_through_the_whole_index() -> None:
    index = MemoryIndex()
    recognition(index).remember([photo(0, offset, 0) for offset in range(1, 3000)])
    recognition(index)([photo(0, 0, 0)], Positions({("topic", 0): 0}))
    assert index.widest < 2000
