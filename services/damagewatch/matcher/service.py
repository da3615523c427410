"""The matcher as a process: puts the parts together, runs until told to stop, and lets go of everything."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import structlog

import damagewatch
from damagewatch.assembly import (
    collection_of,
    load_models,
    make_intake,
    make_recognition,
    open_active,
    open_evidence,
    open_index,
)
from damagewatch.broker.consumer import GroupConsumer
from damagewatch.broker.deadletter import Breaker
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.processor import StreamProcessor
from damagewatch.broker.transaction import TransactionSession
from damagewatch.domain import DependencyDownError, Erasure
from damagewatch.evidence import EvidenceStore
from damagewatch.index import DamageIndex
from damagewatch.matcher.changeover import ActiveWatch, forget_progress, start_changeover
from damagewatch.matcher.outputs import TopicOutputs, dead_letters
from damagewatch.matcher.strategy import Bounds, Look, MatcherStrategy, Recognise
from damagewatch.matcher.telemetry import MatcherTelemetry
from damagewatch.settings import PREFIX, SEPARATOR, SettingError, Settings
from damagewatch.telemetry.drift import Drift
from damagewatch.telemetry.health import Health
from damagewatch.telemetry.metrics import Metrics
from damagewatch.telemetry.server import TelemetryServer
from damagewatch.telemetry.stream import StreamTelemetry
from damagewatch.telemetry.tracing import Tracing, open_tracing
from damagewatch.vision.decode import check_pixel_limit
from damagewatch.vision.manifest import ModelRefusedError
from damagewatch.vision.models import Models

log = structlog.stdlib.get_logger("damagewatch.matcher")

WATCH_SECONDS = 15.0
TIDY_SECONDS = 3600.0
"""How often the index gives back the room of erased points: until then they are on the disk, unseen."""


@dataclass(frozen=True, slots=True)
class ClaimEraser:
    """Forgets a claim in the index and in the evidence store."""

    index: DamageIndex
    evidence: EvidenceStore

    def __call__(self, tenant: str, claim_id: str) -> Erasure:
        """See `damagewatch.matcher.strategy.Eraser`."""
        points = self.index.erase(tenant, claim_id)
        crops = self.evidence.erase(tenant, claim_id)
        self.index.flush()
        return Erasure(tenant, claim_id, points, crops, datetime.now(UTC))


def bounds_of(settings: Settings) -> Bounds:
    """How much one consumer has in work; consumers of one process share its threads."""
    return Bounds(
        threads=max(1, settings.onnx.threads // settings.matcher.consumers),
        photos=settings.matcher.in_flight_photos,
        bytes=settings.matcher.in_flight_bytes,
        batch_photos=settings.matcher.batch_photos,
        batch_bytes=settings.matcher.batch_bytes,
        batch_age=settings.matcher.batch_age,
    )


def run(settings: Settings, stop: threading.Event) -> None:
    """Runs a matcher until `stop` is set; then finishes what is in work, commits, and leaves the group.

    Raises:
        ModelRefusedError: a model does not fit its manifest.
        SettingError: a setting that only shows to be wrong when it is used.
        DependencyDownError: another process holds the index's folder.
        FencedError: another matcher of the same name has started.
        OSError: the telemetry port cannot be listened on.
    """
    version = damagewatch.version()
    metrics, health = Metrics(version), Health(settings.telemetry.heartbeat_timeout)
    with ExitStack() as closing:
        telemetry = closing.enter_context(
            TelemetryServer(health, metrics.registry, settings.telemetry.host, settings.telemetry.port)
        )
        try:
            check_pixel_limit(settings.limits.limits())
        except RuntimeError as error:
            raise SettingError(str(error)) from None
        models = _load(settings, metrics, health, stop)
        metrics.models(models.versions)
        drift = _drift(models, metrics)
        tracing = _tracing(settings, version)
        closing.callback(tracing.close)
        index = open_index(settings, models)
        closing.callback(index.close)
        evidence = open_evidence(settings)
        letters = dead_letters(settings.kafka.topics.dead_letters, version)
        outputs = TopicOutputs(
            detections=settings.kafka.topics.detections,
            alerts=settings.kafka.topics.alerts,
            dead_letters=letters,
        )

        def observe(stage: str, seconds: float) -> None:
            metrics.stage(stage, seconds)
            tracing.stage(stage, seconds)

        active = ActiveWatch(open_active(settings, models), collection_of(models))
        if settings.models.next is None:
            look: Look = make_intake(settings, models, evidence, observe)
            recognise: Recognise = make_recognition(settings, models, index, evidence, observe)
            active.check()
            forget_progress(settings)
        else:
            changeover = start_changeover(settings, models, index, evidence, active, observe, stop, closing)
            look, recognise = changeover.look, changeover.recognise
        breaker = Breaker(settings.matcher.breaker())

        def consume(options: KafkaOptions) -> None:
            consumer = GroupConsumer(options, [settings.kafka.topics.images])
            watch = MatcherTelemetry(metrics, tracing, drift, options.worker, collection_of(models))

            def make_strategy() -> MatcherStrategy:
                return MatcherStrategy(
                    intake=look,
                    recognition=recognise,
                    erase=ClaimEraser(index, evidence),
                    outputs=watch.telling(outputs),
                    starts=consumer.starts,
                    bounds=bounds_of(settings),
                    tenant=settings.tenant,
                    watch=watch,
                )

            StreamProcessor(
                consumer,
                make_strategy,
                lambda: TransactionSession(options),
                dead_letters=letters,
                breaker=breaker,
                observer=StreamTelemetry(metrics, health, options.worker),
            ).run(stop, settings.matcher.drain_timeout)

        watching = threading.Thread(
            target=_watch, args=(index, active, metrics, health, stop), name="watch", daemon=True
        )
        watching.start()
        workers = _workers(settings)
        spare_the_collector()
        log.info(
            "matcher started",
            version=version,
            workers=[options.worker for options in workers],
            group=settings.kafka.group,
            kafka=",".join(settings.kafka.bootstrap_servers),
            index=settings.index.url or str(settings.index.path),
            telemetry_port=telemetry.port,
            models=dict(models.versions),
        )
        try:
            _run_all(consume, workers, stop)
        finally:
            stop.set()
            watching.join(WATCH_SECONDS)
        active.check()
        log.info("matcher stopped")


def _load(settings: Settings, metrics: Metrics, health: Health, stop: threading.Event) -> Models:
    """The models. Where they are refused, that is told for a while before the process ends: no restart mends it."""
    try:
        return load_models(settings)
    except ModelRefusedError as refused:
        metrics.models_refused()
        health.trip(str(refused))
        log.error("models refused", detail=str(refused), ends_in=settings.telemetry.refused_wait)
        stop.wait(settings.telemetry.refused_wait)
        raise


def _drift(models: Models, metrics: Metrics) -> Drift | None:
    """Where the manifest says what the embedder was measured on, how far recent photos are from it."""
    reference = models.manifest.embedder.statistics
    if reference is None:
        return None
    drift = Drift(np.array(reference.mean, np.float32), reference.spread)
    metrics.drift(drift)
    return drift


def _tracing(settings: Settings, version: str) -> Tracing:
    given = settings.tracing
    try:
        return open_tracing(given.endpoint, given.share, version, settings.kafka.worker)
    except ImportError:
        raise SettingError(
            f"{PREFIX}TRACING{SEPARATOR}ENDPOINT: needs the extra tracing: pip install 'damagewatch[tracing]'"
        ) from None


def _workers(settings: Settings) -> list[KafkaOptions]:
    """One for each consumer, each with a name of its own."""
    options = settings.kafka.options()
    if settings.matcher.consumers == 1:
        return [options]
    return [
        replace(options, worker=f"{options.worker}-{number}") for number in range(settings.matcher.consumers)
    ]


def _run_all(
    consume: Callable[[KafkaOptions], None], workers: Sequence[KafkaOptions], stop: threading.Event
) -> None:
    """Runs each consumer on a thread. When one ends, by the stop or by an error, the others are stopped."""
    with ThreadPoolExecutor(len(workers), thread_name_prefix="consumer") as pool:
        running = [pool.submit(consume, options) for options in workers]
        wait(running, return_when=FIRST_COMPLETED)
        stop.set()
    for each in running:
        each.result()


def spare_the_collector() -> None:
    """What was loaded lives until the end: Python's garbage collector need not go through it again and again.

    And it may run less often than every 700 objects, which are few for 30 candidates a damage. Together this took
    it from 0.9 ms a photo to 0.02; what it is there for, cycles, are rare here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; the handlers do nothing else. For the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def end_within(seconds: float, code: int) -> None:
    """Sees to it that the process, which has nothing left to do, ends by then with this exit code.

    Work that was given up may hang on a thread, in a store that does not answer; the interpreter waits for it.
    """
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


def _watch(
    index: DamageIndex, active: ActiveWatch, metrics: Metrics, health: Health, stop: threading.Event
) -> None:
    """Off the hot path: measures and tidies the index, and tells probes when we are to stop."""
    tidied = time.monotonic()
    while True:
        try:
            active.check()
        except SettingError as error:  # to go on would write where nobody searches
            log.error("the matcher stops", detail=str(error))
            stop.set()
        answers = False
        with suppress(DependencyDownError):
            metrics.index_points(index.count())
            answers = True
            if time.monotonic() - tidied >= TIDY_SECONDS:
                tidied = time.monotonic()
                index.optimize()
        metrics.dependency("index", answers, asked_by="watch")
        if stop.wait(WATCH_SECONDS):
            health.stop()
            return
