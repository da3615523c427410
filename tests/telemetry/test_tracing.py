from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from damagewatch.telemetry import tracing
from damagewatch.telemetry.tracing import Headers, OpenTelemetry, Untraced, open_tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
SENDER = f"00-{TRACE}-b7ad6b7169203331-01"
ASKED = (("traceparent", SENDER.encode()),)
PHOTO = ("claims", 3, 42)


class Stand:
    def __init__(self, share: float = 1.0) -> None:
        self.memory = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.memory))
        self.tracing = OpenTelemetry(provider)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.memory.get_finished_spans()}


def look(stand: Stand, headers: Headers = ASKED) -> None:
    with stand.tracing.looking(PHOTO, headers):
        stand.tracing.stage("decode", 0.25)


def traceparent(headers: Headers) -> Sequence[str]:
    return dict(headers)["traceparent"].decode().split("-")


def test_a_photo_belongs_to_the_trace_of_its_sender() -> None:
    stand = Stand()
    look(stand)
    span, step = stand.spans()["look claims"], stand.spans()["decode"]
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.attributes == {
        "messaging.system": "kafka",
        "messaging.destination.name": "claims",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 42,
    }
    assert step.parent is not None
    assert step.parent.span_id == span.context.span_id
    assert step.start_time is not None
    assert step.end_time is not None
    assert step.end_time - step.start_time == 250_000_000


def test_what_is_published_carries_the_trace_on_once() -> None:
    stand = Stand()
    look(stand)
    span = stand.spans()["look claims"]
    assert span.context is not None
    _, trace, parent, flags = traceparent(stand.tracing.onwards(PHOTO))
    assert (trace, parent, flags) == (TRACE, f"{span.context.span_id:016x}", "01")
    assert stand.tracing.onwards(PHOTO) == ()


def test_a_batch_is_a_trace_of_its_own_linked_to_its_photos() -> None:
    stand = Stand()
    look(stand)
    with stand.tracing.judging([PHOTO, ("claims", 3, 43)]):
        stand.tracing.stage("search", 0.1)
    photo, batch, step = (stand.spans()[name] for name in ("look claims", "judge", "search"))
    assert photo.context is not None
    assert batch.context is not None
    assert batch.parent is None
    assert batch.context.trace_id != photo.context.trace_id
    assert [link.context.span_id for link in batch.links] == [photo.context.span_id]
    assert batch.attributes is not None
    assert batch.attributes["messaging.batch.message_count"] == 2
    assert step.parent is not None
    assert step.parent.span_id == batch.context.span_id


@pytest.mark.parametrize(
    "value", [b"", b"00-xyz", b"\xff\xfe", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"]
)
def test_a_sender_who_writes_nonsense_gets_a_new_trace(value: bytes) -> None:
    stand = Stand()
    look(stand, (("traceparent", value),))
    assert stand.spans()["look claims"].parent is None


def test_a_sender_who_does_not_sample_is_followed() -> None:
    stand = Stand()
    look(stand, (("traceparent", SENDER.removesuffix("01").encode() + b"00"),))
    assert stand.spans() == {}
    assert traceparent(stand.tracing.onwards(PHOTO))[3] == "00"


def test_a_share_of_nothing_traces_only_what_senders_ask_for() -> None:
    stand = Stand(share=0.0)
    look(stand, ())
    assert stand.spans() == {}
    look(stand)
    assert "look claims" in stand.spans()


def test_a_step_outside_of_any_work_is_no_trace() -> None:
    stand = Stand()
    stand.tracing.stage("decode", 0.1)
    assert stand.spans() == {}


def test_the_photos_of_dropped_work_are_pushed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_MOST_OPEN", 2)
    stand = Stand()
    for offset in range(3):
        with stand.tracing.looking(("claims", 0, offset), ()):
            pass
    assert stand.tracing.onwards(("claims", 0, 0)) == ()
    assert stand.tracing.onwards(("claims", 0, 2)) != ()


def test_it_is_off_by_default_and_costs_no_import() -> None:
    off = open_tracing(None, 1.0, "1.0", "worker")
    assert isinstance(off, Untraced)
    with off.looking(PHOTO, ()), off.judging([PHOTO]):
        off.stage("decode", 0.1)
    assert off.onwards(PHOTO) == ()
    off.close()


def test_an_endpoint_turns_it_on() -> None:
    on = open_tracing("http://127.0.0.1:9/v1/traces", 1.0, "1.0", "worker")
    assert isinstance(on, OpenTelemetry)
    on.close()  # nothing was traced: nothing is sent
