from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from damagewatch.domain import Box, Refused
from damagewatch_training.data.dataset import MADE_FROM, DamageEntry, Dataset, PairEntry, PhotoEntry
from damagewatch_training.data.sources import Label, Pair, Photo
from damagewatch_training.evaluate import task
from damagewatch_training.evaluate.task import Task, TaskRefusedError

from ..vision.pictures import scene


def picture(path: Path, seed: int, width: int = 96, height: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), scene(width, height, seed))
    return path


@pytest.fixture
def shoes(tmp_path: Path) -> Path:
    """Prints q1 and q2 are of shoe a, q3 of nothing; b lies among the queries as well."""
    for seed, name in enumerate(
        ("query/q1.png", "query/q2.png", "query/q3.tif", "gallery/a.jpg", "gallery/b.png")
    ):
        picture(tmp_path / name, seed)
    (tmp_path / "query" / "b.png").write_bytes((tmp_path / "gallery" / "b.png").read_bytes())
    return tmp_path


def table(folder: Path, *rows: str, head: str = "query,reference") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join((head, *rows)) + "\n")
    return path


def test_label_table_of_two_folders(shoes: Path) -> None:
    labels = table(shoes, "q1.png,a.jpg", "q2,a", "b,a", "b.png,b.png")
    made = task.labelled(shoes / "query", shoes / "gallery", labels)
    assert [item.name for item in made.queries] == [
        f"query/{n}" for n in ("b.png", "q1.png", "q2.png", "q3.tif")
    ]
    assert [item.name for item in made.gallery] == ["reference/a.jpg", "reference/b.png"]
    assert made.relevant.tolist() == [[True, False], [True, False], [True, False], [False, False]]
    # The same bytes are no answer, whatever the table says.
    assert made.junk.tolist() == [[False, True], [False, False], [False, False], [False, False]]
    one, two, three, four = made.clusters.tolist()
    assert one == two == three != four
    assert made.items[3].read()[0].image.shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("rows", "head", "told"),
    [
        (("q1,nowhere",), "query,reference", "line 2: no picture 'nowhere'"),
        (("q1,a", "nobody,a"), "query,reference", "line 3: no picture 'nobody'"),
        (("q1,a",), "a,b", "columns query and reference"),
        ((), "query,reference", "no query has a reference"),
    ],
)
def test_tables_that_do_not_fit_are_refused(shoes: Path, rows: tuple[str, ...], head: str, told: str) -> None:
    with pytest.raises(TaskRefusedError, match=told):
        task.labelled(shoes / "query", shoes / "gallery", table(shoes, *rows, head=head))


def test_a_folder_without_pictures_is_refused(shoes: Path) -> None:
    (shoes / "empty").mkdir()
    with pytest.raises(TaskRefusedError, match="no pictures"):
        task.labelled(shoes / "query", shoes / "empty", table(shoes, "q1,a"))


def photo(folder: Path, name: str, seed: int, *boxes: Box) -> Photo:
    return Photo(
        name, picture(folder / f"{name}.png", seed, 320, 240), tuple(Label((), box) for box in boxes)
    )


def last(steps: object) -> Task:
    *_, made = steps  # type: ignore[misc]
    assert isinstance(made, Task)
    return made


def test_rephotographed_damages_among_others(tmp_path: Path) -> None:
    asked = [photo(tmp_path, "v", 0, Box(60, 60, 120, 110), Box(180, 90, 230, 150))]
    others = [
        photo(tmp_path, "t", 1, Box(100, 80, 160, 140)),
        photo(tmp_path, "copy", 2, Box(90, 70, 150, 120)),
    ]
    others.append(photo(tmp_path, "plain", 3))
    known = [Pair("copy", "v", "copy"), Pair("t", "v", "diff")]
    made = last(task.rephotographed(asked, others, known, tmp_path / "kept", views=2, gallery=10))
    assert [item.name for item in made.queries] == [
        "query/v#0/0",
        "query/v#0/1",
        "query/v#1/0",
        "query/v#1/1",
    ]
    assert [item.name for item in made.gallery] == ["v#0", "v#1", "t#0", "copy#0", "plain#random"]
    assert made.relevant[:, :2].tolist() == [[True, False]] * 2 + [[False, True]] * 2
    assert not made.relevant[:, 2:].any()
    # The other damage of the photo, and what a known copy of it shows.
    assert (
        made.junk.tolist()
        == [[False, True, False, True, False]] * 2 + [[True, False, False, True, False]] * 2
    )
    assert made.clusters.tolist() == [0, 0, 1, 1]
    assert len({item.name for item in made.items}) == len(made.items)
    for item in made.items:
        decoded, box = item.read()
        assert 0 <= box.x0 < box.x1 <= decoded.width
        assert 0 <= box.y0 < box.y1 <= decoded.height
        assert max(task.crop(item, 50).shape[:2]) == 50


