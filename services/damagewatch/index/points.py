"""What both engines share: sightings as points, and every look-up in terms of one scoped query."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np

from damagewatch.domain import PhotoRef, Sighting
from damagewatch.index import payload as codec
from damagewatch.index.interface import NEAR_COPY_BITS, Candidate, Copy, Entry

WRITE_CHUNK: Final = 32
"""Points a write: 32 of 57 kB stay below 4 MB, the usual limit of a gRPC message."""
READ_CHUNK: Final = 64
"""Points a read of whole payloads."""
BAND_LIMIT: Final = 512
"""Most photos looked at for one near copy: blank photos share their hash with all other blank ones."""

RESCORE_POOL: Final = 60
"""Quantised vectors whose exact cosine is taken, at least, for one query."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which points a query may see: the source of every filter, and it cannot be made without a tenant."""

    tenant: str
    claim: str | None = None
    """Only this claim."""
    except_claim: str | None = None
    """All claims but this one."""
    copy_keys: tuple[str, ...] | None = None
    """Only points with one of these keys."""
    ids: frozenset[uuid.UUID] | None = None
    """Only these points."""
    except_ids: frozenset[uuid.UUID] = frozenset()
    """All points but these."""

    def __post_init__(self) -> None:
        if not isinstance(self.tenant, str) or not self.tenant:
            raise ValueError("a query of the index needs a tenant")


@dataclass(frozen=True, slots=True)
class Query:
    """One look-up: the nearest to `vector` where given, any order otherwise.

    `fields` are the payload's fields to return, None for all of them.
    """

    scope: Scope
    limit: int
    vector: list[float] | None = None
    fields: tuple[str, ...] | None = ()
    with_vector: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """A point as the engines hold it, in and out. `score` is the cosine to the query's vector."""

    id: uuid.UUID
    score: float = 0.0
    vector: list[float] = field(default_factory=list)
    payload: Mapping[str, Any] = field(default_factory=dict)


def point_id(value: object) -> uuid.UUID:
    """The id of a point as an engine returned it, which is a UUID or the text of one."""
    return value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))


def oversampling(limit: int) -> float:
    """How many times `limit` quantised vectors are rescored exactly (see `edge` for the measured recall)."""
    return max(3.0, RESCORE_POOL / limit)


