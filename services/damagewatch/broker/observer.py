"""What the stream tells about itself, for metrics, health and logs. Everything is told on the poll thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, cast

from damagewatch.domain import Reason


class Observer(Protocol):
    """Told what happens on the stream. None of the methods may raise or wait."""

    def polled(self) -> None:
        """The loop is alive: told at least once a second while it runs, paused or not."""

    def records_in(self, count: int, size: int) -> None:
        """`count` records of `size` bytes in all were delivered to us."""

    def in_flight(self, count: int, size: int) -> None:
        """So many records, and bytes of them, are delivered and not finished."""

    def committed(self, records: int, outputs: Mapping[str, int], seconds: float) -> None:
        """A transaction was committed: records covered, outputs by topic, duration."""

    def dead_lettered(self, reasons: Mapping[Reason, int]) -> None:
        """Dead letters that were committed, by reason."""

    def aborted(self, detail: str) -> None:
        """A transaction failed or its fate is unknown. The records will be read again."""

    def stale(self, count: int) -> None:
        """So many results were dropped because their partition had been taken from us meanwhile."""

    def assigned(self, partitions: int) -> None:
        """The group was rebalanced, and other partitions, so many, are ours now."""

    def waiting_for(self, dependency: str) -> None:
        """A dependency did not answer (`domain.DependencyDownError`); it is tried again after a pause."""

    def paused(self, detail: str, seconds: float) -> None:
        """Nothing is taken for `seconds` (infinity: until restarted), because of `detail`."""

    def resumed(self) -> None:
        """Records are taken again."""

    def lag(self, lags: Mapping[int, int], oldest_seconds: float) -> None:
        """Records not yet committed by partition, and the age of the oldest that we know of."""


class _Silence:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


SILENCE = cast(Observer, _Silence())
"""Tells nobody."""
