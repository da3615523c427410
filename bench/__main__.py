"""Photos a second through a real Kafka, beside the same work in a bare loop, in turns within one run.

The bare loop is what the models cost with nothing around them: for each photo, from bytes in memory and on as
many threads as the matcher uses, decode, resize and `session.run` for the detector, the embedder and the local
features. It runs each network as often as the stream did: of some photos the stream looks at the mirror image too.
The stream does the same and all the rest: Kafka in and out with transactions, the index on disk, the search, the
verification, the crops. Compare the two by their ratio: machines differ, and so does one machine from minute to
minute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from damagewatch.assembly import load_models, make_recognition, open_index
from damagewatch.broker.consumer import GroupConsumer
from damagewatch.broker.deadletter import Breaker, BreakerPolicy, DeadLetters
from damagewatch.broker.development import DevelopmentKafka
from damagewatch.broker.processor import StreamProcessor
from damagewatch.broker.publisher import Publisher
from damagewatch.broker.record import OutgoingRecord
from damagewatch.broker.topics import Topics, TopicSpec
from damagewatch.broker.transaction import TransactionSession
from damagewatch.contracts import codec
from damagewatch.domain import Box, ClaimImage, DamageType, LocalFeatures, Severity
from damagewatch.evidence import EvidenceStore
from damagewatch.folders import photos_in
from damagewatch.matcher.outputs import TopicOutputs
from damagewatch.matcher.service import ClaimEraser, bounds_of, spare_the_collector
from damagewatch.matcher.strategy import MatcherStrategy
from damagewatch.pipeline.intake import Intake
from damagewatch.settings import Settings
from damagewatch.telemetry.health import Health
from damagewatch.telemetry.metrics import Metrics
from damagewatch.telemetry.stream import StreamTelemetry
from damagewatch.vision.decode import Photo, decode
from damagewatch.vision.detect import Detector, Region
from damagewatch.vision.features import FeatureExtractor
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perception
from damagewatch.vision.regions import window

from .drawn import drawn

WARM_UP = 40


def main() -> int:
    """Runs the benchmark and prints its tables."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", type=Path, help="folder of photos; default: drawn ones, each of another car"
    )
    parser.add_argument("--count", type=int, default=200, help="photos of a round (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default: 3)")
    parser.add_argument("--damages", type=int, nargs="*", default=[1, 2, 4], help="damages a photo (1 2 4)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    settings = Settings()
    models = load_models(settings)
    spare_the_collector()
    with tempfile.TemporaryDirectory(prefix="damagewatch-bench-") as folder:
        here = Path(folder)
        contents = _contents(options.photos, options.count)
        broker = DevelopmentKafka(here / "kafka")
        try:
            bootstrap = broker.up()
            # Unmeasured: a broker that has just started compiles its code first.
            _stream(settings, models, contents[:WARM_UP], bootstrap, here / "warm-up", defaultdict(list))
            results = [
                _measured(settings, models, contents, damages, bootstrap, here, options.rounds)
                for damages in (None, *options.damages)
            ]
        finally:
            broker.down()
    report = {
        "cpus": os.cpu_count(),
        "threads": settings.onnx.threads,
        "photos": len(contents),
        "bytes_a_photo": round(statistics.mean(map(len, contents))),
        "rounds": options.rounds,
        "results": results,
    }
    if options.json:
        json.dump(report, sys.stdout)
        print()
    else:
        _print(report)
    return 0


def _contents(photos: Path | None, count: int) -> list[bytes]:
    if photos is not None:
        return [file.path.read_bytes() for file in photos_in([photos])][:count]
    print(f"drawing {count} photos", file=sys.stderr)
    return drawn(count)


class Cost(NamedTuple):
    """Seconds on the clock, and seconds of CPU in this process (not the broker's)."""

    seconds: float
    cpu: float

    @classmethod
    def now(cls) -> Cost:
        """To take differences of."""
        return cls(time.perf_counter(), time.process_time())


class FixedDetector(Detector):
    """The real detector at its real cost, whose answer is then replaced by a fixed number of damages."""

    def __init__(self, detector: Detector, damages: int) -> None:
        self._detector = detector
        self._damages = damages

    def detect(self, photo: Photo) -> tuple[Region, ...]:
        """As many regions as were asked for, each with a window of its own."""
        self._detector.detect(photo)
        return tuple(
            Region(_place(number, photo.width, photo.height), (), DamageType.DENT, Severity.MINOR, 0.9)
            for number in range(self._damages)
        )


class CountedFeatures(FeatureExtractor):
    """The real extractor, counting the mirror images that it was asked for."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._counting = threading.Lock()
        self.mirrored = 0

    def extract(self, photo: Photo, window: Box, mirror: bool = False) -> LocalFeatures:
        """As `FeatureExtractor.extract`."""
        if mirror:
            with self._counting:
                self.mirrored += 1
        return self._extractor.extract(photo, window, mirror)


def _place(number: int, width: int, height: int) -> Box:
    x, y = ((0.2, 0.2), (0.8, 0.8), (0.2, 0.8), (0.8, 0.2))[number % 4]
    return Box((x - 0.05) * width, (y - 0.05) * height, (x + 0.05) * width, (y + 0.05) * height)


def _measured(
    settings: Settings,
    models: Models,
    contents: Sequence[bytes],
    damages: int | None,
    bootstrap: str,
    here: Path,
    rounds: int,
) -> dict[str, Any]:
    """The bare loop and the stream in turns; medians over the rounds."""
    if damages is not None:
        models = replace(models, detector=FixedDetector(models.detector, damages))
    counted = CountedFeatures(models.local_features)
    models = replace(models, local_features=counted)
    bare: list[Cost] = []
    stream: list[Cost] = []
    stages = defaultdict[str, list[float]](list)
    for number in range(rounds):
        counted.mirrored = 0
        folder = here / f"round-{uuid4().hex[:8]}-{number}"
        stream.append(_stream(settings, models, contents, bootstrap, folder, stages))
        bare.append(_bare_loop(models, contents, settings.onnx.threads, counted.mirrored))
    photos = len(contents)
    return {
        "damages": "as detected" if damages is None else damages,
        "bare_photos_per_second": round(photos / statistics.median(cost.seconds for cost in bare), 2),
        "stream_photos_per_second": round(photos / statistics.median(cost.seconds for cost in stream), 2),
        "ratio": round(
            statistics.median(b.seconds / s.seconds for s, b in zip(stream, bare, strict=True)), 3
        ),
        "bare_cpu_milliseconds": round(1000 * statistics.median(cost.cpu for cost in bare) / photos, 1),
        "stream_cpu_milliseconds": round(1000 * statistics.median(cost.cpu for cost in stream) / photos, 1),
        "stage_milliseconds_a_photo": {
            stage: round(1000 * sum(seconds) / (rounds * photos), 2) for stage, seconds in stages.items()
        },
    }


def _bare_loop(models: Models, contents: Sequence[bytes], threads: int, mirrored: int) -> Cost:
    def work(number: int) -> None:
        photo = decode(contents[number])
        found = models.detector.detect(photo)
        if models.severity is not None:
            models.severity.grade(photo)
        whole = Box(0, 0, photo.width, photo.height)
        windows = {whole, *(window(region.box, photo.width, photo.height) for region in found)}
        for box in windows:
            models.embedder.embed(photo, box)
            models.local_features.extract(photo, box)
        if number < mirrored:
            models.local_features.extract(photo, whole, mirror=True)

    start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(len(contents))):
            pass
    return Cost(time.perf_counter() - start, time.process_time() - cpu)


class Clock(StreamTelemetry):
    """From the first record that was delivered to the last that was committed."""

    def __init__(self, wanted: int) -> None:
        super().__init__(Metrics("bench"), Health(60.0))
        self.stop = threading.Event()
        self._first: Cost | None = None
        self.cost = Cost(0.0, 0.0)
        self._wanted = wanted

    def records_in(self, count: int, size: int) -> None:
        """See `Observer`."""
        self._first = self._first or Cost.now()

    def committed(self, records: int, outputs: Mapping[str, int], seconds: float) -> None:
        """See `Observer`."""
        self._wanted -= records
        now, first = Cost.now(), self._first or Cost.now()
        self.cost = Cost(now.seconds - first.seconds, now.cpu - first.cpu)
        if self._wanted <= 0:
            self.stop.set()


def _stream(
    settings: Settings,
    models: Models,
    contents: Sequence[bytes],
    bootstrap: str,
    here: Path,
    stages: dict[str, list[float]],
) -> Cost:
    """From the first record delivered to the last one committed, all photos waiting in Kafka."""
    name = here.name
    settings = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(
                update={"bootstrap_servers": (bootstrap,), "group": name, "worker": f"{name}-worker"}
            ),
            "index": settings.index.model_copy(update={"url": None, "path": here / "index"}),
        }
    )
    options = settings.kafka.options()
    topics = {kind: f"{name}.{kind}" for kind in ("images", "detections", "alerts", "dead-letters")}
    for topic in topics.values():
        Topics(options).create(TopicSpec(topic, partitions=4, replication=1))
    with Publisher(options) as publisher:
        for number, content in enumerate(contents):
            image = ClaimImage("bench", f"claim-{number}", "photo", content)
            headers = tuple(codec.headers_of(image))
            publisher.publish(
                OutgoingRecord(topics["images"], image.claim_id.encode(), codec.encode(image), headers)
            )
    lock = threading.Lock()

    def observe(stage: str, seconds: float) -> None:
        with lock:
            stages[stage].append(seconds)

    clock = Clock(len(contents))
    evidence = EvidenceStore(str((here / "evidence").resolve()))
    index = open_index(settings, models)
    consumer = GroupConsumer(options, [topics["images"]])
    letters = DeadLetters(topics["dead-letters"], "bench")

    def make_strategy() -> MatcherStrategy:
        return MatcherStrategy(
            intake=Intake(Perception(models, settings.limits.limits(), observe), evidence, _no_references),
            recognition=make_recognition(settings, models, index, evidence, observe),
            erase=ClaimEraser(index, evidence),
            outputs=TopicOutputs(
                detections=topics["detections"], alerts=topics["alerts"], dead_letters=letters
            ),
            starts=consumer.starts,
            bounds=bounds_of(settings),
            tenant=settings.tenant,
        )

    try:
        StreamProcessor(
            consumer,
            make_strategy,
            lambda: TransactionSession(options),
            dead_letters=letters,
            breaker=Breaker(BreakerPolicy()),
            observer=clock,
        ).run(clock.stop)
    finally:
        index.close()
    return clock.cost


def _no_references(uri: str) -> bytes:
    raise NotImplementedError(uri)


def _print(report: Mapping[str, Any]) -> None:
    print(
        f"{report['photos']} photos of {report['bytes_a_photo'] / 1000:.0f} kB, {report['rounds']} rounds, "
        f"{report['threads']} threads on {report['cpus']} CPUs\n"
    )
    print(
        f"{'damages':>12} {'bare loop/s':>12} {'stream/s':>10} {'ratio':>7} {'bare CPU ms':>12} {'stream':>7}"
    )
    for row in report["results"]:
        print(
            f"{row['damages']!s:>12} {row['bare_photos_per_second']:>12.1f} "
            f"{row['stream_photos_per_second']:>10.1f} {row['ratio']:>7.2f} "
            f"{row['bare_cpu_milliseconds']:>12.1f} {row['stream_cpu_milliseconds']:>7.1f}"
        )
    print("\nmilliseconds a photo, by stage (on its thread; stages overlap)\n")
    names = sorted({name for row in report["results"] for name in row["stage_milliseconds_a_photo"]})
    print(f"{'damages':>12} " + " ".join(f"{name:>9}" for name in names))
    for row in report["results"]:
        by_stage = row["stage_milliseconds_a_photo"]
        print(f"{row['damages']!s:>12} " + " ".join(f"{by_stage.get(name, 0):>9.2f}" for name in names))


if __name__ == "__main__":
    sys.exit(main())
