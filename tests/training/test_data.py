import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import Box
from damagewatch_training.data import sources, windows
from damagewatch_training.data.dataset import DataRefusedError

NAMES = [f"photo-{letter}" for letter in "abcdefgh"]
NAME = st.sampled_from(NAMES)
PAIRS = st.lists(
    st.builds(sources.Pair, NAME, NAME, st.sampled_from(["copy", "same", "mirror", "diff", "unsure"]))
)


def photos() -> list[sources.Photo]:
    return [sources.Photo(name, path=None) for name in NAMES]  # type: ignore[arg-type]


def linked(known: list[sources.Pair], start: str) -> set[str]:
    """All that the pairs join to `start`, by growing until nothing changes."""
    group = {start}
    while True:
        more = {
            n for p in known if p.verdict in sources.SAME and group & {p.a, p.b} for n in (p.a, p.b)
        } - group
        if not more:
            return group
        group |= more


@given(PAIRS, st.sets(NAME))
def test_no_photo_leaks_and_each_group_keeps_one(known: list[sources.Pair], held_out: set[str]) -> None:
    kept = [photo.name for photo in sources.without_leaks(photos(), held_out, known)]
    for name in NAMES:
        group = linked(known, name)
        expected = 0 if group & held_out else 1
        assert sum(other in group for other in kept) == expected


def test_pairs_of_different_cars_join_nothing() -> None:
    known = [sources.Pair("photo-a", "photo-b", "diff")]
    assert len(sources.without_leaks(photos(), {"photo-a"}, known)) == len(NAMES) - 1


def test_photos_that_a_judged_pair_links_to_val_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, names in (("train", ("seen", "mirrored")), ("val", ("held",))):
        annotations = {
            "categories": [],
            "annotations": [],
            "images": [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(names)],
        }
        (tmp_path / "damage-polygons").mkdir(exist_ok=True)
        (tmp_path / "damage-polygons" / f"{split}.json").write_text(json.dumps(annotations))
    (tmp_path / "damaged-parts").mkdir()
    (tmp_path / "damaged-parts" / "annotations.json").write_text(
        '{"categories": [], "annotations": [], "images": []}'
    )
    (tmp_path / "same_damage_pairs.csv").write_text("a,b,verdict\n")
    judged = tmp_path / "judged.csv"
    judged.write_text(
        "a,b,verdict,why\ndamage-polygons/train/mirrored.jpg,damage-polygons/val/held.jpg,mirror,\n"
    )
    monkeypatch.setattr(sources, "JUDGED", judged)
    assert [photo.name for photo in sources.training_photos(tmp_path)] == ["damage-polygons/train/seen.jpg"]


def test_pairs_judged_by_eye_are_read(tmp_path: Path) -> None:
    (tmp_path / "judged.csv").write_text("a,b,verdict\nx,y,mirror\n")
    assert sources.read_pairs(tmp_path / "judged.csv") == [sources.Pair("x", "y", "mirror")]
    (tmp_path / "none.csv").write_text("a,b,verdict\n")
    assert sources.read_pairs(tmp_path / "none.csv") == []
    (tmp_path / "short.csv").write_text("a,b,verdict\nx,y,mirror\nx,y\n")
    with pytest.raises(DataRefusedError, match=r"short\.csv, line 3: too few fields"):
        sources.read_pairs(tmp_path / "short.csv")
    (tmp_path / "other.csv").write_text("one,two\n1,2\n")
    with pytest.raises(DataRefusedError, match="columns a, b"):
        sources.read_pairs(tmp_path / "other.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataRefusedError, match="not a CSV file"):
        sources.read_pairs(tmp_path / "picture.csv")


def test_the_list_of_this_checkout_is_found_and_names_verdicts() -> None:
    verdicts = {pair.verdict for pair in sources.judged()}
    assert "mirror" in verdicts
    assert verdicts <= {*sources.SAME, "diff", "samecar", "unsure"}


def test_a_box_is_mapped_by_its_corners() -> None:
    double = np.diag([2.0, 2.0, 1.0])
    assert windows.mapped(Box(10, 20, 30, 40), double, 100, 100) == Box(20, 40, 60, 80)


@pytest.mark.parametrize(("shift", "kept"), [(60.0, True), (80.0, False)])
def test_a_damage_that_mostly_leaves_the_photo_is_not_mapped(shift: float, kept: bool) -> None:
    moved = np.array([[1.0, 0, shift], [0, 1, 0], [0, 0, 1]])
    assert (windows.mapped(Box(10, 10, 50, 50), moved, 100, 100) is not None) is kept


@given(st.integers(0, 2**32 - 1), st.floats(0, 90), st.floats(1, 10))
def test_a_jittered_box_stays_in_the_photo_and_on_the_damage(seed: int, x: float, size: float) -> None:
    box = Box(x, x, x + size, x + size)
    moved = windows.jittered(box, np.random.default_rng(seed), 100, 100)
    assert 0 <= moved.x0 < moved.x1 <= 100
    assert 0 <= moved.y0 < moved.y1 <= 100
    assert abs(moved.centre[0] - box.centre[0]) < size + 2


def test_windows_that_nearly_coincide_are_trained_on_once() -> None:
    rng = np.random.default_rng(0)
    box = Box(100, 100, 130, 130)
    chosen = windows.to_train_on([box, Box(100, 100, 131, 130)], 640, 640, rng)
    assert chosen[0] == Box(0, 0, 640, 640)
    assert sum(other.iou(box) > 0.8 for other in chosen) == 1
