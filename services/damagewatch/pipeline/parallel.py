"""A stage that works on several items at once, on threads, and gives the results back in order.

Threads and not processes: decoding, ONNX Runtime and BLAS all let go of the interpreter's lock, and two
threads measured as fast as two processes, which would each need the models in memory.
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


class ParallelStage(Generic[In, Out]):
    """Applies `work` to each item on one of `threads` threads.

    Holds at most `max_items` items and, once it holds one, `max_bytes` bytes; `size_of` gives an item's.
    """

    def __init__(
        self,
        work: Callable[[In], Out],
        *,
        threads: int,
        max_items: int,
        max_bytes: int,
        size_of: Callable[[In], int],
    ) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="photo")
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._under_way: deque[tuple[int, Future[Out]]] = deque()
        self._bytes = 0

    @property
    def items(self) -> int:
        """How many are inside."""
        return len(self._under_way)

    def submit(self, item: In) -> None:
        """See `Stage`."""
        size = self._size_of(item)
        if self._under_way and (
            len(self._under_way) >= self._max_items or self._bytes + size > self._max_bytes
        ):
            raise StageFull
        self._under_way.append((size, self._pool.submit(self._work, item)))
        self._bytes += size

    def poll(self) -> Sequence[Out]:
        """See `Stage`."""
        finished: list[Out] = []
        while self._under_way and self._under_way[0][1].done():
            size, future = self._under_way.popleft()
            self._bytes -= size
            finished.append(future.result())
        return finished

    def close(self) -> None:
        """See `Stage`."""
        self._pool.shutdown(wait=False)

    def join(self, timeout: float) -> Sequence[Out]:
        """See `Stage`."""
        deadline = time.monotonic() + timeout
        finished = list(self.poll())
        while self._under_way and (left := deadline - time.monotonic()) > 0:
            wait([self._under_way[0][1]], timeout=left)
            finished.extend(self.poll())
        self.terminate()
        return finished

    def terminate(self) -> None:
        """See `Stage`."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._under_way.clear()
        self._bytes = 0

    def settle(self) -> None:
        """After `terminate`: waits until the work that was under way has ended unheard."""
        self._pool.shutdown(wait=True)
