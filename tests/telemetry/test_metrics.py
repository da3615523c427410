import math
import uuid
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from damagewatch import domain
from damagewatch.broker.observer import Observer
from damagewatch.domain import Reason
from damagewatch.telemetry.drift import Drift
from damagewatch.telemetry.health import Health
from damagewatch.telemetry.metrics import Metrics
from damagewatch.telemetry.stream import StreamTelemetry


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics("1.2.3", clock)


def exposed(metrics: Metrics) -> dict[str, Any]:
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_metric_follows_the_conventions(metrics: Metrics) -> None:
    ours = {name: family for name, family in exposed(metrics).items() if name.startswith("damagewatch_")}
    assert len(ours) > 20
    for name, family in ours.items():
        assert family.documentation.endswith("."), name
        if family.type == "histogram":
            assert name.endswith(("_seconds", "_photos", "_ratio")), name
        for sample in family.samples:
            assert not {"claim", "tenant", "photo", "claim_id", "photo_id"} & sample.labels.keys()


def test_series_that_alarms_watch_begin_at_zero(metrics: Metrics) -> None:
    for reason in Reason:
        assert value(metrics, "damagewatch_dead_letters_total", reason=reason.value) == 0
    for kind in domain.AlertKind:
        assert value(metrics, "damagewatch_alerts_total", kind=kind.value) == 0
    assert value(metrics, "damagewatch_transactions_total", outcome="aborted") == 0
    assert value(metrics, "damagewatch_paused") == 0


def test_versions(metrics: Metrics) -> None:
    metrics.models({"embedder": "osnet-1", "detector": "unet-2"})
    assert value(metrics, "damagewatch_build_info", version="1.2.3") == 1
    assert value(metrics, "damagewatch_models_info", embedder="osnet-1", detector="unet-2") == 1


def test_a_decision(metrics: Metrics) -> None:
    damage, whole = (
        domain.Damage(uuid.UUID(int=1), domain.Box(0, 0, 1, 1), (), type_, domain.Severity.MINOR, 1.0)
        for type_ in (domain.DamageType.DENT, domain.DamageType.WHOLE)
    )
    photo = domain.PhotoRef("t", "c", "p", "0" * 64)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    metrics.decided(domain.Detections(photo, 1, 1, (whole, damage, damage), {}, moment), (), age=7.0)
    assert value(metrics, "damagewatch_photos_total") == 1
    assert value(metrics, "damagewatch_damages_total", type="dent") == 2
    assert value(metrics, "damagewatch_damages_total", type="whole") is None
    assert value(metrics, "damagewatch_end_to_end_seconds_sum") == 7
    assert value(metrics, "damagewatch_end_to_end_seconds_bucket", le="5.0") == 0
    assert value(metrics, "damagewatch_end_to_end_seconds_bucket", le="10.0") == 1


def test_lag_of_a_partition_that_was_taken_away_is_gone(metrics: Metrics) -> None:
    metrics.lag({0: 5, 1: 2}, 3.0)
    metrics.lag({1: 4}, 3.0)
    assert value(metrics, "damagewatch_lag_records", partition="0") is None
    assert value(metrics, "damagewatch_lag_records", partition="1") == 4


def test_the_oldest_record_grows_older_between_two_reports(metrics: Metrics, clock: Clock) -> None:
    assert value(metrics, "damagewatch_oldest_uncommitted_seconds") == 0
    metrics.lag({0: 5}, 30.0)
    clock.now += 10
    assert value(metrics, "damagewatch_oldest_uncommitted_seconds") == 40
    metrics.lag({0: 0}, 0.0)
    assert value(metrics, "damagewatch_oldest_uncommitted_seconds") == 0


def test_dependencies(metrics: Metrics) -> None:
    metrics.dependency("index", False)
    metrics.retried("index")
    metrics.retried("index")
    assert value(metrics, "damagewatch_dependency_up", dependency="index") == 0
    assert value(metrics, "damagewatch_retries_total", dependency="index") == 2


def test_a_dependency_is_up_while_it_answers_all_who_ask(metrics: Metrics) -> None:
    metrics.dependency("index", False, "worker-1")
    metrics.dependency("index", True, "watch")
    assert value(metrics, "damagewatch_dependency_up", dependency="index") == 0
    metrics.dependency("index", True, "worker-1")
    assert value(metrics, "damagewatch_dependency_up", dependency="index") == 1


def test_of_several_consumers_the_fullest_queue_is_shown(metrics: Metrics) -> None:
    metrics.queues({"photos": 0.5}, "worker-1")
    metrics.queues({"photos": 0.25}, "worker-2")
    assert value(metrics, "damagewatch_queue_fill_ratio", queue="photos") == 0.5
    metrics.queues({"photos": 0.0}, "worker-1")
    assert value(metrics, "damagewatch_queue_fill_ratio", queue="photos") == 0.25


def test_what_waits_since_an_unknown_time_grows_older_all_the_same(metrics: Metrics, clock: Clock) -> None:
    metrics.lag({0: 5}, 0.0)
    clock.now += 30
    metrics.lag({0: 5}, 0.0)
    assert value(metrics, "damagewatch_oldest_uncommitted_seconds") == 30


