import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from damagewatch.telemetry.health import Health
from damagewatch.telemetry.metrics import Metrics
from damagewatch.telemetry.server import TelemetryServer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(heartbeat_timeout=60, clock=clock)


class TestHealth:
    def test_starting_is_live_and_not_ready(self, health: Health, clock: Clock) -> None:
        clock.now = 1e6  # however long the models take to load
        assert health.live().ok
        assert health.ready().reasons == ("starting",)

    def test_polling_is_ready(self, health: Health) -> None:
        health.beat()
        assert health.live().ok
        assert health.ready().ok

    def test_a_hanging_thread_is_neither(self, health: Health, clock: Clock) -> None:
        health.beat()
        clock.now = 60
        assert health.live().ok
        clock.now = 61
        assert health.live().reasons == ("no poll for 61 s; at most 60 s are allowed",)
        assert not health.ready().ok
        health.beat()
        assert health.live().ok
        assert health.ready().ok

    def test_stopping_is_live_and_not_ready(self, health: Health) -> None:
        health.beat()
        health.stop()
        assert health.live().ok
        assert health.ready().reasons == ("stopping",)

    def test_problems_are_told_and_trip_nothing(self, health: Health) -> None:
        health.beat()
        health.problem("dead letters", "51 of 60 records failed")
        assert health.live().ok
        assert health.ready().ok
        assert health.ready().problems == ("dead letters: 51 of 60 records failed",)
        health.problem("dead letters", None)
        assert health.ready().problems == ()


@pytest.fixture
def server(health: Health) -> Iterator[TelemetryServer]:
    with TelemetryServer(health, Metrics().registry, port=0) as server:
        yield server


def get(server: TelemetryServer, path: str, **headers: str) -> tuple[int, str, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


class TestServer:
    def test_probes(self, server: TelemetryServer, health: Health, clock: Clock) -> None:
        assert get(server, "/livez")[0] == 200
        status, content_type, body = get(server, "/readyz")
        assert (status, content_type) == (503, "application/json")
        assert json.loads(body) == {"status": "failing", "reasons": ["starting"], "problems": []}
        health.beat()
        health.problem("paused", "index")
        assert json.loads(get(server, "/readyz?verbose")[2]) == {
            "status": "ok",
            "reasons": [],
            "problems": ["paused: index"],
        }
        clock.now = 61
        assert get(server, "/livez")[0] == 503

    def test_metrics_parse(self, server: TelemetryServer) -> None:
        status, content_type, body = get(server, "/metrics")
        assert status == 200
        assert content_type.startswith("text/plain")
        names = {family.name for family in text_string_to_metric_families(body.decode())}
        assert {"damagewatch_photos", "damagewatch_paused", "process_resident_memory_bytes"} <= names

    def test_openmetrics_where_asked_for(self, server: TelemetryServer) -> None:
        _, content_type, body = get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")

    @pytest.mark.parametrize("path", ["/", "/metrics/../etc/passwd", "/livez/x"])
    def test_nothing_else(self, server: TelemetryServer, path: str) -> None:
        assert get(server, path)[0] == 404

    def test_no_other_method(self, server: TelemetryServer) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}/livez", data=b"x")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 501

    def test_idle_connections_are_bounded(self, server: TelemetryServer) -> None:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(40)]
        try:
            turned_away = 0
            for connection in idle[16:]:
                try:
                    turned_away += connection.recv(1) == b""
                except ConnectionResetError:
                    turned_away += 1
            assert turned_away == 24
        finally:
            for connection in idle:
                connection.close()

    def test_a_port_in_use_is_named(self, server: TelemetryServer, health: Health) -> None:
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {server.port}"):
            TelemetryServer(health, Metrics().registry, port=server.port)
