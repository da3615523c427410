"""Carries what is remembered over to another embedder: one collection's damages into another.

The matchers write to both collections from before this begins (`damagewatch.pipeline.changeover`), so what it has to
do never grows. It reads each damage's crop from the evidence store, embeds it anew, and writes it beside everything
else that is stored of it. It may be stopped at any moment and begun again: what is in the new collection is passed
over.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, PhotoRef, Refused, Sighting
from damagewatch.index import Candidate, RebuildableIndex
from damagewatch.vision.decode import Photo, decode

log = logging.getLogger(__name__)

PAGE = 64
"""Damages that are looked up, embedded and written at once."""


class Embeds(Protocol):
    """`damagewatch.vision.embed.Embedder`."""

    def embed(self, photo: Photo, window: Box) -> NDArray[np.float32]:
        """The vector of a window."""
        ...


class Crops(Protocol):
    """`damagewatch.evidence.EvidenceStore`."""

    def read(self, uri: str) -> bytes:
        """The crop at an address."""
        ...


@dataclass(frozen=True, slots=True)
class Pass:
    """What one walk over the old collection came to, in damages."""

    seen: int
    """In the old collection."""
    written: int
    """To the new one."""
    lost: int
    """Could not be carried over: their crop is gone or cannot be read. Their photos have to be sent again."""

    @property
    def missing(self) -> int:
        """Not in the new collection when they were looked at."""
        return self.written + self.lost


class Backfill:
    """Copies damages from one collection to another, with new embeddings."""

    def __init__(
        self, old: RebuildableIndex, new: RebuildableIndex, crops: Crops, embedder: Embeds, rate: float = 0
    ) -> None:
        """Prepares.

        Args:
            old: the collection that is complete.
            new: the one that is to be.
            crops: pictures of the damages.
            embedder: of the new collection.
            rate: most damages a second, so that the stream keeps its share of the machine; 0: as fast as it goes.
        """
        self._old = old
        self._new = new
        self._crops = crops
        self._embedder = embedder
        self._rate = rate

    def walk(
        self,
        progress: Callable[[int], None] = lambda seen: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Pass:
        """Goes once over the old collection and carries over what the new one lacks.

        Complete is the new collection once a walk finds nothing missing: damages that a matcher wrote to the old
        one alone, behind the walk's back, show in the next.

        Args:
            progress: told the damages looked at so far.
            stopped: asked now and then; True ends the walk.

        Raises:
            DependencyDownError: the index or the evidence store does not answer. Walk again.
        """
        seen = written = lost = 0
        start: UUID | None = None
        while not stopped():
            begun, before = time.monotonic(), written
            page, start = self._old.ids(start, PAGE)
            for tenant, ids in _by_tenant(page).items():
                missing = ids - self._new.present(tenant, ids)
                if missing:
                    carried = self._carry_over(tenant, missing)
                    written += carried
                    lost += len(missing) - carried
            seen += len(page)
            progress(seen)
            if start is None:
                break
            if self._rate:
                time.sleep(max(0.0, (written - before) / self._rate - (time.monotonic() - begun)))
        return Pass(seen, written, lost)

    def withdraw(self) -> int:
        """Removes damages of erased claims that the new collection alone holds; returns how many.

        A walk that is killed between writing a damage and asking whether it was erased meanwhile leaves it behind,
        and no later walk meets it. What a matcher is just writing is told from it by its crop, which is kept before
        the damage is remembered. Only while the old collection is the active one.

        Raises:
            DependencyDownError: the index or the evidence store does not answer.
        """
        removed = 0
        for tenant, alone in _lacking(self._new, self._old):
            erased = {s.damage.damage_id for s in self._new.whole(tenant, alone) if self._is_gone(s)}
            self._new.discard(tenant, erased)
            removed += len(erased)
        return removed

    def _is_gone(self, sighting: Sighting) -> bool:
        try:
            self._crops.read(sighting.crop_uri)
        except FileNotFoundError:
            return True
        except ValueError:  # somewhere else, or too large: not ours to say
            pass
        return False

    def _carry_over(self, tenant: str, ids: set[UUID]) -> int:
        """Of these damages as many as could be; those erased meanwhile count as carried over."""
        sightings = self._old.whole(tenant, ids)
        carried = [again for sighting in sightings if (again := self._embedded(sighting)) is not None]
        self._new.upsert(carried)
        # A claim erased since we read it must not come back. Whoever erases visits all collections twice, so that
        # either the second visit finds what we wrote, or we find here that the old collection lacks it.
        written = {sighting.damage.damage_id for sighting in carried}
        self._new.discard(tenant, written - self._old.present(tenant, written))
        return len(ids) - (len(sightings) - len(carried))

    def _embedded(self, sighting: Sighting) -> Sighting | None:
        try:
            crop = decode(self._crops.read(sighting.crop_uri))
        except (FileNotFoundError, ValueError, Refused) as error:
            log.warning("the crop %s cannot be embedded anew: %s", sighting.crop_uri, error)
            return None
        vector = self._embedder.embed(crop, Box(0, 0, crop.width, crop.height))
        return replace(sighting, embedding=vector)


def count_missing(whole: RebuildableIndex, other: RebuildableIndex) -> int:
    """How many damages of one collection another one lacks.

    Raises:
        DependencyDownError: the index does not answer.
    """
    return sum(len(ids) for _, ids in _lacking(whole, other))


@dataclass(frozen=True, slots=True)
class Compared:
    """How two embedders answer the same questions."""

    queries: int
    shared: float
    """Of the damages nearest to a query by the old embedder, the share that the new one finds too, 0 to 1."""
    first: float
    """Share of the queries whose nearest photo is the same."""


def compare(
    old: RebuildableIndex, new: RebuildableIndex, queries: int, depth: int = 10, seed: int = 0
) -> Compared:
    """Asks both collections for what lies nearest to damages that both hold.

    Args:
        old: the collection that is searched now.
        new: the one to come.
        queries: how many damages to ask with, chosen by chance.
        depth: how many nearest damages of other claims to look at.
        seed: of the choice.

    Raises:
        DependencyDownError: the index does not answer.
        ValueError: the collections have no damage in common.
    """
    known: list[tuple[str, UUID]] = []
    start: UUID | None = None
    while True:
        page, start = old.ids(start, 1000)
        known += page
        if start is None:
            break
    order = np.random.default_rng(seed).permutation(len(known))[:queries]
    shared, first = [], []
    for tenant, ids in _by_tenant([known[i] for i in order]).items():
        one = {s.damage.damage_id: s for s in old.whole(tenant, ids)}
        other = {s.damage.damage_id: s for s in new.whole(tenant, ids)}
        both = sorted(one.keys() & other.keys())
        before = old.search([one[i] for i in both], depth)
        after = new.search([other[i] for i in both], depth)
        for left, right in zip(before, after, strict=True):
            if not left:
                continue
            found = {near.entry.damage_id for near in right}
            shared.append(np.mean([near.entry.damage_id in found for near in left]))
            first.append(bool(right) and _nearest(left) == _nearest(right))
    if not shared:
        raise ValueError("no damage of another claim to compare answers by, or none in both collections")
    return Compared(len(shared), float(np.mean(shared)), float(np.mean(first)))


def _lacking(whole: RebuildableIndex, other: RebuildableIndex) -> Iterator[tuple[str, set[UUID]]]:
    """By tenant and page, the damages of one collection that another one lacks."""
    start: UUID | None = None
    while True:
        page, start = whole.ids(start, PAGE)
        for tenant, ids in _by_tenant(page).items():
            if missing := ids - other.present(tenant, ids):
                yield tenant, missing
        if start is None:
            return


def _nearest(found: Sequence[Candidate]) -> PhotoRef:
    return found[0].entry.photo


def _by_tenant(page: Sequence[tuple[str, UUID]]) -> dict[str, set[UUID]]:
    grouped: dict[str, set[UUID]] = defaultdict(set)
    for tenant, damage in page:
        grouped[tenant].add(damage)
    return dict(grouped)
