"""Whether the process hangs (live) and whether it has begun to work (ready).

Neither looks at Kafka, the index or the lag: a restart mends none of them, and pods that turn unready all at
once block every roll-out and drain. What is wrong there is told as a problem in the same answers, and by the
metrics.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """An answer: `reasons` say why not, `problems` what is wrong beside that."""

    ok: bool
    reasons: tuple[str, ...]
    problems: tuple[str, ...]


class Health:
    """Told by the threads that poll, asked by the server's. Thread safe.

    Args:
        heartbeat_timeout: seconds without `beat` after which a polling thread counts as hanging; more than
            the longest batch.
        clock: seconds, monotonic.
    """

    def __init__(self, heartbeat_timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = heartbeat_timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[str, float] = {}
        self._stopping = False
        self._tripped = ""
        self._problems: dict[str, str] = {}

    def beat(self, consumer: str = "") -> None:
        """A polling thread has come round again. The first beat says that the start-up is over."""
        self._beats[consumer] = self._clock()

    def stop(self) -> None:
        """The process was asked to end and is finishing its work."""
        self._stopping = True

    def trip(self, detail: str) -> None:
        """Nothing is taken any more until a person has looked: not ready from now on."""
        self._tripped = detail

    def problem(self, name: str, detail: str | None) -> None:
        """Something that is told without tripping a probe, or (None) that it is over."""
        with self._lock:
            if detail is None:
                self._problems.pop(name, None)
            else:
                self._problems[name] = detail

    def live(self) -> Report:
        """Whether the polling thread still comes round; yes as long as it has not begun."""
        return self._report(self._hanging())

    def ready(self) -> Report:
        """Whether the start-up is over, the polling thread comes round, nothing tripped and nobody asked to stop."""
        reasons = list(self._hanging())
        if not self._beats:
            reasons.append("starting")
        if self._tripped:
            reasons.append(self._tripped)
        if self._stopping:
            reasons.append("stopping")
        return self._report(tuple(reasons))

    def _hanging(self) -> tuple[str, ...]:
        ages = [self._clock() - beat for beat in self._beats.copy().values()]
        if not ages or (age := max(ages)) <= self._timeout:
            return ()
        return (f"no poll for {age:.0f} s; at most {self._timeout:.0f} s are allowed",)

    def _report(self, reasons: tuple[str, ...]) -> Report:
        with self._lock:
            problems = tuple(f"{name}: {detail}" for name, detail in self._problems.items())
        return Report(not reasons, reasons, problems)
