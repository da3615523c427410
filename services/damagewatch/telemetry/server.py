"""One port for probes and Prometheus: /livez, /readyz, /metrics."""

from __future__ import annotations

import json
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from damagewatch.telemetry.health import Health, Report

_MAX_CONNECTIONS: Final = 16
_CONNECTION_SECONDS: Final = 5


class TelemetryServer:
    """Answers on threads of its own, at most 16 connections at once, 5 seconds each to ask.

    Args:
        health: answers /livez and /readyz.
        registry: what /metrics shows.
        host: address to listen on; the loopback address unless others shall reach it.
        port: 0 for any free one; `port` tells which.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self, health: Health, registry: CollectorRegistry, host: str = "127.0.0.1", port: int = 9464
    ) -> None:
        class Bound(_Handler):
            pass

        Bound.health, Bound.registry = health, registry
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server = _Server(family, (host, port), Bound)
        except OSError as error:
            raise OSError(f"telemetry cannot listen on {host} port {port}: {error.strerror}") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="telemetry", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """That is listened on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> TelemetryServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, family: int, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = family
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client went away


class _Handler(BaseHTTPRequestHandler):
    health: ClassVar[Health]
    registry: ClassVar[CollectorRegistry]
    timeout = _CONNECTION_SECONDS
    server_version = "damagewatch"
    sys_version = ""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/livez":
                self._report(self.health.live())
            case "/readyz":
                self._report(self.health.ready())
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, content_type, encode(self.registry))
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/livez /readyz /metrics\n")

    do_HEAD = do_GET  # noqa: N815

    def _report(self, report: Report) -> None:
        body = {
            "status": "ok" if report.ok else "failing",
            "reasons": report.reasons,
            "problems": report.problems,
        }
        status = HTTPStatus.OK if report.ok else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, "application/json", json.dumps(body).encode() + b"\n")

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass  # probes come every few seconds
