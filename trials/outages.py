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
from .stand import MATCHER, Matcher, Stand, Tell
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
    stand: Stand, broker: DevelopmentKafka, photos: TrialSet, seconds: float, variants: list[str], tell: Tell
) -> Verdict:
    """The stream undisturbed, then once with each outage of so many seconds."""
    verdict = Verdict(
        "outages", {"photos": len(photos.photos), "planted": len(photos.planted), "seconds": seconds}
    )
    calm, _ = undisturbed(stand, photos, tell)
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
        _one(stand, variant, module, {SWITCH: str(down)}, outages[variant], photos, calm, verdict, tell)
    return verdict


def _one(
    stand: Stand,
    variant: str,
    module: tuple[str, ...],
    environment: dict[str, str],
    outage: Outage,
    photos: TrialSet,
    calm: Outcome,
    verdict: Verdict,
    tell: Tell,
) -> None:
    total = len(photos.photos)
    stream = stand.stream(variant)
    stream.publish(photos.photos)
    part = Verdict(variant)
    with Matcher(stream, module, environment) as matcher:
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
    part.check(
        "/readyz named the problem",
        "; ".join(sorted(set(watch.problems)))[:100],
        "paused",
        bool(watch.problems),
    )
    part.check("damagewatch_paused was 1", sum(watch.paused), ">= 1 times", any(watch.paused))
    part.check("damagewatch_paused at the end", int(watch.paused[-1]), "0", not watch.paused[-1])
    part.check(
        "seconds from the mending to the next commit",
        round(again, 1),
        f"< {RECOVERY_SECONDS:g}",
        again < RECOVERY_SECONDS,
    )
    part.check("exit code after SIGTERM at the end", code, "0", code == 0)
    compare(part, photos, calm, read(stream))
    verdict.tables.extend(part.tables)
    for check in part.checks:
        verdict.check(f"{variant}: {check.what}", check.found, check.bar, check.ok)


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
