"""The index in this process: one Qdrant Edge shard a collection, in folders under one path.

No HNSW graph: a missed neighbour is a missed pair. Vectors are scanned as 4-bit TurboQuant codes and the best
are rescored exactly; measured with 50,000 x 512 on 2 cores: recall@20 1.000, as the float scan's, at 1.0 ms a
query instead of 4.2. Payloads lie in the page cache: `Memory.Cold` took 17 ms for 20 of them instead of 0.3.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import qdrant_edge as edge

from damagewatch.domain import DependencyDownError
from damagewatch.index import payload as codec
from damagewatch.index.interface import ANY_LAYOUT_PREFIX
from damagewatch.index.points import Point, PointIndex, Query, Scope, oversampling

COLLECTION: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
UNFINISHED: Final = ".new"


class EdgeIndex(PointIndex):
    """A `DamageIndex` in a folder. One process may have it open; within it, all threads share one object.

    Args:
        path: The folder; made if missing.
        collection: See `collection_name`.
        dimension: Of the embeddings.

    Raises:
        DependencyDownError: Another process, or another object of this one, has the folder open; or it
            cannot be read or written.
    """

    def __init__(self, path: Path, collection: str, dimension: int) -> None:
        super().__init__(dimension)
        if not COLLECTION.fullmatch(collection):
            raise ValueError(f"not a name for a collection: {collection!r}")
        self._root = path
        self._folder = path / collection
        self._exclusive = threading.Lock()
        self._lock = _lock_folder(path)
        try:
            self._shard = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def count(self) -> int:
        """See `DamageIndex.count`."""
        with _engine():
            return self._shard.count(edge.CountRequest(exact=True))

    def flush(self) -> None:
        """See `DamageIndex.flush`. Before it, the log on disk survives a killed process, not a power cut."""
        with _engine():
            self._shard.flush()

    def optimize(self) -> None:
        """See `DamageIndex.optimize`. Searches and upserts go on meanwhile."""
        with _engine():
            self._shard.optimize()

    def close(self) -> None:
        """See `DamageIndex.close`. A second call does nothing."""
        with self._exclusive:
            if self._lock < 0:
                return
            try:
                with _engine():
                    self._shard.flush()
                    self._shard.close()
            finally:
                os.close(self._lock)
                self._lock = -1

    def _open(self) -> edge.EdgeShard:
        with _engine():
            if not self._folder.exists():
                # Made aside and renamed: a process killed here leaves no half-made collection, nor one
                # without its keyword indexes.
                fresh = self._folder.with_suffix(UNFINISHED)
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir()
                shard = edge.EdgeShard.create(str(fresh), _config(self._dimension))
                for name in codec.KEYWORDS:
                    keyword = edge.KeywordIndexParams(is_tenant=name == codec.TENANT)
                    shard.update(edge.UpdateOperation.create_field_index(name, keyword))
                shard.flush()
                shard.close()
                fresh.rename(self._folder)
            return edge.EdgeShard.load(str(self._folder))

    def _write(self, points: list[Point]) -> None:
        with _engine():
            self._shard.update(
                edge.UpdateOperation.upsert_points(
                    [edge.Point(point.id, point.vector, dict(point.payload)) for point in points]
                )
            )

    def _read(self, queries: list[Query]) -> list[list[Point]]:
        with _engine():
            answers = self._shard.query_batch(edge.QueryBatchRequest([_request(query) for query in queries]))
        return [
            [Point(uuid.UUID(str(hit.id)), hit.score, _vector(hit.vector), hit.payload or {}) for hit in hits]
            for hits in answers
        ]

    def _delete(self, scope: Scope) -> int:
        with self._exclusive, _engine():
            removed = _delete_from(self._shard, scope)
            for folder in sorted(self._root.glob(f"{ANY_LAYOUT_PREFIX}*")):
                if folder == self._folder or folder.suffix == UNFINISHED:
                    continue
                other = edge.EdgeShard.load(str(folder))
                try:
                    removed += _delete_from(other, scope)
                    other.flush()
                finally:
                    other.close()
            return removed


@contextmanager
def _engine() -> Iterator[None]:
    """Qdrant Edge raises bare `Exception` whatever goes wrong in it: disk full, folder gone, shard closed."""
    try:
        yield
    except Exception as error:
        raise DependencyDownError("index", str(error)) from error


def _lock_folder(path: Path) -> int:
    """Take the folder for this object, until the file that is returned is closed (or the process ends)."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DependencyDownError("index", f"{path} cannot be opened: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DependencyDownError(
            "index",
            f"{path} is in use by another matcher. Give each its own folder (DAMAGEWATCH_INDEX__PATH), "
            "or let them share a Qdrant server (DAMAGEWATCH_INDEX__URL)",
        ) from error
    return lock


def _config(dimension: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(
            size=dimension,
            distance=edge.Distance.Cosine,
            hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=16, full_scan_threshold=10),
            quantization_config=edge.TurboQuantQuantizationConfig(
                bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Pinned
            ),
        ),
        payload_memory=edge.Memory.Cached,
        # By default erased points stay on disk until a fifth of a segment is gone.
        optimizers=edge.EdgeOptimizersConfig(deleted_threshold=1e-9, vacuum_min_vector_number=1),
    )


def _request(query: Query) -> edge.QueryRequest:
    if query.vector is None:
        return edge.QueryRequest(
            limit=query.limit,
            filter=_filter(query.scope),
            with_payload=True if query.fields is None else list(query.fields),
            with_vector=query.with_vector,
        )
    return edge.QueryRequest(
        limit=query.limit,
        query=edge.Query.Nearest(query.vector),
        filter=_filter(query.scope),
        params=edge.SearchParams(
            quantization=edge.QuantizationSearchParams(rescore=True, oversampling=oversampling(query.limit))
        ),
        with_payload=True if query.fields is None else list(query.fields),
        with_vector=query.with_vector,
    )


def _filter(scope: Scope) -> edge.Filter:
    """The only place that makes a filter for this engine; `Scope` sees to it that it names a tenant."""
    must: list[edge.ConditionType] = [_is(codec.TENANT, scope.tenant)]
    if scope.claim is not None:
        must.append(_is(codec.CLAIM, scope.claim))
    if scope.copy_keys is not None:
        must.append(edge.FieldCondition(codec.COPY_KEYS, match=edge.MatchAny(list(scope.copy_keys))))
    if scope.ids is not None:
        must.append(edge.HasIdCondition(set(scope.ids)))
    must_not: list[edge.ConditionType] = (
        [_is(codec.CLAIM, scope.except_claim)] if scope.except_claim is not None else []
    )
    if scope.except_ids:
        must_not.append(edge.HasIdCondition(set(scope.except_ids)))
    return edge.Filter(must=must, must_not=must_not)


def _is(key: str, value: str) -> edge.FieldCondition:
    return edge.FieldCondition(key, match=edge.MatchValue(value))


def _vector(vector: object) -> list[float]:
    return vector if isinstance(vector, list) else []


def _delete_from(shard: edge.EdgeShard, scope: Scope) -> int:
    matching = _filter(scope)
    removed = shard.count(edge.CountRequest(exact=True, filter=matching))
    shard.update(edge.UpdateOperation.delete_points_by_filter(matching))
    return removed