class PointIndex(ABC):
    """A `DamageIndex` over an engine that stores points, answers scoped queries and deletes by scope."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    @abstractmethod
    def _write(self, points: list[Point]) -> None:
        """Store the points, visible on return."""

    @abstractmethod
    def _read(self, queries: list[Query]) -> list[list[Point]]:
        """Answer all queries in one go."""

    @abstractmethod
    def _delete(self, scope: Scope) -> int:
        """Delete from every collection; how many points went."""

    @abstractmethod
    def _discard(self, scope: Scope) -> None:
        """Delete from this collection."""

    def upsert(self, sightings: Sequence[Sighting]) -> None:
        """See `DamageIndex.upsert`.

        Raises:
            ValueError: An embedding of another dimension, or with values that are not finite.
        """
        for sighting in sightings:
            self._check(sighting)
        for chunk in _chunks(sightings, WRITE_CHUNK):
            self._write(
                [
                    Point(s.damage.damage_id, vector=s.embedding.tolist(), payload=codec.encode(s))
                    for s in chunk
                ]
            )

    def search(
        self,
        queries: Sequence[Sighting],
        limit: int,
        *,
        but: Sequence[Collection[uuid.UUID]] | None = None,
    ) -> list[list[Candidate]]:
        """See `DamageIndex.search`."""
        if not queries:
            return []
        for query in queries:
            self._check(query)
        found = self._read(
            [
                Query(
                    _others(query.photo, but=frozenset(left_out)),
                    limit,
                    query.embedding.tolist(),
                    fields=codec.ENTRY,
                )
                for query, left_out in zip(queries, but or [()] * len(queries), strict=True)
            ]
        )
        return [
            [Candidate(codec.decode_entry(hit.id, hit.payload), hit.score) for hit in hits] for hits in found
        ]

    def complete(self, entries: Iterable[Entry]) -> dict[uuid.UUID, Sighting]:
        """See `DamageIndex.complete`."""
        return self._sightings((entry.photo.tenant, entry.damage_id) for entry in entries)

    def copies(
        self, photos: Sequence[Sighting], mirrored_hashes: Sequence[int], limit: int
    ) -> list[list[Copy]]:
        """See `DamageIndex.copies`."""
        if not photos:
            return []
        look_ups: list[Query] = []
        for sighting, mirrored_hash in zip(photos, mirrored_hashes, strict=True):
            bands = (*codec.hash_bands(sighting.photo_hash), *codec.hash_bands(mirrored_hash))
            fields = (codec.PHOTO_HASH, *codec.ENTRY)
            exact = _others(sighting.photo, copy_keys=(sighting.photo.sha256,))
            near = _others(sighting.photo, copy_keys=tuple(dict.fromkeys(bands)))
            look_ups += [Query(exact, limit, fields=fields), Query(near, BAND_LIMIT, fields=fields)]
        answers = iter(self._read(look_ups))
        found: list[list[Copy]] = []
        for sighting, mirrored_hash in zip(photos, mirrored_hashes, strict=True):
            copies: dict[uuid.UUID, Copy] = {}
            for point in (*next(answers), *next(answers)):
                stored = int(point.payload[codec.PHOTO_HASH], 16)
                distance, mirrored = min(
                    ((sighting.photo_hash ^ stored).bit_count(), False),
                    ((mirrored_hash ^ stored).bit_count(), True),
                )
                if point.payload[codec.SHA256] == sighting.photo.sha256:
                    copies[point.id] = Copy(codec.decode_entry(point.id, point.payload), True, 0, False)
                elif distance <= NEAR_COPY_BITS:
                    entry = codec.decode_entry(point.id, point.payload)
                    copies[point.id] = Copy(entry, False, distance, mirrored)
            best = sorted(copies.values(), key=lambda c: (not c.exact, c.distance, c.entry.damage_id.int))
            found.append(best[:limit])
        return found

    def erase(self, tenant: str, claim_id: str) -> int:
        """See `DamageIndex.erase`.

        Twice over all collections: a damage that is being carried over from one that was not visited yet to one
        that was is caught by the second visit, or by who carries it over (`damagewatch.pipeline.backfill`).
        """
        scope = Scope(tenant=tenant, claim=claim_id)
        return self._delete(scope) + self._delete(scope)

    def whole(self, tenant: str, ids: Collection[uuid.UUID]) -> list[Sighting]:
        """See `RebuildableIndex.whole`."""
        return list(self._sightings((tenant, point_id) for point_id in ids).values())

    def present(self, tenant: str, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """See `RebuildableIndex.present`."""
        (found,) = self._read([Query(Scope(tenant=tenant, ids=frozenset(ids)), len(ids))]) if ids else ([],)
        return {point.id for point in found}

    def discard(self, tenant: str, ids: Collection[uuid.UUID]) -> None:
        """See `RebuildableIndex.discard`."""
        if ids:
            self._discard(Scope(tenant=tenant, ids=frozenset(ids)))

    def _check(self, sighting: Sighting) -> None:
        if sighting.embedding.shape != (self._dimension,) or not np.isfinite(sighting.embedding).all():
            raise ValueError(
                f"an embedding of shape {sighting.embedding.shape}, or not finite; "
                f"this index holds {self._dimension} finite values"
            )

    def _sightings(self, wanted: Iterable[tuple[str, uuid.UUID]]) -> dict[uuid.UUID, Sighting]:
        by_tenant: dict[str, dict[uuid.UUID, None]] = {}
        for tenant, point_id in wanted:
            by_tenant.setdefault(tenant, {})[point_id] = None
        known: dict[uuid.UUID, Sighting] = {}
        for tenant, ids in by_tenant.items():
            for chunk in _chunks(ids, READ_CHUNK):
                scope = Scope(tenant=tenant, ids=frozenset(chunk))
                (points,) = self._read([Query(scope, len(chunk), fields=None, with_vector=True)])
                known.update(
                    (point.id, codec.decode(point.id, point.vector, point.payload)) for point in points
                )
        return known


def _others(
    photo: PhotoRef, copy_keys: tuple[str, ...] | None = None, but: frozenset[uuid.UUID] = frozenset()
) -> Scope:
    return Scope(tenant=photo.tenant, except_claim=photo.claim_id, copy_keys=copy_keys, except_ids=but)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
