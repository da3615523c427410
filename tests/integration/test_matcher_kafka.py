"""The whole matcher on a real Kafka: its promises, each tried on two dozen drawn photos."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from trials.flaky_matcher import FlakyIndex
from trials.outcome import Outcome, read
from trials.photos import TrialSet
from trials.stand import Matcher, Stream, matching, wait_for

from damagewatch.assembly import load_models, open_index
from damagewatch.broker.record import OutgoingRecord
from damagewatch.contracts import codec
from damagewatch.demo import pair_of
from damagewatch.domain import ClaimImage, Reason
from damagewatch.matcher import service
from damagewatch.synthesis.broken_files import broken_files
from damagewatch.synthesis.expectations import Pair, PhotoKey

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

MakeStream = Callable[..., Stream]


@dataclass(frozen=True)
class Run:
    outcome: Outcome
    exit_code: int


@pytest.fixture(scope="module")
def undisturbed(make_stream: MakeStream, photos: TrialSet) -> Run:
    """On one partition: photos of several come in an order that is chance, and with it near misses."""
    stream = make_stream(partitions=1)
    stream.publish(photos.photos)
    with Matcher(stream) as matcher:
        stream.wait(matcher, len(photos.photos))
        code = matcher.stop()
    return Run(read(stream), code)


def keys(photos: TrialSet) -> list[PhotoKey]:
    return [photo.key for photo in photos.photos]


def pairs(outcome: Outcome) -> set[Pair]:
    return {pair_of(alert) for alert in outcome.alerts}


def test_every_return_is_alerted_once_and_every_photo_told_of_once(
    undisturbed: Run, photos: TrialSet
) -> None:
    outcome = undisturbed.outcome
    assert photos.planted <= pairs(outcome)
    assert outcome.doubled_alerts == 0
    assert outcome.missing(keys(photos)) == []
    assert outcome.doubled() == []
    assert outcome.letters == ()
    assert all(alert.query.claim_id != alert.match.claim_id for alert in outcome.alerts)


def test_it_ends_in_good_order_when_asked_to(undisturbed: Run) -> None:
    assert undisturbed.exit_code == 0


def test_killed_again_and_again_the_alerts_are_the_same(
    make_stream: MakeStream, photos: TrialSet, undisturbed: Run
) -> None:
    total = len(photos.photos)
    stream = make_stream(partitions=1)
    stream.publish(photos.photos)
    chance = random.Random(3)
    matcher = Matcher(stream)
    try:
        for records in (1, total // 3, total // 2):
            stream.wait(matcher, records)
            time.sleep(chance.uniform(0.0, 0.3))
            matcher.kill()
            matcher = Matcher(stream)
        stream.wait(matcher, total)
        assert matcher.stop() == 0
    finally:
        matcher.kill()
    outcome = read(stream)
    assert outcome.alert_ids == undisturbed.outcome.alert_ids
    assert outcome.doubled_alerts == 0
    assert outcome.missing(keys(photos)) == []
    assert outcome.doubled() == []
    assert stream.committed() == stream.published()


def test_while_the_index_fails_it_waits_and_then_goes_on(
    make_stream: MakeStream,
    photos: TrialSet,
    undisturbed: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    down = tmp_path / "down"
    monkeypatch.setattr(service, "open_index", lambda *given: FlakyIndex(open_index(*given), down))
    stream = make_stream(partitions=1)
    total = len(photos.photos)
    stream.publish(photos.photos)
    with matching(stream.settings):
        wait_for(lambda: stream.committed() > 0, "a first commit")
        down.touch()
        time.sleep(1)  # what had left the index before is committed now
        before = stream.committed()
        time.sleep(3)
        assert stream.committed() == before < total
        down.unlink()
        wait_for(lambda: stream.committed() == total, "the rest")
    outcome = read(stream)
    assert outcome.alert_ids == undisturbed.outcome.alert_ids
    assert outcome.doubled_alerts == 0
    assert outcome.missing(keys(photos)) == []
    assert outcome.doubled() == []


def test_an_erased_claim_is_gone_and_never_alerted_again(make_stream: MakeStream, photos: TrialSet) -> None:
    pair = sorted(photos.planted, key=sorted)[0]
    again, original = (photos.of(key) for key in sorted(pair))
    neighbour = next(photo for photo in photos.photos if photo.key not in pair)
    stream = make_stream()
    evidence = Path(stream.settings.evidence.url)
    with matching(stream.settings):
        stream.publish([original, neighbour])
        wait_for(lambda: stream.committed() == 2, "both photos")
        assert list(evidence.glob(f"*/{original.claim_id}/**/*.jpg"))
        stream.send([OutgoingRecord(stream.topics.images, original.claim_id.encode(), None)])
        wait_for(lambda: stream.committed() == 3, "the erasure")
        stream.publish([again])
        wait_for(lambda: stream.committed() == 4, "the photo that had been seen before")
    outcome = read(stream)
    (receipt,) = outcome.receipts
    assert receipt.claim_id == original.claim_id
    assert receipt.points >= 1
    assert receipt.crops >= 1
    assert not list(evidence.glob(f"*/{original.claim_id}/**/*.jpg"))
    assert list(evidence.glob(f"*/{neighbour.claim_id}/**/*.jpg"))
    assert original.claim_id not in {alert.match.claim_id for alert in outcome.alerts}
    models = load_models(stream.settings)
    with closing(open_index(stream.settings, models)) as index:
        assert index.erase(stream.settings.tenant, original.claim_id) == 0
        assert index.erase(stream.settings.tenant, neighbour.claim_id) >= 1


def test_two_consumers_that_share_an_index_miss_no_pair_between_them(
    make_stream: MakeStream, photos: TrialSet
) -> None:
    stream = make_stream()
    settings = stream.settings.model_copy(
        update={"matcher": stream.settings.matcher.model_copy(update={"consumers": 2})}
    )
    with matching(settings):
        wait_for(lambda: len(members(stream)) == 2, "both consumers")
        stream.publish(photos.photos)
        wait_for(lambda: stream.committed() == len(photos.photos), "all photos")
    outcome = read(stream)
    assert photos.planted <= pairs(outcome)
    assert outcome.doubled_alerts <= len(photos.planted)  # both may see a pair at once, under one id
    assert outcome.missing(keys(photos)) == []
    assert outcome.doubled() == []


def members(stream: Stream) -> list[str]:
    """Those of the group that have a partition."""
    client = KafkaAdminClient(**stream.options.admin_arguments())
    try:
        group = client.describe_groups([stream.settings.kafka.group])[stream.settings.kafka.group]
    finally:
        client.close()
    assigned = [member for member in group["members"] if member["member_assignment"]]
    return [member["group_instance_id"] for member in assigned] if group["group_state"] == "Stable" else []


def test_what_is_broken_is_told_with_claim_photo_and_reason_and_harms_nobody(
    make_stream: MakeStream, photos: TrialSet
) -> None:
    stream = make_stream()
    good = photos.photos[:4]
    broken = list(broken_files(good[0].path.read_bytes()))
    tenant, images = stream.settings.tenant, stream.topics.images
    records = [
        OutgoingRecord(
            images,
            b"broken",
            codec.encode(ClaimImage(tenant, "broken", each.name, each.content)),
        )
        for each in broken
    ]
    records[2:2] = [stream.record(photo) for photo in good]
    records += [
        OutgoingRecord(images, b"no-message", b"\xff\xff\xff"),
        OutgoingRecord(images, None, codec.encode(ClaimImage(tenant, "", "photo.jpg", b"x"))),
    ]
    with matching(stream.settings):
        stream.send(records)
        wait_for(lambda: stream.committed() == len(records), "all records")
    outcome = read(stream)
    reasons = {letter.photo: letter.reason for letter in outcome.letters}
    assert len(outcome.letters) == len(broken) + 2
    for each in broken:
        assert reasons["broken", each.name] in each.reasons, each.name
    assert {letter.reason for letter in outcome.letters if letter.photo == ("", "")} == {
        Reason.MESSAGE_UNREADABLE,
        Reason.FIELD_MISSING,
    }
    assert all(letter.detail and letter.stage for letter in outcome.letters)
    assert sorted(outcome.detections) == sorted(photo.key for photo in good)