def test_drift_is_told_where_there_is_a_reference(metrics: Metrics) -> None:
    assert value(metrics, "damagewatch_embedding_mean_shift_ratio") is None
    drift = Drift(np.zeros(2, np.float32), 2.0, window=4, least=1)
    metrics.drift(drift)
    drift.add(np.array([0.0, 1.0], np.float32))
    assert value(metrics, "damagewatch_embedding_mean_shift_ratio") == 0.5
    assert value(metrics, "damagewatch_embedding_spread_ratio") == 0


class TestStream:
    def test_while_kafka_is_silent_what_was_last_known_counts(self, metrics: Metrics, clock: Clock) -> None:
        health = Health(60, clock)
        stream = StreamTelemetry(metrics, health)
        stream.assigned(1)
        stream.lag({0: 5}, 10.0)
        clock.now += 60
        stream.lag({}, 0.0)
        assert value(metrics, "damagewatch_dependency_up", dependency="kafka") == 1
        stream.lag({}, 0.0)
        assert value(metrics, "damagewatch_lag_records", partition="0") == 5
        assert value(metrics, "damagewatch_oldest_uncommitted_seconds") == 70
        assert value(metrics, "damagewatch_dependency_up", dependency="kafka") == 0
        assert health.ready().problems == ("kafka: does not tell how far we are behind",)
        stream.lag({0: 5}, 70.0)
        assert health.ready().problems == ()
        assert value(metrics, "damagewatch_dependency_up", dependency="kafka") == 1
        stream.assigned(0)  # others do it now
        assert value(metrics, "damagewatch_lag_records", partition="0") is None
        assert value(metrics, "damagewatch_oldest_uncommitted_seconds") == 0

    def test_kafka_is_up_again_without_a_commit_the_index_is_not(self, metrics: Metrics) -> None:
        stream = StreamTelemetry(metrics, Health(60))
        for dependency in ("kafka", "index"):
            stream.waiting_for(dependency)
            stream.paused(f"{dependency}: no answer", 1.0)
        stream.resumed()
        assert value(metrics, "damagewatch_dependency_up", dependency="kafka") == 1
        assert value(metrics, "damagewatch_dependency_up", dependency="index") == 0
        stream.committed(1, {}, 0.1)
        assert value(metrics, "damagewatch_dependency_up", dependency="index") == 1

    def test_tells_metrics_and_health(self, metrics: Metrics, clock: Clock) -> None:
        health = Health(60, clock)
        stream: Observer = StreamTelemetry(metrics, health)
        assert not health.ready().ok
        stream.polled()
        assert health.ready().ok

        stream.records_in(3, 300)
        stream.in_flight(2, 200)
        stream.committed(2, {"damage.alerts.v1": 1, "damage.detections.v1": 2}, 0.02)
        stream.dead_lettered({Reason.TRUNCATED: 1})
        stream.aborted("fenced")
        stream.stale(4)
        stream.assigned(6)
        stream.lag({0: 1}, 2.0)
        for name, labels, expected in [
            ("records_received_total", {}, 3),
            ("received_bytes_total", {}, 300),
            ("in_flight_photos", {}, 2),
            ("in_flight_bytes", {}, 200),
            ("records_committed_total", {}, 2),
            ("outputs_committed_total", {"topic": "damage.detections.v1"}, 2),
            ("transaction_seconds_count", {}, 1),
            ("transactions_total", {"outcome": "committed"}, 1),
            ("transactions_total", {"outcome": "aborted"}, 1),
            ("dead_letters_total", {"reason": "truncated"}, 1),
            ("stale_results_total", {}, 4),
            ("rebalances_total", {}, 1),
            ("assigned_partitions", {}, 6),
            ("lag_records", {"partition": "0"}, 1),
        ]:
            assert value(metrics, f"damagewatch_{name}", **labels) == expected, name

    def test_a_pause_is_told_and_trips_no_probe(self, metrics: Metrics, clock: Clock) -> None:
        health = Health(60, clock)
        stream = StreamTelemetry(metrics, health)
        stream.polled()
        stream.paused("index: no answer", 1.0)
        assert health.ready().ok
        stream.paused("index: no answer at all", 2.0)
        assert value(metrics, "damagewatch_paused") == 1
        assert value(metrics, "damagewatch_pauses_total") == 1
        assert health.ready().ok
        assert health.ready().problems == ("paused: index: no answer at all",)
        stream.resumed()
        assert value(metrics, "damagewatch_paused") == 0
        assert health.ready().problems == ()


def test_a_stream_that_stays_stopped_is_not_ready() -> None:
    health = Health(60.0)
    metrics = Metrics()
    stream = StreamTelemetry(metrics, health)
    stream.polled()
    stream.paused("52 of 60 records failed in our own code", math.inf)
    assert value(metrics, "damagewatch_stopped") == 1
    report = health.ready()
    assert not report.ok
    assert report.reasons == ("52 of 60 records failed in our own code",)
    assert health.live().ok
