"""What goes over the wire to a Qdrant server, and what becomes of its failures. The server here is played."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from qdrant_client import QdrantClient
from qdrant_client import grpc as wire

from damagewatch.domain import DependencyDownError, Sighting
from damagewatch.index.qdrant import Layout, QdrantAlias, QdrantIndex

Make = Callable[..., Sighting]
NAME = "damages-v1-net-0123456789ab"
CERTIFICATE = Path(__file__).parents[1] / "pipeline" / "certificate.pem"

ANSWERS = {
    "CollectionExists": wire.CollectionExistsResponse(result=wire.CollectionExists(exists=False)),
    "Create": wire.CollectionOperationResponse(result=True),
    "CreateFieldIndex": wire.PointsOperationResponse(
        result=wire.UpdateResult(status=wire.UpdateStatus.Completed)
    ),
    "Upsert": wire.PointsOperationResponse(result=wire.UpdateResult(status=wire.UpdateStatus.Completed)),
    "Delete": wire.PointsOperationResponse(result=wire.UpdateResult(status=wire.UpdateStatus.Completed)),
    "QueryBatch": wire.QueryBatchResponse(result=[wire.BatchResult(), wire.BatchResult()]),
    "Count": wire.CountResponse(result=wire.CountResult(count=7)),
    "List": wire.ListCollectionsResponse(
        collections=[
            wire.CollectionDescription(name=name) for name in (NAME, "damages-v0-old", "somebody-elses")
        ]
    ),
}
REQUESTS: dict[str, type[Message]] = {
    "CollectionExists": wire.CollectionExistsRequest,
    "Create": wire.CreateCollection,
    "CreateFieldIndex": wire.CreateFieldIndexCollection,
    "Upsert": wire.UpsertPoints,
    "Delete": wire.DeletePoints,
    "QueryBatch": wire.QueryBatchPoints,
    "Count": wire.CountPoints,
    "List": wire.ListCollectionsRequest,
}


class PlayedServer(grpc.GenericRpcHandler):
    """Answers as a server with an empty collection would, or as the test says."""

    def __init__(self, *, tls: bool = False) -> None:
        self.calls: list[tuple[str, Message]] = []
        self.metadata: list[dict[str, str]] = []
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.hangs = threading.Event()
        self.hangs.set()
        self.answers = dict(ANSWERS)
        self.grpc = grpc.server(ThreadPoolExecutor(4), handlers=(self,))
        if tls:
            pem = CERTIFICATE.read_bytes()
            credentials = grpc.ssl_server_credentials([(pem, pem)])
            self.port = self.grpc.add_secure_port("localhost:0", credentials)
        else:
            self.port = self.grpc.add_insecure_port("localhost:0")
        self.grpc.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rpartition("/")[2]

        def answer(request: Message, context: grpc.ServicerContext) -> Message:
            self.metadata.append({str(k): str(v) for k, v in context.invocation_metadata()})
            self.calls.append((method, request))
            self.hangs.wait(20)
            if self.failure:
                context.abort(*self.failure)
            return self.answers[method]

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=REQUESTS[method].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def asked(self, method: str) -> list[Message]:
        return [request for name, request in self.calls if name == method]


@pytest.fixture
def server() -> Iterator[PlayedServer]:
    server = PlayedServer()
    yield server
    server.hangs.set()
    server.grpc.stop(None)


@pytest.fixture
def index(server: PlayedServer) -> Iterator[QdrantIndex]:
    index = QdrantIndex.server(f"http://localhost:{server.port}", NAME, 16, api_key="secret", timeout=1)
    yield index
    index.close()


def conditions(found: wire.Filter) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    def keywords(all_of: object) -> set[tuple[str, str]]:
        return {(c.field.key, c.field.match.keyword) for c in all_of if c.field.match.keyword}  # type: ignore[attr-defined]

    return keywords(found.must), keywords(found.must_not)


def test_collection_and_keyword_indexes_are_made_before_any_data(
    server: PlayedServer, index: QdrantIndex, sighting: Make
) -> None:
    index.upsert([sighting()])
    index.upsert([sighting()])
    names = [name for name, _ in server.calls]
    assert names == ["CollectionExists", "Create", *["CreateFieldIndex"] * 3, "Upsert", "Upsert"]
    (made,) = server.asked("Create")
    assert made.collection_name == NAME
    assert made.vectors_config.params.size == 16
    assert made.vectors_config.params.distance == wire.Distance.Cosine
    assert made.hnsw_config.m == 0
    assert not made.optimizers_config.HasField("prevent_unoptimized")
    fields = server.asked("CreateFieldIndex")
    assert {f.field_name: f.field_index_params.keyword_index_params.is_tenant for f in fields} == {
        "tenant": True,
        "claim": False,
        "copy_keys": False,
    }
    assert all(field.wait for field in fields)


def test_a_cluster_is_told_how_to_spread_the_collection(server: PlayedServer) -> None:
    QdrantIndex.server(
        f"http://localhost:{server.port}", NAME, 16, layout=Layout(shards=6, replicas=3, write_consistency=3)
    ).count()
    (made,) = server.asked("Create")
    assert (made.shard_number, made.replication_factor, made.write_consistency_factor) == (6, 3, 3)


def test_how_a_collection_is_spread_is_the_servers_choice_by_default(
    server: PlayedServer, index: QdrantIndex
) -> None:
    index.count()
    (made,) = server.asked("Create")
    for field in ("shard_number", "replication_factor", "write_consistency_factor"):
        assert not made.HasField(field)


def test_an_upsert_waits_until_it_is_visible_and_stays_below_4_mb(
    server: PlayedServer, index: QdrantIndex, sighting: Make
) -> None:
    index.upsert([sighting(claim=str(i), features=512) for i in range(70)])
    upserts = server.asked("Upsert")
    assert all(upsert.wait for upsert in upserts)
    assert sum(len(upsert.points) for upsert in upserts) == 70
    assert max(upsert.ByteSize() for upsert in upserts) < 4 * 1024 * 1024


def test_every_query_names_its_tenant_and_sees_unoptimized_points(
    server: PlayedServer, index: QdrantIndex, sighting: Make
) -> None:
    index.search([sighting("acme", "C-1"), sighting("bolt", "C-2")], limit=5)
    index.copies([sighting("acme", "C-1")], [0], limit=5)
    search, copies = (list(batch.query_points) for batch in server.asked("QueryBatch"))
    assert [conditions(query.filter) for query in search] == [
        ({("tenant", "acme")}, {("claim", "C-1")}),
        ({("tenant", "bolt")}, {("claim", "C-2")}),
    ]
    assert [conditions(query.filter) for query in copies] == [({("tenant", "acme")}, {("claim", "C-1")})] * 2
    for query in search:
        assert not query.params.indexed_only
        assert query.params.quantization.rescore
        assert query.params.quantization.oversampling * query.limit >= 60


def test_an_erasure_visits_all_collections_of_ours_and_no_other(
    server: PlayedServer, index: QdrantIndex
) -> None:
    assert index.erase("acme", "C-1") == 28  # each visited twice, and this server never runs dry
    deletions = server.asked("Delete")
    assert {d.collection_name for d in deletions} == {NAME, "damages-v0-old"}
    for deletion in deletions:
        assert conditions(deletion.points.filter) == ({("tenant", "acme"), ("claim", "C-1")}, set())
        assert deletion.wait


def test_the_key_goes_with_every_call(server: PlayedServer, index: QdrantIndex, sighting: Make) -> None:
    index.upsert([sighting()])
    index.count()
    assert len(server.metadata) == 7
    assert {sent["api-key"] for sent in server.metadata} == {"secret"}


def test_another_matcher_that_makes_the_collection_first_is_no_failure(
    server: PlayedServer, index: QdrantIndex, sighting: Make
) -> None:
    calls = iter([False, True])
    service = server.service

    def racing(details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method.endswith("/CollectionExists"):
            exists = wire.CollectionExists(exists=next(calls))
            server.answers["CollectionExists"] = wire.CollectionExistsResponse(result=exists)
        server.failure = (
            (grpc.StatusCode.ALREADY_EXISTS, "already exists") if details.method.endswith("/Create") else None
        )
        return service(details)

    server.service = racing  # type: ignore[method-assign]
    index.upsert([sighting()])
    assert server.calls[-1][0] == "Upsert"


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
    ],
)
def test_a_server_that_fails_is_down_and_used_again_when_it_answers(
    server: PlayedServer, index: QdrantIndex, sighting: Make, code: grpc.StatusCode
) -> None:
    server.failure = (code, "what it says")
    calls: list[Callable[[], object]] = [
        index.count,
        lambda: index.upsert([sighting()]),
        lambda: index.search([sighting()], 1),
        lambda: index.copies([sighting()], [0], 1),
        lambda: index.erase("acme", "C-1"),
    ]
    for call in calls:
        with pytest.raises(DependencyDownError, match=f"^index: {code.name}: what it says$"):
            call()
    server.failure = None
    assert index.count() == 7
    server.failure = (code, "what it says")
    for call in calls:
        with pytest.raises(DependencyDownError, match=f"^index: {code.name}: what it says$"):
            call()


def test_a_server_that_hangs_is_left_in_time(
    server: PlayedServer, index: QdrantIndex, sighting: Make
) -> None:
    index.count()
    server.hangs.clear()
    with pytest.raises(DependencyDownError, match="DEADLINE_EXCEEDED"):
        index.upsert([sighting()])


def test_a_server_that_is_not_there_is_down_not_fatal(sighting: Make) -> None:
    index = QdrantIndex.server("http://localhost:1", NAME, 16, timeout=1)
    with pytest.raises(DependencyDownError, match="index: "):
        index.count()
    index.close()


def test_over_tls_the_certificate_is_checked() -> None:
    server = PlayedServer(tls=True)
    url = f"https://localhost:{server.port}"
    trusting = QdrantIndex.server(url, NAME, 16, ca_file=CERTIFICATE, api_key="secret", timeout=5)
    assert trusting.count() == 7
    trusting.close()
    doubting = QdrantIndex.server(url, NAME, 16, api_key="secret", timeout=1)
    with pytest.raises(DependencyDownError):
        doubting.count()
    doubting.close()
    assert {sent["api-key"] for sent in server.metadata} == {"secret"}
    assert len(server.metadata) == 6  # those of the one that trusts
    server.grpc.stop(None)


@pytest.mark.parametrize("url", ["localhost:6334", "ftp://host", "http://", "", "qdrant"])
def test_a_malformed_url_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="the index's URL must be"):
        QdrantIndex.server(url, NAME, 16)


def test_the_rest_port_is_taken_to_mean_the_grpc_port(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []
    monkeypatch.setattr("damagewatch.index.qdrant.QdrantClient", lambda **settings: made.append(settings))
    for url in ("http://host", "http://host:6333", "http://host:6334", "https://host:7000"):
        QdrantIndex.server(url, NAME, 16)
    assert [(m["grpc_port"], m["https"]) for m in made] == [(6334, False)] * 3 + [(7000, True)]


def test_the_active_collection_is_an_alias_that_moves() -> None:
    client = QdrantClient(":memory:")
    alias = QdrantAlias(client)
    assert alias.get() is None
    for name in ("damages-v1-a-0123456789ab", "damages-v1-b-0123456789ab"):
        QdrantIndex(client, name, 16).count()  # makes it
        alias.set(name)
        assert alias.get() == name
