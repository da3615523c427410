"""What the stream tells, passed on to metrics, health and logs.

Fits `damagewatch.broker.observer.Observer`, of which this package knows nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from damagewatch.domain import Reason
from damagewatch.telemetry.health import Health
from damagewatch.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_NEEDED = ("kafka", "index", "evidence")
"""What a commit of photos needs."""


class StreamTelemetry:
    """An observer of the stream. All is told on the polling thread; nothing waits.

    Args:
        metrics: count it.
        health: learns that the polling thread comes round, and what is wrong.
        consumer: name of this consumer, where a process has several.
    """

    def __init__(self, metrics: Metrics, health: Health, consumer: str = "") -> None:
        self._metrics = metrics
        self._health = health
        self._consumer = consumer
        self._problem = f"paused {consumer}".strip()
        self._paused = False
        self._partitions = 0
        self._silent = 0
        self._waiting_for = set(_NEEDED)  # nothing was heard of them yet

    def polled(self) -> None:
        """See `Observer`."""
        self._health.beat(self._consumer)

    def records_in(self, count: int, size: int) -> None:
        """See `Observer`."""
        self._metrics.received(count, size)

    def in_flight(self, count: int, size: int) -> None:
        """See `Observer`."""
        self._metrics.in_flight(count, size, self._consumer)

    def committed(self, records: int, outputs: Mapping[str, int], seconds: float) -> None:
        """See `Observer`."""
        self._metrics.committed(records, outputs, seconds)
        while self._waiting_for:  # a commit needs all of them
            self._answers(self._waiting_for.pop())

    def dead_lettered(self, reasons: Mapping[Reason, int]) -> None:
        """See `Observer`."""
        self._metrics.dead_lettered(reasons)
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        log.warning("dead letters: %s", told)

    def aborted(self, detail: str) -> None:
        """See `Observer`."""
        self._metrics.aborted()
        log.warning("a transaction failed, its records are read again: %s", detail)

    def stale(self, count: int) -> None:
        """See `Observer`."""
        self._metrics.stale(count)

    def assigned(self, partitions: int) -> None:
        """See `Observer`."""
        self._metrics.assigned(partitions, self._consumer)
        self._partitions = partitions
        if not partitions:
            self._metrics.lag({}, 0.0, self._consumer)
        log.info("%d partitions are ours", partitions)

    def waiting_for(self, dependency: str) -> None:
        """See `Observer`."""
        self._waiting_for.add(dependency)
        self._metrics.dependency(dependency, False, self._consumer)
        self._metrics.retried(dependency)

    def paused(self, detail: str, seconds: float) -> None:
        """See `Observer`. A pause that is prolonged counts once."""
        if math.isinf(seconds):
            self._health.trip(detail)
            self._metrics.stopped()
            log.error("no records are taken until restarted: %s", detail)
        elif not self._paused:
            log.warning("paused, trying again in %.1f s: %s", seconds, detail)
        if not self._paused:
            self._metrics.paused(True, self._consumer)
        self._paused = True
        self._health.problem(self._problem, detail)

    def resumed(self) -> None:
        """See `Observer`."""
        self._answers("kafka")  # a step needs it, and on a quiet stream no commit will tell
        if self._paused:
            self._metrics.paused(False, self._consumer)
            log.info("resumed")
        self._paused = False
        self._health.problem(self._problem, None)

    def lag(self, lags: Mapping[int, int], oldest_seconds: float) -> None:
        """See `Observer`. Kafka that says nothing of our partitions is down: on an idle stream nothing else tells.

        Twice in a row, as right after a rebalance nothing is known yet. What was last known of the lag counts then.
        """
        self._silent = 0 if lags or not self._partitions else self._silent + 1
        silent = self._silent > 1
        self._metrics.dependency("kafka", not silent, f"{self._consumer} lag")
        self._health.problem(
            f"kafka {self._consumer}".strip(), "does not tell how far we are behind" if silent else None
        )
        if not self._silent:
            self._metrics.lag(lags, oldest_seconds, self._consumer)

    def _answers(self, dependency: str) -> None:
        self._waiting_for.discard(dependency)
        self._metrics.dependency(dependency, True, self._consumer)
