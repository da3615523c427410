"""Every dead letter holds a message that its readers can read, whoever found the record wanting."""

from __future__ import annotations

from datetime import UTC, datetime

from damagewatch.broker.record import OutgoingRecord, Record
from damagewatch.contracts import codec
from damagewatch.domain import ClaimImage, Reason, Refused
from damagewatch.matcher.outputs import TopicOutputs, dead_letters
from damagewatch.matcher.strategy import Done

LETTERS = dead_letters("dlq", "1.2.3")


def read(letter: OutgoingRecord) -> codec.DeadLetter:
    assert letter.value is not None
    return codec.decode_dead_letter(letter.value, letter.headers)


def test_of_a_record_that_the_client_could_not_read() -> None:
    record = Record("images", 3, 42, -1, None, None, (), 1, defect="CorruptRecordError: checksum")
    told = read(LETTERS.unreadable(record))
    assert (told.reason, told.detail) == (Reason.MESSAGE_UNREADABLE, record.defect)
    assert (told.topic, told.partition, told.offset, told.version) == ("images", 3, 42, "1.2.3")
    assert (told.claim_id, told.photo_id, told.sha256, told.size) == ("", "", "", 0)


def test_of_a_photo_with_its_names() -> None:
    record = Record("images", 0, 7, 0, b"claim", b"bytes", (), 1)
    outputs = TopicOutputs(detections="detections", alerts="alerts", dead_letters=LETTERS)
    refused = Refused(Reason.TRUNCATED, "short", "decode")
    (letter,) = outputs(Done(record, refused, ClaimImage("t", "claim", "photo")))
    told = read(letter)
    assert (told.tenant, told.claim_id, told.photo_id, told.size) == ("t", "claim", "photo", 5)
    assert abs((datetime.now(UTC) - told.refused_at).total_seconds()) < 60
