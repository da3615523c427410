"""Broken records between good photos: each becomes a dead letter with its reason, or is processed."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil  # type: ignore[import-untyped]
from kafka import KafkaProducer

from damagewatch.broker.record import OutgoingRecord

from .broken_inputs import PHOTO, Input, broken_inputs
from .outcome import Letter, Outcome, read
from .photos import TrialSet
from .stand import Matcher, Stand, Stream, Tell
from .verdict import Verdict

MOST_MEMORY = 2 * 1024**3

Place = tuple[int, int]
"""Partition and offset."""


def run(stand: Stand, photos: TrialSet, count: int, partitions: int, seed: int, tell: Tell) -> Verdict:
    """Sends `count` broken records and all photos in a random order."""
    folder = stand.folder / "references"
    example = np.asarray(cv2.imread(str(photos.photos[0].path)), np.uint8)
    tell("making broken records")
    inputs = broken_inputs(example, folder, count, seed)
    stream = stand.stream("broken", partitions)
    tell("publishing")
    places = _publish(stream, photos, inputs, seed)
    allowed = {"DAMAGEWATCH_REFERENCES__ALLOWED": f"{folder.resolve().as_uri()}/"}
    with Matcher(stream, environment=allowed) as matcher:
        with _memory(matcher.process.pid) as peak:
            stream.wait(matcher, len(photos.photos) + len(inputs), tell)
        alive = matcher.alive
        code = matcher.stop()
    return judge(photos, inputs, places, read(stream), peak[0], alive, code)


def judge(
    photos: TrialSet,
    inputs: list[Input],
    places: list[Place],
    outcome: Outcome,
    peak: int,
    alive: bool,
    code: int,
) -> Verdict:
    """Compares what became of each record with what had to."""
    letters: dict[Place, list[Letter]] = defaultdict(list)
    for letter in outcome.letters:
        letters[letter.partition, letter.offset].append(letter)
    processed = Counter(outcome.detections)
    receipts = Counter(receipt.claim_id for receipt in outcome.receipts)
    wrong: list[tuple[str, str, str]] = []
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each, place in zip(inputs, places, strict=True):
        told = letters[place]
        passed = processed[each.claim_id, PHOTO] + receipts[each.claim_id]
        became = ", ".join(letter.reason for letter in told) or ("processed" if passed else "nothing")
        by_reason[became].append(each.name)
        right = len(told) + passed == 1 and (each.may_pass if passed else told[0].reason in each.reasons)
        if not right:
            wanted = [reason.value for reason in sorted(each.reasons)] + ["processed"] * each.may_pass
            detail = told[0].detail if told else ""
            wrong.append((each.name, f"{became} x{len(told) + passed} {detail}"[:100], " or ".join(wanted)))
    good = [photo.key for photo in photos.photos]
    unprocessed = [key for key in good if processed[key] != 1]

    verdict = Verdict("broken", {"broken records": len(inputs), "photos between": len(good)})
    verdict.table(
        "What became of the broken records",
        ("became", "records", "such as"),
        [
            (became, len(names), "; ".join(list(dict.fromkeys(names))[:3])[:110])
            for became, names in sorted(by_reason.items(), key=lambda row: -len(row[1]))
        ],
    )
    verdict.table("Otherwise than they had to", ("record", "became", "had to become"), wrong)
    verdict.check("broken records with another end than theirs", len(wrong), "0", not wrong)
    verdict.check("good photos not processed exactly once", len(unprocessed), "0", not unprocessed)
    failed = len(by_reason.get("processing_failed", ()))
    verdict.check("failures of our own code", failed, "0", not failed)
    verdict.check("the process lives, never restarted", alive, "yes", alive)
    verdict.check("exit code after SIGTERM", code, "0", code == 0)
    verdict.check("peak memory, MB", round(peak / 1e6), f"< {MOST_MEMORY / 1e6:.0f}", peak < MOST_MEMORY)
    return verdict


def _publish(stream: Stream, photos: TrialSet, inputs: list[Input], seed: int) -> list[Place]:
    """All in a random order; returns where each input lies. With Kafka's own producer, which looks at nothing."""
    producer: Any = KafkaProducer(**stream.options.producer_arguments())
    good = [stream.record(photo) for photo in photos.photos]
    records = [*inputs, *good]
    places: list[Place] = [(-1, -1)] * len(inputs)
    for i in np.random.default_rng(seed).permutation(len(records)):
        record: Input | OutgoingRecord = records[i]
        sent = producer.send(
            stream.topics.images, key=record.key, value=record.value, headers=list(record.headers)
        ).get(timeout=30)
        if i < len(inputs):
            places[i] = sent.partition, sent.offset
    producer.close()
    return places


@contextmanager
def _memory(pid: int) -> Iterator[list[int]]:
    """The most memory (RSS, bytes) that a process had, in a list of one; exact on Linux, sampled elsewhere."""
    peak, stop = [0], threading.Event()

    def sample() -> None:
        while True:
            try:
                peak[0] = max(peak[0], psutil.Process(pid).memory_info().rss, _high_water(pid))
            except psutil.NoSuchProcess:
                return
            if stop.wait(0.1):
                return

    thread = threading.Thread(target=sample, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        time.sleep(0.2)
        stop.set()
        thread.join()


def _high_water(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
