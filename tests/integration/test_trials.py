"""The trials' own parts: what they send must be the same for the same seed, and what they say must be right."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from trials import kills
from trials.photos import TrialPhoto, TrialSet, trial_set, verdicts_of
from trials.verdict import Verdict


def test_kills_are_spread_over_the_stream_and_some_fall_in_the_start_up() -> None:
    plan = kills.plan(20, 500, 4.0, random.Random(1))
    working = [kill.records for kill in plan if kill.records is not None]
    starting = [kill.seconds for kill in plan if kill.records is None]
    assert len(plan) == 20
    assert working == sorted(working)
    assert working[0] < 150 < 350 < working[-1] < 500
    assert len(starting) >= 5
    assert all(0 <= seconds <= 4 for seconds in starting)


def test_pairs_are_looked_up_by_their_originals_in_any_order(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("a,b,verdict\nx/1.jpg,y/2.jpg,copy\n")
    one, two = ((tmp_path / name).resolve() for name in ("x/1.jpg", "y/2.jpg"))
    photos = TrialSet(
        (
            TrialPhoto("c1", "1.jpg", one, one),
            TrialPhoto("c2", "2.jpg", two, two),
            TrialPhoto("again", "1.jpg", tmp_path / "again.jpg", one),
        ),
        frozenset({frozenset({("again", "1.jpg"), ("c1", "1.jpg")})}),
        verdicts_of(table),
    )
    assert photos.relation(frozenset({("again", "1.jpg"), ("c1", "1.jpg")})) == "planted"
    assert photos.relation(frozenset({("c2", "2.jpg"), ("c1", "1.jpg")})) == "copy"
    assert photos.relation(frozenset({("c2", "2.jpg"), ("again", "1.jpg")})) == "copy"


def test_the_same_seed_chooses_the_same_photos(photos: TrialSet, tmp_path: Path) -> None:
    folder = photos.photos[0].path.parent
    one, two = (trial_set([folder], tmp_path / str(run), count=6, planted=2, seed=3) for run in range(2))
    assert [photo.key for photo in one.photos] == [photo.key for photo in two.photos]
    assert [p.path.read_bytes() for p in one.photos] == [p.path.read_bytes() for p in two.photos]
    assert len(one.photos) == 8
    assert len({photo.claim_id for photo in one.photos}) == 8
    assert one.planted == two.planted
    assert len(one.planted) == 2


def test_a_verdict_stands_only_if_every_check_does(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = Verdict("some")
    verdict.check("first", 1, "1", True)
    assert verdict.ok
    verdict.check("second", 0, "1", False)
    verdict.table("Rows", ("a", "b"), [(1, 2)])
    verdict.print(as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["tables"] == [{"title": "Rows", "rows": [{"a": 1, "b": 2}]}]
    verdict.print(as_json=False)
    assert "NOT MET" in capsys.readouterr().out
