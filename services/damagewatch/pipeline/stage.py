"""What a stage is: five verbs, after the processing strategies of getsentry/arroyo.

One thread, the *driver*, calls all five. A stage may work on threads of its own, but it hands results out
only in `poll` and `join`, in the order in which their items were submitted: whoever commits offsets relies
on that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


class StageFull(Exception):
    """The stage holds as much as it may: poll it, then submit the same item again."""


class Stage(Protocol[In_contra, Out_co]):
    """A step that takes items and gives results, one for each item, in the same order."""

    def submit(self, item: In_contra) -> None:
        """Takes an item and returns at once. That it returned does not say that the item was processed.

        Raises:
            StageFull: the item was not taken.
        """
        ...

    def poll(self) -> Sequence[Out_co]:
        """What is finished since the last call. Never waits.

        Raises:
            Exception: whatever the work raised. The stage is then of no use any more: `terminate` it.
        """
        ...

    def close(self) -> None:
        """No more items will come; what is inside goes on. Never waits."""
        ...

    def join(self, timeout: float) -> Sequence[Out_co]:
        """After `close`: what was finished within `timeout` seconds; the rest is dropped."""
        ...

    def terminate(self) -> None:
        """Drops everything inside, at once. Work under way on a thread ends unheard."""
        ...