def test_a_task_is_made_once_and_the_same_again(tmp_path: Path) -> None:
    asked = [photo(tmp_path, "v", 0, Box(60, 60, 120, 110))]
    others = [photo(tmp_path, f"t{i}", i, Box(100, 80, 160, 140)) for i in range(1, 4)]
    first = last(task.rephotographed(asked, others, [], tmp_path / "kept", gallery=2))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.jpg")}
    second = last(task.rephotographed(asked, others, [], tmp_path / "kept", gallery=2))
    assert first.sha256 == second.sha256
    assert len(first.gallery) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.jpg")} == written
    other = last(task.rephotographed(asked, others, [], tmp_path / "kept", gallery=2, seed=8))
    assert other.sha256 != first.sha256


def dataset(folder: Path, *regions: tuple[str, str, str | None]) -> Dataset:
    """Regions: id, photo, physical damage. Photo x is of the train split."""
    names = sorted({photo for _, photo, _ in regions})
    for seed, name in enumerate(names):
        picture(folder / f"{name}.png", seed, 320, 240)
    entry = {"width": 320, "height": 240, "hashes": ("0" * 16, "0" * 16)}
    photos = [
        PhotoEntry.model_validate(
            {"name": n, "file": f"{n}.png", "split": "train" if n == "x" else "val", **entry}
            | {"sha256": f"{seed:064x}"}
        )
        for seed, n in enumerate(names)
    ]
    damages = [DamageEntry(id=i, photo=p, box=(40, 40, 90, 80), damage=d) for i, p, d in regions]
    return Dataset(folder, tuple(photos), tuple(damages))


def test_damages_of_which_there_are_several_photos(tmp_path: Path) -> None:
    made = task.real(
        dataset(
            tmp_path,
            ("1", "a", "dent"),
            ("2", "b", "dent"),
            ("3", "b", "scratch"),
            ("4", "b", "scratch"),
            ("5", "c", None),
            ("6", "x", "dent"),
        )
    )
    assert [item.name for item in made.queries] == ["query/1", "query/2"]
    assert [item.name for item in made.gallery] == ["1", "2", "3", "4", "5"]
    assert made.relevant.tolist() == [[False, True, False, False, False], [True, False, False, False, False]]
    assert made.junk.tolist() == [[True, False, False, False, False], [False, True, True, True, False]]
    assert made.clusters.tolist() == [0, 0]
    with pytest.raises(TaskRefusedError, match="on two photos"):
        task.real(dataset(tmp_path, ("1", "a", "dent"), ("2", "a", "dent")))
    with pytest.raises(TaskRefusedError, match="on two photos"):
        task.real(Dataset(tmp_path))


def test_copies_and_photos_that_were_made_are_no_second_photos(tmp_path: Path) -> None:
    made = dataset(tmp_path, ("1", "a", "dent"), ("2", "b", "dent"), ("3", "c", "dent"), ("4", "d", "dent"))
    a, b, c, *others = made.photos
    photos = (a, b, c.model_copy(update={"attributes": {MADE_FROM: "a"}}), *others)
    copied = replace(made, photos=photos, pairs=(PairEntry(a="a", b="b", verdict="copy"),))
    asked = task.real(copied)
    assert [item.name for item in asked.gallery] == ["1", "2", "4"]
    assert asked.relevant.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    assert asked.junk.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_pictures_of_one_damage_are_drawn_together_where_each_asks_for_the_other(shoes: Path) -> None:
    labels = table(shoes, "q1,q2", "q2,q1", "b,q3", "q3,b")
    made = task.labelled(shoes / "query", shoes / "query", labels)
    b, one, two, three = made.clusters.tolist()
    assert one == two != b == three


def test_a_table_in_another_encoding_and_a_picture_that_is_none_are_told_by_name(shoes: Path) -> None:
    (shoes / "labels.csv").write_bytes("query,reference\nTür,a\n".encode("latin-1"))
    with pytest.raises(TaskRefusedError, match=r"labels\.csv: not a CSV file in UTF-8"):
        task.labelled(shoes / "query", shoes / "gallery", shoes / "labels.csv")
    for name in ("empty.bmp", "empty.jpg", "text.tif"):
        (shoes / name).write_bytes(b"no picture" if name.startswith("text") else b"")
        with pytest.raises(Refused) as refused:
            task.Item("x", shoes / name).read()
        assert name in refused.value.detail


def test_nothing_labelled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskRefusedError, match="nothing to ask for"):
        last(task.rephotographed([photo(tmp_path, "v", 0)], [], [], tmp_path / "kept"))
