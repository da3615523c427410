"""Dead letters: records that can never be processed, and the breaker that stops us from making too many."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from damagewatch.broker.record import Headers, OutgoingRecord, Record
from damagewatch.domain import Reason, Refused

REASON = "dlq-reason"
DETAIL = "dlq-detail"
STAGE = "dlq-stage"
ORIGIN_TOPIC = "dlq-origin-topic"
ORIGIN_TOPIC_ID = "dlq-origin-topic-id"
ORIGIN_PARTITION = "dlq-origin-partition"
ORIGIN_OFFSET = "dlq-origin-offset"
ORIGIN_TIMESTAMP = "dlq-origin-timestamp-ms"
ORIGIN_CONTENT_TYPE = "dlq-origin-content-type"
SHA256 = "dlq-value-sha256"
SIZE = "dlq-value-bytes"
VERSION = "dlq-damagewatch-version"

_MAX_DETAIL = 500
_MAX_KEY = 1024
_MAX_CONTENT_TYPE = 200


Message = tuple[bytes, Headers]
"""A small value about a record, and the headers that say what it is."""

MakeMessage = Callable[[Record, Refused, str], Message]
"""Makes one of a record, why it was refused, and the SHA-256 of its value (empty where it has none)."""


def _empty(_record: Record, _refused: Refused, _sha256: str) -> Message:
    return b"", ()


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Writes dead letters for `topic`, signed with our `version`; `message` makes the value of one."""

    topic: str
    version: str
    message: MakeMessage = _empty

    def of(self, record: Record, refused: Refused, message: MakeMessage | None = None) -> OutgoingRecord:
        """The dead letter of a record: why, where it lies, and its checksum, but never the photo.

        Key: the record's own (cut at 1 kB), so that the letters of a claim lie together. Header values are
        UTF-8 text, numbers in decimal. A `message` is given where more is known than the record tells.
        """
        sha256 = hashlib.sha256(record.value).hexdigest() if record.value is not None else ""
        value, headers = (message or self.message)(record, refused, sha256)
        content_type = (record.header("content-type") or b"")[:_MAX_CONTENT_TYPE]
        told = {
            REASON: refused.reason.value,
            DETAIL: " ".join(refused.detail.split())[:_MAX_DETAIL],
            STAGE: refused.stage,
            ORIGIN_TOPIC: record.topic,
            ORIGIN_TOPIC_ID: record.topic_id,
            ORIGIN_PARTITION: str(record.partition),
            ORIGIN_OFFSET: str(record.offset),
            ORIGIN_TIMESTAMP: str(record.timestamp_ms),
            ORIGIN_CONTENT_TYPE: content_type.decode("utf-8", errors="replace"),
            SHA256: sha256,
            SIZE: str(len(record.value)) if record.value is not None else "",
            VERSION: self.version,
        }
        ours = tuple((name, text.encode("utf-8", errors="replace")) for name, text in told.items() if text)
        key = None if record.key is None else record.key[:_MAX_KEY]
        return OutgoingRecord(self.topic, key, value, headers + ours)

    def unreadable(self, record: Record) -> OutgoingRecord:
        """The dead letter of a record that the Kafka client itself could not read."""
        return self.of(record, Refused(Reason.MESSAGE_UNREADABLE, record.defect, "consume"))


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When dead letters stop being the senders' fault and start to look like ours.

    Within `window` seconds: more than `failed_limit` records that our own code could not process
    (PROCESSING_FAILED), or more than `limit` dead letters of any reason, and in both cases more than the
    fraction `ratio` of all records. The second limit is high, since a sender may well send a bad batch; the
    first is low, since our own failures come from a broken deployment.
    """

    window: float = 60.0
    ratio: float = 0.8
    limit: int = 1000
    failed_limit: int = 50

    def __post_init__(self) -> None:
        if not (self.window > 0 and 0 < self.ratio <= 1 and self.limit >= 1 and self.failed_limit >= 1):
            raise ValueError(f"breaker policy out of range: {self}")


_Tally = tuple[int, int, int]
"""Records, dead letters among them, and among those our own failures."""


class Breaker:
    """Trips when too much becomes a dead letter, and stays tripped until the process is restarted.

    It does not probe: what makes nearly every record fail is a broken deployment, mended by another
    deployment, or a sender gone wild, of which a person decides what to do. Probing would spend photos on
    finding that out. What was dead-lettered before it tripped can be replayed.

    Thread safe: consumers of one process share one, and all stop when it trips.
    """

    def __init__(self, policy: BreakerPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, _Tally]] = deque()
        self._tripped = ""

    @property
    def tripped(self) -> str:
        """Why it tripped, in one line for a person; empty while it has not."""
        return self._tripped

    def trips(self, outcomes: Iterable[Reason | None]) -> bool:
        """Whether it is tripped, at the latest by these outcomes of records (None: processed).

        They are not counted yet: `count` them once they are committed.
        """
        with self._lock:
            if not self._tripped:
                self._tripped = self._too_many(_tally(outcomes))
            return bool(self._tripped)

    def count(self, outcomes: Iterable[Reason | None]) -> None:
        """Counts outcomes that were committed."""
        with self._lock:
            self._seen.append((self._clock(), _tally(outcomes)))

    def _too_many(self, coming: _Tally) -> str:
        oldest = self._clock() - self._policy.window
        while self._seen and self._seen[0][0] < oldest:
            self._seen.popleft()
        records, letters, failures = map(sum, zip(coming, *(tally for _, tally in self._seen), strict=True))
        for number, limit, what in (
            (failures, self._policy.failed_limit, "failed in our own code"),
            (letters, self._policy.limit, "became dead letters"),
        ):
            if number > limit and number > self._policy.ratio * records:
                return f"{number} of {records} records of the last {self._policy.window:g} s {what}"
        return ""


def _tally(outcomes: Iterable[Reason | None]) -> _Tally:
    reasons = list(outcomes)
    dead = [reason for reason in reasons if reason is not None]
    return len(reasons), len(dead), dead.count(Reason.PROCESSING_FAILED)
