"""The values that travel through this package: what came in, what goes out, what belongs together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from damagewatch.domain import Reason

Headers = tuple[tuple[str, bytes], ...]


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was delivered to us.

    `lease` is the token of the assignment under which it came: once its partition was taken from us, even if
    it came back, the token is another and whatever was made of the record is void. `topic_id` is the broker's
    UUID of the topic (KIP-516). `defect` is empty, or says why the client could not read the record at all
    (broken checksum, header that is no UTF-8 ...); such a record has neither key nor value.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    lease: int
    topic_id: str = ""
    defect: str = ""

    @property
    def source(self) -> Partition:
        """Where it lies."""
        return Partition(self.topic, self.partition)

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")

    def header(self, name: str) -> bytes | None:
        """The last header called `name`, which is the one that counts in Kafka."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """A record to publish. The key chooses the partition; without a value it is a tombstone."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of one record: everything to publish because of it, perhaps nothing.

    `refused` names the reason where the record ended as a dead letter, which then is among the `outputs`.
    """

    source: Partition
    offset: int
    lease: int
    outputs: tuple[OutgoingRecord, ...] = ()
    refused: Reason | None = None

    @classmethod
    def of(
        cls, record: Record, outputs: tuple[OutgoingRecord, ...] = (), refused: Reason | None = None
    ) -> Processed:
        """The result of `record`."""
        return cls(record.source, record.offset, record.lease, outputs, refused)

    @property
    def size(self) -> int:
        """Bytes of all outputs."""
        return sum(output.size for output in self.outputs)
