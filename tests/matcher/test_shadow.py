"""Two sets of models on one stream: kept apart, then compared."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from damagewatch.domain import Alert, AlertKind, AlertSide, Box, DamageType, PhotoRef, Severity, Signals
from damagewatch.matcher.shadow import Verdict, compare_alerts, photo_of, shadowed
from damagewatch.settings import Settings


def photo(claim: str) -> PhotoRef:
    return PhotoRef("acme", claim, "front.jpg", "0" * 64)


def side(claim: str) -> AlertSide:
    ref = photo(claim)
    return AlertSide(
        tenant=ref.tenant,
        claim_id=ref.claim_id,
        photo_id=ref.photo_id,
        damage_id=ref.damage_id(0),
        sha256=ref.sha256,
        box=Box(0, 0, 10, 10),
        type=DamageType.DENT,
        severity=Severity.MINOR,
        crop_uri="",
        crop_box=Box(0, 0, 10, 10),
        width=10,
        height=10,
        received_at=None,
    )


def alert(one: str, other: str, probability: float = 0.9) -> Alert:
    return Alert(
        alert_id=Alert.id_of(photo(one), photo(other)),
        kind=AlertKind.SAME_DAMAGE,
        probability=probability,
        mirrored=False,
        query=side(one),
        match=side(other),
        signals=Signals(0.9, 50, 20, 0.5, 0.8, 0.9, 3),
        models={},
        decided_at=datetime(2026, 11, 23, tzinfo=UTC),
    )


def test_the_shadow_shares_nothing_with_the_live_matcher_but_the_photos() -> None:
    live = Settings()
    live = live.model_copy(update={"index": live.index.model_copy(update={"url": "http://qdrant:6334"})})
    shadow = shadowed(live, Path("models-2"), Path("data/shadow"))
    assert shadow.kafka.topics.images == live.kafka.topics.images
    for name in ("detections", "alerts", "dead_letters"):
        assert getattr(shadow.kafka.topics, name) != getattr(live.kafka.topics, name)
    assert shadow.kafka.group != live.kafka.group
    assert shadow.kafka.worker != live.kafka.worker
    assert shadow.index.url is None
    assert shadow.index.path != live.index.path
    assert shadow.evidence.url != live.evidence.url
    assert shadow.models.directory == Path("models-2")


def test_alerts_are_paired_up_whichever_photo_came_first() -> None:
    live = [alert("A", "B", 0.5), alert("C", "D"), alert("E", "F")]
    shadow = [alert("B", "A", 0.7), alert("G", "H")]
    seen = {photo(claim) for claim in "ABCDEGH"}
    found = {row.alert.alert_id: row for row in compare_alerts(live, shadow, seen)}
    both = found[live[0].alert_id]
    assert both.verdict is Verdict.BOTH
    assert both.live is live[0]
    assert both.shadow is shadow[0]
    assert found[live[1].alert_id].verdict is Verdict.LIVE_ONLY
    assert found[live[2].alert_id].verdict is Verdict.UNSEEN  # the shadow never saw F
    assert found[shadow[1].alert_id].verdict is Verdict.SHADOW_ONLY
    assert len(found) == 4


def test_the_photo_of_a_side_is_the_photo_it_was_made_of() -> None:
    assert photo_of(side("A")) == photo("A")
