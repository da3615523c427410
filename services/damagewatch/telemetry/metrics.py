"""What Prometheus sees. Names and units follow https://prometheus.io/docs/practices/naming/.

Labels take values from our own code only (reasons, kinds, stages, partitions ...): never a claim, a photo or
a tenant. Counters of decisions count a photo again when it is read again after an aborted transaction; those
of commits do not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from damagewatch.domain import Alert, AlertKind, DamageType, Detections, Reason
from damagewatch.telemetry.drift import Drift

_PREFIX: Final = "damagewatch"
_STAGE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_PATIENT_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

LABELS: Final[Mapping[str, str]] = {
    "stage": "look and judge as a whole, and their steps: decode, detect, severity, embed, features, crop; "
    "upsert, search, read, verify",
    "type": "type of damage",
    "kind": "kind of alert",
    "topic": "one of our output topics",
    "reason": "reason code of a dead letter",
    "outcome": "committed or aborted",
    "partition": "number of a partition that is ours",
    "dependency": "kafka, index, evidence or references",
    "queue": "photos (in work), bytes (in work) or batch (looked at, waiting to be judged)",
    "version": "of damagewatch",
    "detector": "name and hash of that model",
    "embedder": "name and hash of that model",
    "local_features": "name and hash of that model",
    "severity": "name and hash of that model; empty where photos are not graded",
    "calibration": "version of the calibration",
}
"""What each label may hold."""


@dataclass(frozen=True, slots=True)
class Described:
    """One of our metrics, for the reference (docs/metrics.md)."""

    name: str
    """As it is queried; a histogram's without _bucket, _sum and _count."""
    kind: str
    """counter, gauge, histogram or info."""
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """All metrics of one process, in a registry of their own. Thread safe.

    Args:
        version: of damagewatch.
        clock: seconds since the epoch.
    """

    def __init__(self, version: str = "", clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._clock = clock
        # What each consumer of this process told last; the gauges show their sums.
        self._in_flight_of: dict[str, tuple[int, int]] = {}
        self._partitions_of: dict[str, int] = {}
        self._paused_of: dict[str, bool] = {}
        self._lag_of: dict[str, Mapping[int, int]] = {}
        self._oldest_of: dict[str, float | None] = {}
        self._queues_of: dict[str, Mapping[str, float]] = {}
        self._down_of: dict[str, set[str]] = defaultdict(set)

        self._info("build", "Version of damagewatch.", "version").info({"version": version})
        self._models = self._info(
            "models",
            "Versions of the models that judge.",
            "detector",
            "embedder",
            "local_features",
            "severity",
            "calibration",
        )
        self._models_refused = self._gauge(
            "models_refused", "1 where the models do not fit their manifest; the process is about to end."
        )

        self._received = self._counter("records_received", "Records read from the stream.")
        self._received_bytes = self._counter("received_bytes", "Bytes of the records read from the stream.")
        self._in_flight = self._gauge("in_flight_photos", "Records read and not yet finished.")
        self._in_flight_bytes = self._gauge("in_flight_bytes", "Bytes of the records not yet finished.")
        self._queue_fill = self._gauge(
            "queue_fill_ratio",
            "Share of a queue's room that is taken; of several consumers the fullest.",
            "queue",
        )
        self._batch = self._histogram("batch_photos", "Photos of a micro-batch.", _BATCH)
        self._stage = self._histogram(
            "stage_seconds", "Seconds that one step took for a photo or batch.", _STAGE_SECONDS, "stage"
        )

        self._photos = self._counter("photos", "Photos decided.")
        self._without_damage = self._counter("photos_without_damage", "Photos decided with no damage found.")
        self._damages = self._counter("damages", "Damages found, by type.", "type")
        self._scores = self._histogram(
            "damage_score_ratio", "The detector's score of each damage found, 0 to 1.", _SHARES
        )
        self._alerts = self._counter("alerts", "Alerts decided, by kind.", "kind")
        self._probabilities = self._histogram(
            "alert_probability_ratio", "Probability of each alert, 0 to 1.", _SHARES
        )
        self._end_to_end = self._histogram(
            "end_to_end_seconds", "Seconds from a record's timestamp to the decision.", _PATIENT_SECONDS
        )

        self._committed = self._counter("records_committed", "Records whose outputs were committed.")
        self._outputs = self._counter("outputs_committed", "Records published and committed.", "topic")
        self._dead_letters = self._counter("dead_letters", "Dead letters committed, by reason.", "reason")
        self._transactions = self._counter("transactions", "Transactions ended, by outcome.", "outcome")
        self._transaction = self._histogram(
            "transaction_seconds", "Seconds that a committed transaction took.", _STAGE_SECONDS
        )
        self._last_commit = self._gauge(
            "last_commit_timestamp_seconds", "When a transaction was last committed; 0 before the first."
        )
        self._stale = self._counter("stale_results", "Results dropped as their partition was taken from us.")

        self._rebalances = self._counter("rebalances", "Times that our partitions became others.")
        self._partitions = self._gauge("assigned_partitions", "Partitions that are ours.")
        self._lag = self._gauge("lag_records", "Records of a partition not yet committed.", "partition")
        self._gauge(
            "oldest_uncommitted_seconds", "Age of the oldest record not yet committed; 0 where there is none."
        ).set_function(self._oldest_age)
        self._paused = self._gauge("paused", "1 while no records are taken.")
        self._pauses = self._counter("pauses", "Times that taking records was paused.")
        self._stopped = self._gauge(
            "stopped", "1 once no records are taken until a person restarts us: too many dead letters."
        )

        self._retries = self._counter("retries", "Times that a dependency was tried again.", "dependency")
        self._up = self._gauge("dependency_up", "1 while a dependency answers, 0 while not.", "dependency")
        self._index_points = self._gauge("index_points", "Damages remembered, all tenants.")

        for reason in Reason:  # a series that begins at 0 shows its first increase
            self._dead_letters.labels(reason.value)
        for kind in AlertKind:
            self._alerts.labels(kind.value)
        for type_ in DamageType:
            if type_ is not DamageType.WHOLE:
                self._damages.labels(type_.value)
        for outcome in ("committed", "aborted"):
            self._transactions.labels(outcome)
        for dependency in ("kafka", "index", "evidence", "references"):
            self._retries.labels(dependency)

    def drift(self, drift: Drift) -> None:
        """Shows how far recent photos are from those that the embedder was measured on."""
        self._gauge(
            "embedding_mean_shift_ratio",
            "Distance of the mean embedding of recent photos from the reference's mean, in units of the "
            "reference's spread; NaN until enough were seen.",
        ).set_function(drift.mean_shift)
        self._gauge(
            "embedding_spread_ratio",
            "Spread of the embeddings of recent photos over the reference's spread; NaN until enough were seen.",
        ).set_function(drift.spread)

    def models(self, versions: Mapping[str, str]) -> None:
        """Version of each model, by what it does."""
        self._models.info(dict(versions))

    def models_refused(self) -> None:
        """The models cannot be used."""
        self._models_refused.set(1)

    def queues(self, fill: Mapping[str, float], consumer: str = "") -> None:
        """How full each queue of a consumer is, 0 to 1."""
        self._queues_of[consumer] = fill
        for queue in fill:
            self._queue_fill.labels(queue).set(
                max(each.get(queue, 0.0) for each in self._queues_of.copy().values())
            )

    def received(self, count: int, size: int) -> None:
        """`count` records of `size` bytes in all were read."""
        self._received.inc(count)
        self._received_bytes.inc(size)

    def in_flight(self, count: int, size: int, consumer: str = "") -> None:
        """So many records and bytes are read by a consumer and not finished."""
        self._in_flight_of[consumer] = count, size
        self._in_flight.set(sum(count for count, _ in self._in_flight_of.copy().values()))
        self._in_flight_bytes.set(sum(size for _, size in self._in_flight_of.copy().values()))

    def batch(self, photos: int) -> None:
        """A micro-batch of so many photos was formed."""
        self._batch.observe(photos)

    def stage(self, stage: str, seconds: float) -> None:
        """One step took so long."""
        self._stage.labels(stage).observe(seconds)

    def decided(self, detections: Detections, alerts: Sequence[Alert], age: float) -> None:
        """A photo was decided, `age` seconds after its record's timestamp."""
        self._photos.inc()
        found = [damage for damage in detections.damages if damage.type is not DamageType.WHOLE]
        self._without_damage.inc(not found)
        for damage in found:
            self._damages.labels(damage.type.value).inc()
            self._scores.observe(damage.score)
        for alert in alerts:
            self._alerts.labels(alert.kind.value).inc()
            self._probabilities.observe(alert.probability)
        self._end_to_end.observe(max(age, 0.0))

    def committed(self, records: int, outputs: Mapping[str, int], seconds: float) -> None:
        """A transaction that covers so many records was committed; `outputs` counts records by topic."""
        self._transactions.labels("committed").inc()
        self._transaction.observe(seconds)
        self._last_commit.set(self._clock())
        self._committed.inc(records)
        for topic, count in outputs.items():
            self._outputs.labels(topic).inc(count)

    def dead_lettered(self, reasons: Mapping[Reason, int]) -> None:
        """Dead letters were committed."""
        for reason, count in reasons.items():
            self._dead_letters.labels(reason.value).inc(count)

    def aborted(self) -> None:
        """A transaction failed."""
        self._transactions.labels("aborted").inc()

    def stale(self, count: int) -> None:
        """Results were dropped."""
        self._stale.inc(count)

    def assigned(self, partitions: int, consumer: str = "") -> None:
        """A rebalance left a consumer with so many partitions."""
        self._rebalances.inc()
        self._partitions_of[consumer] = partitions
        self._partitions.set(sum(self._partitions_of.copy().values()))

    def paused(self, paused: bool, consumer: str = "") -> None:
        """Whether a consumer takes no records."""
        self._paused_of[consumer] = paused
        self._paused.set(any(self._paused_of.copy().values()))
        if paused:
            self._pauses.inc()

    def stopped(self) -> None:
        """No records are taken until the process is restarted."""
        self._stopped.set(1)

    def lag(self, lags: Mapping[int, int], oldest: float, consumer: str = "") -> None:
        """Records not yet committed by partition of a consumer, and the age in seconds of the oldest.

        0 where there are some and their age is not known: then it is counted from the first time of that.
        """
        self._lag_of[consumer] = lags
        known = {number: count for each in self._lag_of.copy().values() for number, count in each.items()}
        for (partition,) in list(self._lag._metrics):  # the client has no public list of a metric's labels
            if int(partition) not in known:
                self._lag.remove(partition)
        for number, count in known.items():
            self._lag.labels(str(number)).set(count)
        now = self._clock()
        if not any(lags.values()):
            self._oldest_of[consumer] = None
        elif oldest or self._oldest_of.get(consumer) is None:
            self._oldest_of[consumer] = now - oldest

    def retried(self, dependency: str) -> None:
        """A dependency that did not answer is tried again."""
        self._retries.labels(dependency).inc()

    def dependency(self, dependency: str, up: bool, asked_by: str = "") -> None:
        """Whether a dependency answers one of those who ask it; it is up while it answers all of them."""
        down = self._down_of[dependency]
        (down.discard if up else down.add)(asked_by)
        self._up.labels(dependency).set(not down)

    def index_points(self, count: int) -> None:
        """So many damages are remembered."""
        self._index_points.set(count)

    def _oldest_age(self) -> float:
        written = [moment for moment in self._oldest_of.copy().values() if moment is not None]
        return max(self._clock() - min(written), 0.0) if written else 0.0

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", labels, meaning)
        return Counter(f"{_PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._describe(name, "gauge", labels, meaning)
        return Gauge(f"{_PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        self._describe(name, "histogram", labels, meaning)
        return Histogram(f"{_PREFIX}_{name}", meaning, labels, registry=self.registry, buckets=buckets)

    def _info(self, name: str, meaning: str, *labels: str) -> Info:
        self._describe(f"{name}_info", "info", labels, meaning)
        return Info(f"{_PREFIX}_{name}", meaning, registry=self.registry)

    def _describe(self, name: str, kind: str, labels: tuple[str, ...], meaning: str) -> None:
        self.described.append(Described(f"{_PREFIX}_{name}", kind, labels, meaning))
