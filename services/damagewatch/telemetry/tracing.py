"""Traces: OpenTelemetry spans of each photo, from its sender's trace on to whoever reads what became of it.

Off unless an endpoint is set. The context travels in the Kafka headers `traceparent` and `tracestate`
(https://www.w3.org/TR/trace-context/). A photo that is looked at is a span of its sender's trace; a batch that
is judged is a trace of its own with a link to each of its photos, as the conventions for messaging ask
(https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/). Spans name photos by topic, partition
and offset, never by claim.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanContext

Headers = Sequence[tuple[str, bytes]]
Position = tuple[str, int, int]
"""Topic, partition and offset of a record."""

_FIELDS: Final = frozenset(("traceparent", "tracestate"))
_MOST_OPEN: Final = 10_000
"""Photos whose context is kept until their outputs are written; those of dropped work are pushed out."""
_NANO: Final = 1_000_000_000


class Tracing(Protocol):
    """What is traced. Called from any thread; never raises."""

    def looking(self, position: Position, headers: Headers) -> AbstractContextManager[None]:
        """Around the work on one photo alone, in its sender's trace."""
        ...

    def judging(self, positions: Sequence[Position]) -> AbstractContextManager[None]:
        """Around the work on a batch of photos that were looked at."""
        ...

    def stage(self, stage: str, seconds: float) -> None:
        """A step of what this thread is within has just ended."""
        ...

    def onwards(self, position: Position) -> Headers:
        """The headers that carry a photo's trace on, for what is published because of it. Once a photo."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


class OpenTelemetry:
    """Traces to whatever the provider exports to.

    Args:
        provider: of tracers; closed with this.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("damagewatch")
        self._propagator = TraceContextTextMapPropagator()
        self._open: OrderedDict[Position, SpanContext] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def looking(self, position: Position, headers: Headers) -> Iterator[None]:
        """See `Tracing`."""
        from opentelemetry.trace import SpanKind

        carrier = {name.lower(): value.decode("ascii", "replace") for name, value in headers}
        carrier = {name: value for name, value in carrier.items() if name in _FIELDS}
        with self._tracer.start_as_current_span(
            f"look {position[0]}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes=_attributes(position),
        ) as span:
            with self._lock:
                self._open[position] = span.get_span_context()
                while len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            yield

    @contextmanager
    def judging(self, positions: Sequence[Position]) -> Iterator[None]:
        """See `Tracing`."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link

        with self._lock:
            photos = [(self._open[position], position) for position in positions if position in self._open]
        with self._tracer.start_as_current_span(
            "judge",
            context=Context(),
            links=[Link(context, _attributes(position)) for context, position in photos],
            attributes={"messaging.batch.message_count": len(positions)},
        ):
            yield

    def stage(self, stage: str, seconds: float) -> None:
        """See `Tracing`."""
        from opentelemetry.trace import get_current_span

        if get_current_span().get_span_context().is_valid:
            end = time.time_ns()
            self._tracer.start_span(stage, start_time=end - int(seconds * _NANO)).end(end)

    def onwards(self, position: Position) -> Headers:
        """See `Tracing`."""
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        with self._lock:
            context = self._open.pop(position, None)
        if context is None:
            return ()
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(NonRecordingSpan(context)))
        return tuple((name, value.encode()) for name, value in carrier.items())

    def close(self) -> None:
        """See `Tracing`."""
        self._provider.shutdown()


class Untraced:
    """Traces nothing."""

    @contextmanager
    def looking(self, position: Position, headers: Headers) -> Iterator[None]:
        """See `Tracing`."""
        yield

    @contextmanager
    def judging(self, positions: Sequence[Position]) -> Iterator[None]:
        """See `Tracing`."""
        yield

    def stage(self, stage: str, seconds: float) -> None:
        """See `Tracing`."""

    def onwards(self, position: Position) -> Headers:
        """See `Tracing`."""
        return ()

    def close(self) -> None:
        """See `Tracing`."""


def open_tracing(endpoint: str | None, share: float, version: str, worker: str) -> Tracing:
    """Traces to an OTLP endpoint by HTTP, or nothing where there is none.

    Args:
        endpoint: such as http://collector:4318/v1/traces.
        share: of the photos whose sender says nothing of it, 0 to 1; a sender's own choice is followed.
        version: of damagewatch.
        worker: name of this worker.

    Raises:
        ImportError: the extra `tracing` is not installed.
    """
    if endpoint is None:
        return Untraced()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    resource = {
        "service.name": "damagewatch",
        "service.version": version,
        "service.instance.id": worker,
    }
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=Resource.create(resource),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return OpenTelemetry(provider)


def _attributes(position: Position) -> Mapping[str, str | int]:
    topic, partition, offset = position
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
    }
