"""The index on a Qdrant server, over gRPC: for several matchers, and for more than one machine.

The same exact scan as in `edge` (no HNSW graph, TurboQuant codes, the best rescored); needs Qdrant 1.18 or
newer.
"""

from __future__ import annotations

import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from damagewatch.domain import DependencyDownError
from damagewatch.index import payload as codec
from damagewatch.index.interface import ANY_LAYOUT_PREFIX
from damagewatch.index.points import Point, PointIndex, Query, Scope, oversampling, point_id

GRPC_PORT: Final = 6334
REST_PORT: Final = 6333
ALIAS: Final = "damages-active"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a collection is spread over a cluster when it is made; None leaves it to the server's configuration.

    A point counts as remembered once `write_consistency` copies of its shard have it; searches ask one copy. So
    with fewer than all `replicas`, a search right after a write may miss it while a node fails (a write that
    not all copies took is acknowledged after the others are shut out, which other nodes learn a moment later).
    """

    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None

    def arguments(self) -> dict[str, Any]:
        """For `QdrantClient.create_collection`."""
        given = {
            "shard_number": self.shards,
            "replication_factor": self.replicas,
            "write_consistency_factor": self.write_consistency,
        }
        return {name: value for name, value in given.items() if value is not None}


class QdrantIndex(PointIndex):
    """A `DamageIndex` on a server. Connects at the first call, so it can be made while the server is down.

    Args:
        client: See `server` and, for tests, `QdrantClient(":memory:")`.
        collection: See `collection_name`; made at the first call if missing.
        dimension: Of the embeddings.
        layout: See `Layout`.
    """

    def __init__(
        self, client: QdrantClient, collection: str, dimension: int, layout: Layout = Layout()
    ) -> None:
        super().__init__(dimension)
        self._client = client
        self._collection = collection
        self._layout = layout
        self._making = threading.Lock()
        self._made = False

    @classmethod
    def server(
        cls,
        url: str,
        collection: str,
        dimension: int,
        *,
        api_key: str | None = None,
        ca_file: Path | None = None,
        timeout: float = 10.0,
        layout: Layout = Layout(),
    ) -> QdrantIndex:
        """An index on the server at `url`.

        Args:
            url: `http://host` or `https://host` (TLS), with the gRPC port where it is not 6334. The REST port
                6333, which other clients are given, is taken to mean 6334.
            collection: See the class.
            dimension: See the class.
            api_key: Sent with every call.
            ca_file: PEM certificates to trust instead of the system's.
            timeout: Seconds that one call may take.
            layout: See the class.

        Raises:
            ValueError: The URL is not of that form.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"the index's URL must be http://host[:port] or https://host[:port], not {url!r}"
            )
        options: dict[str, Any] = {"grpc.keepalive_time_ms": 30_000, "grpc.keepalive_timeout_ms": 5_000}
        if ca_file is not None:
            options["root_certificates"] = ca_file.read_bytes()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            client = QdrantClient(
                host=parts.hostname,
                https=parts.scheme == "https",
                grpc_port=GRPC_PORT if parts.port in (None, REST_PORT) else parts.port,
                prefer_grpc=True,
                api_key=api_key,
                timeout=max(1, round(timeout)),
                grpc_options=options,
                check_compatibility=False,  # over REST, which may not be reachable
            )
        return cls(client, collection, dimension, layout)

    def count(self) -> int:
        """See `DamageIndex.count`."""
        with self._calling() as client:
            return client.count(self._collection, exact=True).count

    def flush(self) -> None:
        """Nothing to do: the server has written its log when `upsert` returns."""

    def optimize(self) -> None:
        """Nothing to do: the server optimises on its own."""

    def close(self) -> None:
        """See `DamageIndex.close`."""
        self._client.close()

    @contextmanager
    def _calling(self) -> Iterator[QdrantClient]:
        with _answering():
            self._make()
            yield self._client

    def _make(self) -> None:
        """Make the collection and its keyword indexes before any data. Several matchers may do so at once."""
        with self._making:
            if self._made:
                return
            if not self._client.collection_exists(self._collection):
                try:
                    self._client.create_collection(
                        self._collection, **_collection(self._dimension), **self._layout.arguments()
                    )
                except (grpc.RpcError, ApiException, ValueError):
                    if not self._client.collection_exists(self._collection):  # not another matcher's doing
                        raise
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="Payload indexes have no effect in the local Qdrant"
                )
                for name in codec.KEYWORDS:
                    self._client.create_payload_index(
                        self._collection,
                        name,
                        models.KeywordIndexParams(
                            type=models.KeywordIndexType.KEYWORD, is_tenant=name == codec.TENANT
                        ),
                        wait=True,
                    )
            self._made = True

    def _write(self, points: list[Point]) -> None:
        with self._calling() as client:
            client.upsert(
                self._collection,
                [models.PointStruct(id=p.id, vector=p.vector, payload=dict(p.payload)) for p in points],
                wait=True,
            )

    def _read(self, queries: list[Query]) -> list[list[Point]]:
        with self._calling() as client:
            answers = client.query_batch_points(self._collection, [_request(query) for query in queries])
        return [
            [
                Point(point_id(hit.id), hit.score, _vector(hit.vector), hit.payload or {})
                for hit in answer.points
            ]
            for answer in answers
        ]

    def _delete(self, scope: Scope) -> int:
        removed = 0
        matching = _filter(scope)
        with self._calling() as client:
            names = {found.name for found in client.get_collections().collections}
            for name in sorted({self._collection, *(n for n in names if n.startswith(ANY_LAYOUT_PREFIX))}):
                removed += client.count(name, count_filter=matching, exact=True).count
                client.delete(name, models.FilterSelector(filter=matching), wait=True)
        return removed

    def _discard(self, scope: Scope) -> None:
        with self._calling() as client:
            selector = models.FilterSelector(filter=_filter(scope))
            client.delete(self._collection, selector, wait=True)

    def ids(
        self, start: uuid.UUID | None, limit: int
    ) -> tuple[list[tuple[str, uuid.UUID]], uuid.UUID | None]:
        """See `RebuildableIndex.ids`."""
        with self._calling() as client:
            points, following = client.scroll(
                self._collection,
                limit=limit,
                offset=str(start) if start is not None else None,
                with_payload=[codec.TENANT],
                with_vectors=False,
            )
        found = [((point.payload or {})[codec.TENANT], point_id(point.id)) for point in points]
        return found, point_id(following) if following is not None else None

    def drop(self) -> None:
        """See `RebuildableIndex.drop`."""
        with self._calling() as client:
            client.delete_collection(self._collection)
        self.close()

    @property
    def alias(self) -> QdrantAlias:
        """The server's alias, over this index's connection."""
        return QdrantAlias(self._client)


