"""A demo is good only if all that was planted was found, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from damagewatch.demo import judge
from damagewatch.domain import (
    Alert,
    AlertKind,
    AlertSide,
    Box,
    DamageType,
    PhotoRef,
    Reason,
    Severity,
    Signals,
)
from damagewatch.synthesis.expectations import (
    DemoPhoto,
    DemoSet,
    ExpectedAlert,
    ExpectedRejection,
    PhotoKey,
)

A, B, C, BROKEN = ("1", "a"), ("2", "b"), ("3", "c"), ("4", "broken")
DEMO = DemoSet(
    directory=Path("demo"),
    seed=0,
    photos=tuple(DemoPhoto(*key, Path("x")) for key in (A, B, C, BROKEN)),
    alerts=(ExpectedAlert(frozenset({A, B}), frozenset({AlertKind.SAME_DAMAGE}), "planted"),),
    uncounted=frozenset(),
    rejections=(ExpectedRejection(BROKEN, frozenset({Reason.TRUNCATED}), "cut"),),
    closed=True,
)
REFUSED = {BROKEN: "truncated"}
PROCESSED = [A, B, C]


def alert(query: PhotoKey, match: PhotoKey, kind: AlertKind = AlertKind.SAME_DAMAGE) -> Alert:
    refs = [PhotoRef("t", *key, "0" * 64) for key in (query, match)]
    box = Box(0, 0, 1, 1)
    sides = [
        AlertSide(
            "t",
            ref.claim_id,
            ref.photo_id,
            ref.damage_id(0),
            ref.sha256,
            box,
            DamageType.DENT,
            Severity.MINOR,
            "",
            box,
            1,
            1,
        )
        for ref in refs
    ]
    signals = Signals(1, 0, 0, 0, 0, 0, 0)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Alert(Alert.id_of(*refs), kind, 0.9, False, sides[0], sides[1], signals, {}, now)


def test_all_as_planted() -> None:
    outcome = judge(DEMO, [alert(B, A)], REFUSED, PROCESSED)
    assert outcome.ok
    assert outcome.expected[0].found


def test_a_planted_return_that_is_missed_or_of_another_kind_is_not_good() -> None:
    assert not judge(DEMO, [], REFUSED, PROCESSED).ok
    assert not judge(DEMO, [alert(A, B, AlertKind.SIMILAR_DAMAGE)], REFUSED, PROCESSED).ok


def test_a_false_alert_is_not_good_unless_the_set_is_open() -> None:
    alerts = [alert(A, B), alert(C, A)]
    assert not judge(DEMO, alerts, REFUSED, PROCESSED).ok
    assert judge(replace(DEMO, closed=False), alerts, REFUSED, PROCESSED).ok
    assert judge(replace(DEMO, uncounted=frozenset({frozenset({A, C})})), alerts, REFUSED, PROCESSED).ok


def test_a_broken_file_must_be_refused_for_its_reason_and_a_good_one_not() -> None:
    assert not judge(DEMO, [alert(A, B)], {BROKEN: "corrupt"}, PROCESSED).ok
    assert not judge(DEMO, [alert(A, B)], REFUSED | {C: "corrupt"}, [A, B]).ok


def test_a_photo_of_which_nothing_is_heard_is_never_good() -> None:
    outcome = judge(replace(DEMO, closed=False), [alert(A, B)], REFUSED, [A, B])
    assert not outcome.ok
    assert outcome.missing == (C,)
