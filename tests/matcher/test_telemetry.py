"""What the matcher tells of its work, by way of its strategy: metrics, log lines and traces."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from damagewatch.broker.record import OutgoingRecord, Partition, Processed, Record
from damagewatch.contracts import codec
from damagewatch.domain import ClaimImage, Detections, Erasure, Origin, PhotoRef, Reason, Refused
from damagewatch.matcher.strategy import Bounds, Done, MatcherStrategy
from damagewatch.matcher.telemetry import MatcherTelemetry
from damagewatch.pipeline.intake import Seen
from damagewatch.pipeline.recognition import Decided, Positions
from damagewatch.telemetry import logs
from damagewatch.telemetry.drift import Drift
from damagewatch.telemetry.metrics import Metrics
from damagewatch.telemetry.tracing import OpenTelemetry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRETS = ("AB-CD 1234", "Erika Mustermann", "hunter2", "JFIF")
SENDER = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def record(offset: int, content: bytes | None = b"JFIF photo", photo: str = "front") -> Record:
    image = ClaimImage("t", "C-1", photo, content, attributes={"plate": SECRETS[0], "holder": SECRETS[1]})
    value = None if content is None else codec.encode(image)
    return Record("claims", 0, offset, 1_000, b"C-1", value, (("traceparent", SENDER),), 1, "topic-id")


def look(image: ClaimImage, origin: Origin | None = None) -> Seen | Refused:
    if image.photo_id == "broken":
        detail = f"https://store/x.jpg?key=hunter2 of {image.attributes['holder']}"
        return Refused(Reason.TRUNCATED, detail, "decode")
    sighting = SimpleNamespace(embedding=np.ones(4, np.float32))
    return Seen(cast(Any, SimpleNamespace(image=image, sightings=(sighting,))), origin)


def judge(batch: Sequence[Seen | Refused], positions: Positions | None = None) -> list[Decided | Refused]:
    def one(item: Seen) -> Decided:
        image = cast(Any, item.perceived).image
        return Decided(
            Detections(PhotoRef("t", image.claim_id, image.photo_id, "0" * 64), 1, 1, (), {}, NOW), ()
        )

    return [item if isinstance(item, Refused) else one(item) for item in batch]


def written(done: Done) -> tuple[OutgoingRecord, ...]:
    return (OutgoingRecord("out", None, b"", (("content-type", b"x"),)),)


def drive(watch: MatcherTelemetry, records: Sequence[Record]) -> list[Processed]:
    strategy = MatcherStrategy(
        intake=look,
        recognition=judge,
        erase=lambda tenant, claim: Erasure(tenant, claim, 1, 1, NOW),
        outputs=watch.telling(written),
        starts={Partition("claims", 0): 0},
        bounds=Bounds(
            threads=1, photos=8, bytes=1_000_000, batch_photos=8, batch_bytes=1_000_000, batch_age=5.0
        ),
        tenant="t",
        watch=watch,
    )
    for each in records:
        strategy.submit(each)
    strategy.poll()
    strategy.close()
    return list(strategy.join(10))


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_one_line_a_batch_and_a_refused_photo_names_them_and_tells_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("INFO", "json")
    unreadable = Record("claims", 0, 9, 1_000, b"C-1", b"\xff\xff JFIF hunter2", (), 1, "topic-id")
    drive(MatcherTelemetry(Metrics()), [record(7), record(8, photo="broken"), unreadable])
    text = capsys.readouterr().err
    told = [json.loads(line) for line in text.splitlines()]
    (batch,) = [line for line in told if line["event"] == "batch judged"]
    assert (batch["photos"], batch["refused"], batch["alerts"]) == (1, 2, 0)
    assert batch["records"] == [
        {"claim": "C-1", "photo": "front", "topic": "claims", "partition": 0, "offset": 7},
        {"claim": "C-1", "photo": "broken", "topic": "claims", "partition": 0, "offset": 8},
        {"topic": "claims", "partition": 0, "offset": 9},
    ]
    assert batch["seconds"] >= 0
    broken, garbled = [line for line in told if line["event"] == "photo refused"]
    assert broken["level"] == "warning"
    assert {name: broken[name] for name in ("claim", "photo", "topic", "partition", "offset")} == batch[
        "records"
    ][1]
    assert (broken["reason"], broken["stage"]) == ("truncated", "decode")
    assert (garbled["reason"], garbled["offset"]) == ("message_unreadable", 9)
    assert not [secret for secret in SECRETS if secret in text]


def test_an_erasure_is_told_by_its_claim(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    drive(MatcherTelemetry(Metrics()), [record(3, content=None)])
    (batch,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert batch["erased"] == 1
    assert batch["records"] == [{"claim": "C-1", "topic": "claims", "partition": 0, "offset": 3}]


def test_what_was_done_is_counted() -> None:
    metrics, drift = Metrics(), Drift(np.zeros(4, np.float32), 2.0, 10, least=1)
    watch = MatcherTelemetry(metrics, drift=drift, clock=lambda: 8.5)
    drive(watch, [record(0), record(1), record(2, photo="broken")])
    value = metrics.registry.get_sample_value
    assert value("damagewatch_photos_total") == 2
    assert value("damagewatch_photos_without_damage_total") == 2
    assert value("damagewatch_end_to_end_seconds_sum") == 15
    assert value("damagewatch_batch_photos_sum") == 3
    assert value("damagewatch_stage_seconds_count", {"stage": "look"}) == 3
    assert value("damagewatch_stage_seconds_count", {"stage": "judge"}) == 1
    for queue in ("photos", "bytes", "batch"):
        assert value("damagewatch_queue_fill_ratio", {"queue": queue}) is not None
    assert drift.mean_shift() == 1.0


def test_outputs_carry_on_the_trace_of_the_sender() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    results = drive(
        MatcherTelemetry(Metrics(), OpenTelemetry(provider)), [record(0), record(1, photo="broken")]
    )
    spans = {span.name: span for span in memory.get_finished_spans()}
    assert {"look claims", "judge"} == spans.keys()
    assert len(spans["judge"].links) == 2
    for result in results:
        for output in result.outputs:
            headers = dict(output.headers)
            assert headers["content-type"] == b"x"
            assert headers["traceparent"].split(b"-")[1] == SENDER.split(b"-")[1]
            assert headers["traceparent"] != SENDER


def test_untraced_the_outputs_are_as_they_were() -> None:
    (result,) = drive(MatcherTelemetry(Metrics()), [record(0)])
    assert result.outputs[0].headers == (("content-type", b"x"),)