class QdrantAlias:
    """An `ActiveCollection` as an alias on a Qdrant server.

    Args:
        client: Of the server.
    """

    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def get(self) -> str | None:
        """See `ActiveCollection.get`."""
        with _answering():
            aliases = self._client.get_aliases().aliases
        return next((known.collection_name for known in aliases if known.alias_name == ALIAS), None)

    def set(self, collection: str) -> None:
        """See `ActiveCollection.set`. One request: nobody ever sees no alias."""
        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=ALIAS)
        )
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIAS))
        with _answering():
            known = any(alias.alias_name == ALIAS for alias in self._client.get_aliases().aliases)
            self._client.update_collection_aliases([delete, create] if known else [create])


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (grpc.RpcError, ApiException, QdrantException, OSError) as error:
        raise DependencyDownError("index", _said(error)) from error


def _collection(dimension: int) -> dict[str, Any]:
    return {
        "vectors_config": models.VectorParams(size=dimension, distance=models.Distance.COSINE),
        "hnsw_config": models.HnswConfigDiff(m=0, payload_m=0),
        "quantization_config": models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(
                bits=models.TurboQuantBitSize.BITS4, memory=models.Memory.PINNED
            )
        ),
    }


def _request(query: Query) -> models.QueryRequest:
    nearest = query.vector is not None
    return models.QueryRequest(
        query=query.vector,
        filter=_filter(query.scope),
        limit=query.limit,
        params=models.SearchParams(
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=oversampling(query.limit))
        )
        if nearest
        else None,
        with_payload=True if query.fields is None else list(query.fields),
        with_vector=query.with_vector,
    )


def _filter(scope: Scope) -> models.Filter:
    """The only place that makes a filter for this engine; `Scope` sees to it that it names a tenant."""
    must: list[models.Condition] = [_is(codec.TENANT, scope.tenant)]
    if scope.claim is not None:
        must.append(_is(codec.CLAIM, scope.claim))
    if scope.copy_keys is not None:
        must.append(
            models.FieldCondition(key=codec.COPY_KEYS, match=models.MatchAny(any=list(scope.copy_keys)))
        )
    if scope.ids is not None:
        must.append(models.HasIdCondition(has_id=list(scope.ids)))
    must_not: list[models.Condition] = (
        [_is(codec.CLAIM, scope.except_claim)] if scope.except_claim is not None else []
    )
    if scope.except_ids:
        must_not.append(models.HasIdCondition(has_id=list(scope.except_ids)))
    return models.Filter(must=must, must_not=must_not)


def _is(key: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _vector(vector: object) -> list[float]:
    return vector if isinstance(vector, list) else []


def _said(error: BaseException) -> str:
    """One line for a person: a gRPC error's own text is half a page."""
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
