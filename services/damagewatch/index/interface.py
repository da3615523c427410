"""What the rest of damagewatch sees of the index: one interface and the values that it returns."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from damagewatch.domain import Origin, PhotoRef, Sighting

LAYOUT = 2
"""Version of the stored payload, in the collection's name: no reader meets a layout that it cannot read."""

COLLECTION_PREFIX = f"damages-v{LAYOUT}-"
ANY_LAYOUT_PREFIX = "damages-v"
"""Every collection that damagewatch ever made begins so: what an erasure has to visit."""

NEAR_COPY_BITS = 3
"""Perceptual hashes at most this many bits apart: the same picture, says `DamageIndex.copies`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """As much of a remembered damage as a search tells: where it is from. `DamageIndex.complete` reads the rest."""

    damage_id: UUID
    photo: PhotoRef
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A damage of another claim that looks alike. `score` is the cosine of both embeddings, -1 to 1."""

    entry: Entry
    score: float


@dataclass(frozen=True, slots=True)
class Copy:
    """Another claim's photo that is the same picture.

    `exact`: the same bytes. Otherwise `distance` bits (0 to 3) differ between the perceptual hashes, that of
    the mirrored query where `mirrored`. `entry` is the stored photo's WHOLE region.
    """

    entry: Entry
    exact: bool
    distance: int
    mirrored: bool


class DamageIndex(Protocol):
    """Where damages are remembered. Thread safe; nothing ever crosses tenants.

    Every method raises `domain.DependencyDownError("index", ...)` where the store does not answer.
    """

    def upsert(self, sightings: Sequence[Sighting]) -> None:
        """Remember `sightings`: every search that starts after the return sees them. Harmless to repeat."""
        ...

    def search(
        self,
        queries: Sequence[Sighting],
        limit: int,
        *,
        but: Sequence[Collection[UUID]] | None = None,
    ) -> list[list[Candidate]]:
        """For each query its at most `limit` nearest damages of other claims of its tenant, nearest first.

        `but` names for each query damages that must not be among them.
        """
        ...

    def complete(self, entries: Iterable[Entry]) -> dict[UUID, Sighting]:
        """All that is remembered of damages, by id; without those erased meanwhile."""
        ...

    def copies(
        self,
        photos: Sequence[Sighting],
        mirrored_hashes: Sequence[int],
        limit: int,
    ) -> list[list[Copy]]:
        """For each photo the copies of it in other claims of its tenant: exact ones first, then by distance.

        `photos` are any regions of the photos in question; `mirrored_hashes` the perceptual hashes (64 bits)
        of the same photos mirrored left to right.
        """
        ...

    def erase(self, tenant: str, claim_id: str) -> int:
        """Forget a claim in every collection, those of earlier embedders too. Returns the points removed."""
        ...

    def count(self) -> int:
        """Damages remembered in this collection, all tenants."""
        ...

    def flush(self) -> None:
        """Return once all that was upserted would survive a loss of power."""
        ...

    def optimize(self) -> None:
        """Tidy up: gives back the room of erased points. Takes seconds to minutes; off the hot path only."""
        ...

    def close(self) -> None:
        """Flush and let go of the store."""
        ...


class RebuildableIndex(DamageIndex, Protocol):
    """An index whose damages can be carried over to another embedder's (`damagewatch.pipeline.backfill`)."""

    def ids(self, start: UUID | None, limit: int) -> tuple[list[tuple[str, UUID]], UUID | None]:
        """At most `limit` damages with their tenants, in the order of their ids, and where to go on.

        `start` is None, or what an earlier call returned last; None is returned at the end. It names damages
        of all tenants, and nothing else of them: for the operator, never for an answer to a tenant.
        """
        ...

    def whole(self, tenant: str, ids: Collection[UUID]) -> list[Sighting]:
        """These damages with all that is stored of them; without those that are not there."""
        ...

    def present(self, tenant: str, ids: Collection[UUID]) -> set[UUID]:
        """Which of these damages this collection holds."""
        ...

    def discard(self, tenant: str, ids: Collection[UUID]) -> None:
        """Remove damages from this collection alone."""
        ...

    def drop(self) -> None:
        """Close, and remove the collection with all that it holds."""
        ...


class ActiveCollection(Protocol):
    """The name of the collection that is searched, as all matchers of one index see it.

    It moves with `damagewatch reindex switch`; an alias on a Qdrant server, a file in the folder of Edge.
    """

    def get(self) -> str | None:
        """The collection's name; None where none was ever named."""
        ...

    def set(self, collection: str) -> None:
        """Name another, at once and for all."""
        ...


def collection_name(embedder: str, sha256: str) -> str:
    """The collection of one embedder: its vectors mean nothing to another one.

    Args:
        embedder: The embedder's name in the manifest.
        sha256: Of its model file, lower-case hexadecimal.
    """
    return f"{COLLECTION_PREFIX}{re.sub(r'[^a-z0-9]+', '_', embedder.lower())[:40]}-{sha256[:12]}"
