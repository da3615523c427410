"""Which records were delivered to us, which are finished, and up to where offsets may be committed.

Offsets have gaps: transaction markers, aborted records and compaction leave holes. So the ledger counts
*deliveries*: after a finished record the offset to commit is the one of the record delivered next, and only
where none was delivered yet the record's own offset plus one. Nothing is ever inferred from distance.

Results leave in the order in which they were finished, over all partitions. A photo that was judged first may
be in the verdict of a later one; if the later one alone were committed before a crash, the first, judged anew,
would find it, and their pair would be alerted twice.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from damagewatch.broker.record import Partition, Processed, Record


@dataclass(slots=True)
class _Delivery:
    offset: int
    timestamp_ms: int
    size: int
    result: Processed | None = None
    turn: int = 0
    """Which result it was of all that were finished."""


@dataclass(slots=True)
class _Account:
    """The open deliveries of one leased partition, in the order of delivery."""

    lease: int
    open: deque[_Delivery] = field(default_factory=deque)
    by_offset: dict[int, _Delivery] = field(default_factory=dict)
    last: int = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """Results whose turn has come, and the offsets that commit exactly them."""

    results: tuple[Processed, ...]
    offsets: Mapping[Partition, int]


class Ledger:
    """The books of all partitions that are leased to us."""

    def __init__(self) -> None:
        self._accounts: dict[Partition, _Account] = {}
        self._turns = itertools.count()

    def lease(self, leases: Mapping[Partition, int]) -> None:
        """Takes over the current leases. What was booked under any other lease is forgotten."""
        self._accounts = {
            source: self._accounts[source]
            if source in self._accounts and self._accounts[source].lease == lease
            else _Account(lease)
            for source, lease in leases.items()
        }

    def deliver(self, record: Record) -> bool:
        """Books a record as delivered. False where its lease is stale: then it must not be worked on.

        Raises:
            ValueError: offsets of one lease do not rise, so records would be committed that were not seen.
        """
        account = self._accounts.get(record.source)
        if account is None or account.lease != record.lease:
            return False
        if record.offset <= account.last:
            raise ValueError(f"{record.source}: offset {record.offset} delivered after {account.last}")
        delivery = _Delivery(record.offset, record.timestamp_ms, record.size)
        account.open.append(delivery)
        account.by_offset[record.offset] = delivery
        account.last = record.offset
        return True

    def finish(self, result: Processed) -> bool:
        """Books a result. False where its lease is stale: then it is void, and its outputs must not go out.

        Raises:
            ValueError: the record was never delivered, or is already finished.
        """
        account = self._accounts.get(result.source)
        if account is None or account.lease != result.lease:
            return False
        delivery = account.by_offset.pop(result.offset, None)
        if delivery is None:
            raise ValueError(f"{result.source}: offset {result.offset} finished, but it is not open")
        delivery.result, delivery.turn = result, next(self._turns)
        return True

    def take(self, max_results: int, max_bytes: int) -> Batch:
        """Removes and returns finished results that have no unfinished record before them, first finished first.

        At most `max_results`, and as long as their outputs fit into `max_bytes`, but always at least one
        where there is one.
        """
        results: list[Processed] = []
        offsets: dict[Partition, int] = {}
        size = 0
        while ready := [a for a in self._accounts.values() if a.open and a.open[0].result is not None]:
            account = min(ready, key=lambda account: account.open[0].turn)
            result = account.open[0].result
            assert result is not None
            if results and (len(results) >= max_results or size + result.size > max_bytes):
                break
            account.open.popleft()
            results.append(result)
            size += result.size
            offsets[result.source] = account.open[0].offset if account.open else result.offset + 1
        return Batch(tuple(results), offsets)

    def clear(self) -> None:
        """Forgets all deliveries; the leases stay. For when every partition is sought back."""
        for account in self._accounts.values():
            account.open.clear()
            account.by_offset.clear()
            account.last = -1

    def ready(self) -> tuple[int, int]:
        """How many results `take` could return, and the bytes of their outputs."""
        count = size = 0
        for account in self._accounts.values():
            for delivery in account.open:
                if delivery.result is None:
                    break
                count += 1
                size += delivery.result.size
        return count, size

    @property
    def in_flight(self) -> int:
        """Records delivered and not finished."""
        return sum(len(account.by_offset) for account in self._accounts.values())

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of keys and values of the records delivered and not finished."""
        return sum(d.size for account in self._accounts.values() for d in account.by_offset.values())

    @property
    def oldest_timestamp_ms(self) -> int | None:
        """When the oldest record that is delivered and not taken was written, or None."""
        return min((a.open[0].timestamp_ms for a in self._accounts.values() if a.open), default=None)
