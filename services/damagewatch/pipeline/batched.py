"""A stage that works on micro-batches, one at a time and in order, on a thread of its own.

A batch goes when it holds `max_items` or `max_bytes`, when the worker is idle and the oldest item has waited
`max_age`, or when the stage is closed. So a quiet stream is answered soon and a busy one in full batches.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from damagewatch.pipeline.stage import StageFull

In = TypeVar("In")
Out = TypeVar("Out")


class BatchedStage(Generic[In, Out]):
    """Applies `work` to batches of items; `work` gives one result an item, in order.

    At most one batch is being worked on and one more is being filled, so that the stage is bounded by twice
    the limits. `max_age` is in seconds; `size_of` gives an item's bytes.
    """

    def __init__(
        self,
        work: Callable[[Sequence[In]], Sequence[Out]],
        *,
        max_items: int,
        max_bytes: int,
        max_age: float,
        size_of: Callable[[In], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._bytes = 0
        self._max_age = max_age
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._waiting: deque[In] = deque()
        self._oldest = 0.0
        self._batch: tuple[int, Future[Sequence[Out]]] | None = None
        self._closed = False

    def submit(self, item: In) -> None:
        """See `Stage`."""
        if self._full():
            raise StageFull
        if not self._waiting:
            self._oldest = self._clock()
        self._waiting.append(item)
        self._bytes += self._size_of(item)

    def poll(self) -> Sequence[Out]:
        """See `Stage`."""
        finished: Sequence[Out] = ()
        if self._batch is not None and self._batch[1].done():
            size, future = self._batch
            self._batch = None
            finished = future.result()
            if len(finished) != size:
                raise RuntimeError(f"a batch of {size} items gave {len(finished)} results")
        self._start()
        return finished

    def _full(self) -> bool:
        return len(self._waiting) >= self._max_items or self._bytes >= self._max_bytes

    def _start(self) -> None:
        if self._batch is not None or not self._waiting:
            return
        due = self._closed or self._full() or self._clock() - self._oldest >= self._max_age
        if due:
            batch = tuple(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            self._batch = (len(batch), self._pool.submit(self._work, batch))

    def close(self) -> None:
        """See `Stage`."""
        self._closed = True
        self._start()

    def join(self, timeout: float) -> Sequence[Out]:
        """See `Stage`."""
        deadline = time.monotonic() + timeout
        finished = list(self.poll())
        while self._batch is not None and (left := deadline - time.monotonic()) > 0:
            wait([self._batch[1]], timeout=left)
            finished.extend(self.poll())
        self.terminate()
        return finished

    def terminate(self) -> None:
        """See `Stage`."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._waiting.clear()
        self._batch = None
