"""What is published because of a record: detections and alerts, a dead letter, or an erasure's receipt."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from damagewatch.broker.deadletter import DeadLetters, Message
from damagewatch.broker.record import OutgoingRecord, Record
from damagewatch.contracts import codec
from damagewatch.domain import Alert, ClaimImage, Detections, Erasure, Refused
from damagewatch.matcher.strategy import Done


class TopicOutputs:
    """Writes verdicts as records of their topics, keyed by the claim's id."""

    def __init__(self, *, detections: str, alerts: str, dead_letters: DeadLetters) -> None:
        """Takes the topics' names, and who writes dead letters."""
        self._detections = detections
        self._alerts = alerts
        self._dead_letters = dead_letters

    def __call__(self, done: Done) -> tuple[OutgoingRecord, ...]:
        """See `damagewatch.matcher.strategy.Outputs`."""
        match done.verdict:
            case Refused() as refused:
                message = partial(_letter, version=self._dead_letters.version, image=done.image)
                return (self._dead_letters.of(done.record, refused, message),)
            case Erasure() as receipt:
                return (_record(self._detections, receipt.claim_id, receipt),)
            case decided:
                found = decided.detections
                return (
                    _record(self._detections, found.photo.claim_id, found),
                    *(_record(self._alerts, alert.query.claim_id, alert) for alert in decided.alerts),
                )


def dead_letters(topic: str, version: str) -> DeadLetters:
    """Dead letters whose value is the DeadLetter message, also of records that never came into the pipeline."""
    return DeadLetters(topic, version, partial(_letter, version=version))


def _letter(
    record: Record, refused: Refused, sha256: str, *, version: str, image: ClaimImage | None = None
) -> Message:
    letter = codec.DeadLetter(
        reason=refused.reason,
        detail=refused.detail,
        stage=refused.stage,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        sha256=sha256,
        size=len(record.value or b""),
        version=version,
        refused_at=datetime.now(UTC),
        tenant=image.tenant if image else "",
        claim_id=image.claim_id if image else "",
        photo_id=image.photo_id if image else "",
    )
    return codec.encode(letter), tuple(codec.headers_of(letter))


def _record(topic: str, claim_id: str, value: Detections | Alert | Erasure) -> OutgoingRecord:
    return OutgoingRecord(topic, claim_id.encode(), codec.encode(value), tuple(codec.headers_of(value)))
