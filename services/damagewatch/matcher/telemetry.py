"""What the matcher tells of its work: metrics, one log line a batch and a refused photo, traces.

Logs name photos (claim, photo, topic, partition, offset); they never hold a photo, its attributes or addresses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import structlog

from damagewatch.broker.record import Headers, OutgoingRecord, Record
from damagewatch.domain import Erasure, Refused
from damagewatch.matcher.strategy import Done, Outputs, Work
from damagewatch.pipeline.intake import Seen
from damagewatch.pipeline.recognition import Decided
from damagewatch.telemetry.drift import Drift
from damagewatch.telemetry.metrics import Metrics
from damagewatch.telemetry.tracing import Position, Tracing, Untraced

log = structlog.stdlib.get_logger("damagewatch.matcher")


class MatcherTelemetry:
    """Fits `damagewatch.matcher.strategy.Watch`, and stands between the strategy and its outputs.

    Args:
        metrics: counts.
        tracing: traces.
        drift: takes in the embedding of each photo, where the manifest has a reference.
        consumer: name of this consumer, where a process has several.
        collection: of the embedder that `drift` is the reference of: during a change another one may judge.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        metrics: Metrics,
        tracing: Tracing | None = None,
        drift: Drift | None = None,
        consumer: str = "",
        collection: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing or Untraced()
        self._drift = drift
        self._consumer = consumer
        self._collection = collection
        self._clock = clock

    @contextmanager
    def looking(self, record: Record) -> Iterator[None]:
        """See `Watch`."""
        with self._timed("look"), self._tracing.looking(_position(record), record.headers):
            yield

    @contextmanager
    def judging(self, records: Sequence[Record]) -> Iterator[None]:
        """See `Watch`."""
        with self._timed("judge"), self._tracing.judging([_position(record) for record in records]):
            yield

    def judged(self, batch: Sequence[Work], done: Sequence[Done], seconds: float) -> None:
        """See `Watch`."""
        self._metrics.batch(len(batch))
        verdicts = [each.verdict for each in done]
        if self._drift is not None:
            for work in batch:
                if isinstance(work.content, Seen):
                    self._drift.add(work.content.described_in(self._collection)[0].embedding)
        log.info(
            "batch judged",
            photos=sum(isinstance(verdict, Decided) for verdict in verdicts),
            refused=sum(isinstance(verdict, Refused) for verdict in verdicts),
            erased=sum(isinstance(verdict, Erasure) for verdict in verdicts),
            alerts=sum(len(verdict.alerts) for verdict in verdicts if isinstance(verdict, Decided)),
            seconds=round(seconds, 4),
            records=[_named(each) for each in done],
        )

    def queues(self, fill: Mapping[str, float]) -> None:
        """See `Watch`."""
        self._metrics.queues(fill, self._consumer)

    def telling(self, outputs: Outputs) -> Outputs:
        """The outputs, counted, logged where the photo was refused, and with the photo's trace in their headers."""

        def told(done: Done) -> tuple[OutgoingRecord, ...]:
            match done.verdict:
                case Decided() as decided:
                    age = self._clock() - done.record.timestamp_ms / 1000
                    self._metrics.decided(decided.detections, decided.alerts, age)
                case Refused() as refused:
                    log.warning(
                        "photo refused", **_named(done), reason=refused.reason.value, stage=refused.stage
                    )
                case _:
                    pass
            onwards = tuple(self._tracing.onwards(_position(done.record)))
            return tuple(_with(output, onwards) for output in outputs(done)) if onwards else outputs(done)

        return told

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.stage(stage, time.perf_counter() - start)


def _position(record: Record) -> Position:
    return record.topic, record.partition, record.offset


def _named(done: Done) -> dict[str, str | int]:
    """Which photo it is; claim and photo only where the message could be read."""
    image, verdict, record = done.image, done.verdict, done.record
    named: dict[str, str | int] = {}
    if image is not None:
        named = {"claim": image.claim_id, "photo": image.photo_id}
    elif isinstance(verdict, Erasure):
        named = {"claim": verdict.claim_id}
    return named | {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def _with(output: OutgoingRecord, headers: Headers) -> OutgoingRecord:
    return replace(output, headers=output.headers + headers)
