"""Kafka stops, Kafka dies and comes back, the index fails: the matcher pauses, lives, and goes on by itself."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]

from damagewatch.broker.development import DevelopmentKafka

from .flaky_matcher import SWITCH
from .kills import compare, undisturbed
from .outcome import Outcome, read
from .photos import TrialSet
from .stand import MATCHER, Matcher, Stand, Stream, Tell
from .verdict import Verdict

Outage = Callable[[], None]
"""Breaks something, waits, and mends it."""
VARIANTS = ("broker-hangs", "broker-dies", "index-fails")
BEGIN = 0.25
"""Share of the stream that is done when the outage begins."""
RECOVERY_SECONDS = 60.0


@dataclass(slots=True)
class Watch:
    """What the probes said, asked twice a second."""

    livez: list[int] = field(default_factory=list)
    readyz: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    paused: list[bool] = field(default_factory=list)


def run(
    stand: Stand,
    broker: DevelopmentKafka,
    photos: TrialSet,
    seconds: float,
    variants: list[str],
    partitions: int,
    tell: Tell,
) -> Verdict:
    """The stream undisturbed, then once with each outage of so many seconds."""
    verdict = Verdict(
        "outages", {"photos": len(photos.photos), "planted": len(photos.planted), "seconds": seconds}
    )
    calm, _ = undisturbed(stand, photos, partitions, tell)
    down = stand.folder / "index-is-down"

    def hang() -> None:
        process = psutil.Process(broker.status().pid)
        process.suspend()
        try:
            time.sleep(seconds)
        finally:
            process.resume()

    def die() -> None:
        process = psutil.Process(broker.status().pid)
        process.kill()
        process.wait(10)
        time.sleep(seconds)
        broker.up()

    def fail() -> None:
        down.touch()
        try:
            time.sleep(seconds)
        finally:
            down.unlink()

    outages = dict(zip(VARIANTS, (hang, die, fail), strict=True))
    for variant in variants:
        module = ("trials.flaky_matcher",) if variant == "index-fails" else MATCHER
        stream = stand.stream(variant, partitions)
        with Matcher(stream, module, {SWITCH: str(down)}) as matcher:
            part = _one(stream, matcher, variant, outages[variant], photos, calm, tell)
        verdict.tables.extend(part.tables)
        for check in part.checks:
            verdict.check(f"{variant}: {check.what}", check.found, check.bar, check.ok)
    return verdict


def _one(
    stream: Stream,
    matcher: Matcher,
    variant: str,
    outage: Outage,
    photos: TrialSet,
    calm: Outcome,
    tell: Tell,
) -> Verdict:
    part, total = Verdict(variant), len(photos.photos)
    stream.publish(photos.photos)
    done = stream.wait(matcher, max(1, round(BEGIN * total)), tell)
    part.check("records committed before the outage", done, f"< {total}", done < total)
    tell(f"{variant}: the outage begins")
    with _watched(matcher) as watch:
        outage()
        tell(f"{variant}: the outage is over")
        mended = time.monotonic()
        stream.wait(matcher, done + 1)
        again = time.monotonic() - mended
        stream.wait(matcher, total, tell)
        _wait_for(lambda: watch.paused[-1:] == [False])
    alive = matcher.alive
    code = matcher.stop()
    part.check("the process lives", alive, "yes", alive)
    bad = [status for status in watch.livez if status != 200]
    part.check(f"/livez other than 200, of {len(watch.livez)}", len(bad), "0", not bad)
    named = sorted(set(watch.problems))
    part.table(f"What /readyz told ({variant})", ("problem",), [(problem,) for problem in named])
    part.check("problems that /readyz named", len(named), ">= 1", bool(named))
    part.check("times that damagewatch_paused was 1", sum(watch.paused), ">= 1", any(watch.paused))
    part.check("damagewatch_paused at the end", int(watch.paused[-1]), "0", not watch.paused[-1])
    soon = again < RECOVERY_SECONDS
    part.check("seconds until the next commit", round(again, 1), f"< {RECOVERY_SECONDS:g}", soon)
    part.check("exit code after SIGTERM at the end", code, "0", code == 0)
    compare(part, photos, calm, read(stream))
    return part


@contextmanager
def _watched(matcher: Matcher) -> Iterator[Watch]:
    watch, stop = Watch(), threading.Event()

    def ask() -> None:
        while not stop.wait(0.5):
            watch.livez.append(matcher.ask("/livez")[0])
            status, body = matcher.ask("/readyz")
            watch.readyz.append(status)
            if status:
                watch.problems.extend(re.sub(r"[\d.]+", "#", text) for text in json.loads(body)["problems"])
            _, metrics = matcher.ask("/metrics")
            if value := re.search(r"^damagewatch_paused (\S+)", metrics, re.MULTILINE):
                watch.paused.append(float(value[1]) > 0)

    thread = threading.Thread(target=ask, name="watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()


def _wait_for(true: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.2)
