"""What can go wrong with Kafka, sorted by what to do about it.

Most of it passes: `domain.DependencyDownError("kafka", ...)`, worth trying again after a while. The two
below are not worth trying again as they are.
"""

from __future__ import annotations

from kafka.errors import (
    FencedInstanceIdError,
    InvalidRecordError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from damagewatch.broker.record import Partition
from damagewatch.domain import DependencyDownError


class FencedError(Exception):
    """Another worker of our name took our place in the group: end the process, and do not leave the group."""


class OutputRefusedError(Exception):
    """Kafka never takes this output (too large, invalid), which came of `source` and `offset`."""

    def __init__(self, source: Partition, offset: int, detail: str) -> None:
        super().__init__(f"{source.topic}[{source.number}]@{offset}: {detail}")
        self.source = source
        self.offset = offset
        self.detail = detail


NEVER_TAKEN = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError)
"""What kafka-python raises for a record that will never be accepted."""


def sorted_out(error: KafkaError, doing: str) -> DependencyDownError | FencedError:
    """What to raise instead of an error of kafka-python that came up while `doing` something."""
    if isinstance(error, FencedInstanceIdError):
        return FencedError(f"{doing}: another worker has taken this worker's place in the group")
    text = str(error) or type(error).__name__
    if isinstance(error, KafkaTimeoutError) and "bootstrap" in text:
        # What kafka-python says of a broker that hangs up on a wrong password as of one that is not there.
        text += " (it cannot be reached, or refuses our user, password or certificate)"
    told = text if text.startswith(type(error).__name__) else f"{type(error).__name__}: {text}"
    return DependencyDownError("kafka", f"{doing}: {told}")
