"""What the stream processor hands records to: five verbs, after the strategies of getsentry/arroyo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from damagewatch.broker.record import Processed, Record


class Backpressure(Exception):
    """The strategy holds as much as it may. The record was not taken: poll, then submit it again."""


class Strategy(Protocol):
    """Turns records into results. One thread calls all five verbs; the work may be done on others.

    For every record taken exactly one `Processed` comes back, from `poll` or `join`, and within a partition
    in the order in which the records were submitted. A record that can never work is no exception but a
    result: its dead letter, with `refused` set. The strategy's own bugs are dead letters as well
    (`Reason.PROCESSING_FAILED`); any other exception that comes out of here ends the process.
    """

    def submit(self, record: Record) -> None:
        """Takes a record and returns at once: it must not wait for the work to be done.

        That it returned does not say that the record was processed, only that it was taken.

        Raises:
            Backpressure: the record was not taken.
            DependencyDownError: something that all work needs does not answer.
        """
        ...

    def poll(self) -> Sequence[Processed]:
        """What is finished since the last call. Must not wait.

        Raises:
            DependencyDownError: something does not answer. All records inside are given up: `terminate`
                follows, and a new strategy gets them again from the last committed offset.
        """
        ...

    def close(self) -> None:
        """No more records will come; what is inside goes on. Must not wait."""
        ...

    def join(self, timeout: float) -> Sequence[Processed]:
        """After `close`: what was finished within `timeout` seconds. The rest is dropped.

        May wait, for `timeout` seconds at most.

        Raises:
            DependencyDownError: as in `poll`.
        """
        ...

    def terminate(self) -> None:
        """Drops all that is inside, at once. Nothing may be raised. The strategy is of no use afterwards."""
        ...
