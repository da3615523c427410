"""What came out of a stream, read as any reader outside sees it: committed records, each as often as it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from damagewatch.broker import deadletter
from damagewatch.broker.reader import TopicReader
from damagewatch.broker.record import Record
from damagewatch.contracts import codec, topics
from damagewatch.domain import Alert, Erasure, Refused
from damagewatch.synthesis.expectations import PhotoKey

from .stand import Stream

RECEIPT = b"damagewatch.v1.Erasure"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: why, of which photo as far as that is known, and where the record lies."""

    reason: str
    detail: str
    stage: str
    photo: PhotoKey
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was published, in no order."""

    detections: tuple[PhotoKey, ...]
    letters: tuple[Letter, ...]
    alerts: tuple[Alert, ...]
    receipts: tuple[Erasure, ...]

    @property
    def alert_ids(self) -> frozenset[UUID]:
        """Without repeats."""
        return frozenset(alert.alert_id for alert in self.alerts)

    @property
    def doubled_alerts(self) -> int:
        """Alert records beyond the first of their id."""
        return len(self.alerts) - len(self.alert_ids)

    def missing(self, photos: Iterable[PhotoKey]) -> list[PhotoKey]:
        """Photos of which there are neither detections nor a dead letter."""
        heard = self._heard()
        return [photo for photo in photos if not heard[photo]]

    def doubled(self) -> list[PhotoKey]:
        """Photos of which there is more than one of both."""
        return [photo for photo, times in self._heard().items() if times > 1]

    def _heard(self) -> Counter[PhotoKey]:
        return Counter(self.detections) + Counter(letter.photo for letter in self.letters)


def read(stream: Stream) -> Outcome:
    """Reads the three topics from their beginning to their end."""
    detections: list[PhotoKey] = []
    receipts: list[Erasure] = []
    for record in TopicReader(stream.options, stream.topics.detections).read():
        if record.header(topics.MESSAGE_TYPE) == RECEIPT:
            receipts.append(codec.decode_erasure(record.value or b"", record.headers))
        else:
            photo = codec.decode_detections(record.value or b"", record.headers).photo
            detections.append((photo.claim_id, photo.photo_id))
    alerts = [
        codec.decode_alert(record.value or b"", record.headers)
        for record in TopicReader(stream.options, stream.topics.alerts).read()
    ]
    letters = [_letter(record) for record in TopicReader(stream.options, stream.topics.dead_letters).read()]
    return Outcome(tuple(detections), tuple(letters), tuple(alerts), tuple(receipts))


def _letter(record: Record) -> Letter:
    def told(name: str) -> str:
        return (record.header(name) or b"").decode()

    try:
        value = codec.decode_dead_letter(record.value or b"", record.headers)
        photo = value.claim_id, value.photo_id
    except Refused:  # of a record that the Kafka client could not read, the letter is headers alone
        photo = "", ""
    return Letter(
        reason=told(deadletter.REASON),
        detail=told(deadletter.DETAIL),
        stage=told(deadletter.STAGE),
        photo=photo,
        partition=int(told(deadletter.ORIGIN_PARTITION)),
        offset=int(told(deadletter.ORIGIN_OFFSET)),
    )
