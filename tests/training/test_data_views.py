"""What is made of a data set: crops, names, second views, spliced damages."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.domain import Box, DamageType, Severity
from damagewatch.synthesis.conditions import looked_up, rephotograph_under
from damagewatch.vision.detect import Region
from damagewatch_training.data import crops, dataset, encode, naming, outlines, second_views, splice, split
from damagewatch_training.data.dataset import DamageEntry, DataRefusedError, Dataset
from damagewatch_training.data.importers.found import Found
from damagewatch_training.data.importers.found import Region as Labelled
from damagewatch_training.data.intake import Intake, take_all
from damagewatch_training.data.report import Report, Trouble

POLYGON = np.array([[150.0, 100], [190, 95], [200, 130], [160, 140]])
ID = st.text("abcXYZ019.-", min_size=1, max_size=64)


def picture(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    """A shaded panel with a dark mark where POLYGON is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    shade = 120 + 40 * np.sin(x / 90 + rng.uniform(0, 6)) + 30 * np.cos(y / 70 + rng.uniform(0, 6))
    image = np.repeat(shade[..., None], 3, 2) + rng.uniform(-20, 20, 3)
    image = np.clip(image, 0, 255).astype(np.uint8)
    cv2.fillPoly(image, [np.rint(POLYGON).astype(np.int32)], (20, 20, 30))
    return image


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    found = []
    for number in range(4):
        content = cv2.imencode(".png", picture(number))[1].tobytes()
        labels = (Labelled((POLYGON,), "minor-dent"),) if number < 3 else ()
        found.append(Found(f"p{number}.png", content, f"c{number}", regions=labels))
    intake = Intake(tmp_path / "data", Report(), split="train")
    return take_all(found, intake)


def test_crops_have_the_service_window_and_a_table(data: Dataset, tmp_path: Path) -> None:
    assert crops.write(crops.labelled(data, 4.0), tmp_path / "crops") == 3
    crop = cv2.imread(str(tmp_path / "crops" / "000001.jpg"))
    assert crop is not None and crop.shape[:2] == (181, 200)  # four times 45 x 50, to whole pixels
    rows = list(csv.DictReader((tmp_path / "crops" / crops.TABLE).open()))
    assert {(row["photo"], row["type"], row["severity"], row["keep"]) for row in rows} == {
        (f"p{n}.png", "dent", "minor", "1") for n in range(3)
    }
    assert (tmp_path / "crops" / "sheet-001.jpg").exists()


def test_what_the_detector_finds_is_taken_in_as_a_person_left_it(data: Dataset, tmp_path: Path) -> None:
    def region(x: float, score: float) -> Region:
        corners = ((x, 10.0), (x + 30, 10.0), (x + 30, 40.0))
        return Region(Box(x, 10, x + 30, 40), (corners,), DamageType.SCRATCH, Severity.SEVERE, score)

    labelled = Region(Box(150, 95, 200, 140), (), DamageType.DENT, Severity.MINOR, 0.99)
    found = SimpleNamespace(
        detect=lambda photo: (labelled, region(10, 0.9), region(60, 0.6), region(100, 0.2))
    )
    models = SimpleNamespace(detector=found)
    made = crops.write(crops.detected(data, models, 0.5, 4.0), tmp_path / "found")  # type: ignore[arg-type]
    assert made == 4 * 2 + 1  # the labelled damage again only on the photo where nobody had labelled it
    path = tmp_path / "found" / crops.TABLE
    rows = list(csv.DictReader(path.open()))
    assert [float(row["score"]) for row in rows] == sorted(float(row["score"]) for row in rows)
    for row in rows:
        row["keep"] = "1" if row["score"] == "0.9" else "0"
    rows.append(rows[-1] | {"photo": "gone", "keep": "1"})
    rows.append(rows[-2] | {"x0": "nan", "keep": "1"})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, crops.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    report = Report()
    grown = crops.reviewed(path, data, report)
    added = grown.damages[len(data.damages) :]
    assert len(added) == 4
    assert {(d.type, d.severity, d.score, d.box) for d in added} == {
        ("scratch", "severe", 0.9, (10, 10, 40, 40))
    }
    assert report.counts == {Trouble.PHOTO_MISSING: 1, Trouble.ENTRY_BROKEN: 1}
    report = Report()
    assert crops.reviewed(path, grown, report).damages == grown.damages
    assert report.counts[Trouble.LABEL_TWICE] == 4


def test_undamaged_crops_touch_no_damage(data: Dataset) -> None:
    made = list(crops.undamaged(data, 5, 1, 1.5))
    assert {crop.damage.photo for crop in made} == {"p0.png", "p1.png", "p2.png"}
    for crop in made:
        assert crop.damage.area.intersection(Box(150, 95, 200, 140)) is None
        assert Box(0, 0, 320, 240).intersection(crop.damage.area) == crop.damage.area


@given(ID, ID)
def test_names_of_crops_parse_back(damage: str, image: str) -> None:
    assert naming.parsed(naming.name(damage, image)) == (damage, image)


@given(st.text())
def test_any_text_becomes_an_id(text: str) -> None:
    short = naming.identifier(text)
    assert naming.identifier(short) == short
    assert naming.parsed(naming.name(short, "0")) == (short, "0")


@pytest.mark.parametrize("file", ["a.jpg", "a_b_c.jpg", "_b.jpg", "a_.jpg", "a_b.txt", "a_b", "ä_b.jpg"])
def test_other_names_tell_no_damage(file: str) -> None:
    assert naming.parsed(file) is None


def test_cleaning_drops_near_copies_then_damages_with_one_crop(data: Dataset, tmp_path: Path) -> None:
    # p0, p1, p2 show one damage "d"; p3 nearly copies p0 mirrored; "alone" is on one photo.
    content = cv2.imencode(".png", cv2.GaussianBlur(picture(0)[:, ::-1], (0, 0), 0.6))[1].tobytes()
    intake = Intake(tmp_path / "data", Report())
    intake.take(Found("mirror.png", content))
    whole = intake.dataset()
    box = data.damages[0].box
    mirrored = (320 - box[2], box[1], 320 - box[0], box[3])
    damages = [
        *(damage.model_copy(update={"damage": "d"}) for damage in data.damages),
        DamageEntry(id="m", photo="mirror.png", box=mirrored, damage="d"),
        DamageEntry(id="alone", photo="p3.png", box=(10, 10, 60, 60)),
    ]
    whole = replace(whole, damages=tuple(damages))
    everything = encode.encode(whole, tmp_path / "all", 4.0, clean=False)
    assert (everything.damages, everything.crops) == (2, 5)
    cleaned = encode.encode(whole, tmp_path / "clean", 4.0, clean=True)
    assert (cleaned.near_copies, cleaned.alone) == (1, 1)
    names = [naming.parsed(path.name) for path in (tmp_path / "clean").glob("*.jpg")]
    assert len(names) == cleaned.crops == 3
    assert {name[0] for name in names if name} == {"d"}
    with pytest.raises(DataRefusedError, match="not empty"):
        encode.encode(whole, tmp_path / "clean", 4.0, clean=True)


def test_views_carry_their_damages_and_where_every_pixel_went(data: Dataset, tmp_path: Path) -> None:
    plan = second_views.Plan(count=3, chance=0.5, mirrored=0.3)
    grown = second_views.make(data, tmp_path / "views", plan, workers=1)
    assert dataset.load(tmp_path / "views") == grown
    photos = {photo.name: photo for photo in grown.photos}
    made = [photo for photo in grown.photos if dataset.MADE_FROM in photo.attributes]
    assert len(made) == 12
    for damage in grown.damages:
        photo = photos[damage.photo]
        if photo not in made:
            continue
        frame = Box(0, 0, photo.width, photo.height)
        corners = np.concatenate([np.array(polygon) for polygon in damage.polygons])
        assert (corners >= -0.01).all() and (corners <= (photo.width + 0.01, photo.height + 0.01)).all()
        assert frame.intersection(damage.area) == damage.area
        assert damage.area.iou(outlines.box_around([corners])) > 0.3  # as a detector draws it, but there
        stored = np.load(second_views.correspondence_of(grown.folder, photo))
        # Where the map takes the first polygon's corners, a corner or the frame's edge is.
        for corner in looked_up(stored["map"], POLYGON):
            if (corner > 0).all() and (corner < (photo.width, photo.height)).all():
                assert np.hypot(*(corners - corner).T).min() < 0.1
        assert stored["visible"].shape == (photo.height, photo.width)
        assert str(stored["first"]) == photo.attributes[dataset.MADE_FROM]
        assert ("homography" in stored) == ("curved" not in photo.attributes["conditions"].split())
    assert split.leaks(grown) == []
    parted = tuple(
        photo.model_copy(update={"split": "val"}) if photo in made else photo for photo in grown.photos
    )
    assert len(split.leaks(replace(grown, photos=parted))) >= 12


def test_the_same_seed_makes_the_same_views_and_what_is_there_is_left(data: Dataset, tmp_path: Path) -> None:
    plan = second_views.Plan(count=1)
    one = second_views.make(data, tmp_path / "one", plan, workers=1)
    other = second_views.make(data, tmp_path / "other", plan, workers=1)
    assert (one.photos, one.damages) == (other.photos, other.damages)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "photos").iterdir()}
    assert second_views.make(data, tmp_path / "one", plan, workers=1) == one
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "photos").iterdir()} == before


def test_more_views_leave_those_that_are_there_with_their_labels(data: Dataset, tmp_path: Path) -> None:
    one = second_views.make(data, tmp_path / "one", second_views.Plan(count=1), workers=1)
    plan = second_views.Plan(count=2, seed=2, strength=2.0)
    grown = second_views.make(data, tmp_path / "one", plan, workers=1)
    first = {photo.name: photo.sha256 for photo in one.photos}
    assert {photo.name: photo.sha256 for photo in grown.photos if photo.name in first} == first
    assert [damage for damage in grown.damages if damage.photo in first] == list(one.damages)
    assert any(photo.name.endswith("~2") for photo in grown.photos)


def test_other_photos_of_a_name_and_another_split_are_refused(data: Dataset, tmp_path: Path) -> None:
    plan = second_views.Plan(count=1)
    second_views.make(data, tmp_path / "grown", plan, workers=1)
    content = cv2.imencode(".png", picture(9))[1].tobytes()
    found = [Found("p0.png", content, "c0", regions=(Labelled((POLYGON,), "minor-dent"),))]
    other = take_all(found, Intake(tmp_path / "other", Report(), split="train"))
    with pytest.raises(DataRefusedError, match=r"another photo is called 'p0\.png'"):
        second_views.make(other, tmp_path / "grown", plan, workers=1)
    again = replace(data, photos=tuple(p.model_copy(update={"split": "val"}) for p in data.photos))
    with pytest.raises(DataRefusedError, match="was split again"):
        second_views.make(again, tmp_path / "grown", plan, workers=1)


def test_a_damage_that_something_hides_is_not_labelled(data: Dataset) -> None:
    rng = np.random.default_rng(0)
    view = rephotograph_under(picture(0), rng, strength=0.2)
    seen = second_views.seen_again(data.damages[0], view, 1.0, "n", "p", rng)
    hidden = replace(view, visible=np.zeros_like(view.visible))
    assert seen is not None
    assert second_views.seen_again(data.damages[0], hidden, 1.0, "n", "p", rng) is None


def test_spliced_damages_are_where_they_are_said_to_be(data: Dataset, tmp_path: Path) -> None:
    grown = splice.splice(data, data, tmp_path / "spliced", 6, 2, 1)
    first = [
        photo for photo in grown.photos if dataset.MADE_ONTO in photo.attributes and "~" not in photo.name
    ]
    assert first
    images = {p.name: cv2.imread(str(data.folder / p.file)) for p in data.photos}
    for photo in first:
        made, place = cv2.imread(str(grown.folder / photo.file)), images[photo.attributes[dataset.MADE_ONTO]]
        assert made is not None and place is not None
        (new,) = [d for d in grown.damages if d.photo == photo.name and d.physical == f"{photo.name}#1"]
        assert new.type == "dent"
        # The old damage is still there, known to be the same, and the new one touches it nowhere.
        place_of = {d.physical for d in grown.damages if d.photo == photo.attributes[dataset.MADE_ONTO]}
        assert {d.physical for d in grown.damages if d.photo == photo.name} - {new.physical} == place_of
        assert sum(d.photo == photo.name for d in grown.damages) == 2
        assert new.area.intersection(Box(150, 95, 200, 140)) is None
        change = np.abs(made.astype(float) - place).sum(2)
        inside = outlines.filled([np.array(p) for p in new.polygons], photo.width, photo.height) > 0
        near = cv2.dilate(inside.astype(np.uint8), np.ones((61, 61))) > 0
        assert change[inside].mean() > 3 * change[~near].mean()  # JPEG changes the rest a little
    assert any(pair.verdict == "same" for pair in grown.pairs)
    assert {d.physical for d in grown.damages if "~" in d.photo} <= {d.physical for d in grown.damages}


def test_blending_leaves_the_patch_where_its_polygon_says() -> None:
    target = np.full((200, 300, 3), 150, np.uint8)
    image = np.full((80, 100, 3), 90, np.uint8)
    square = np.array([[40.0, 30], [60, 30], [60, 50], [40, 50]])
    image[30:50, 40:60] = 30
    blended, (moved,) = splice.blend(splice.Patch(image, (square,)), target, (120, 70))
    assert np.array_equal(moved, square + np.array((120, 70)))
    assert np.abs(blended[104:116, 164:176].astype(int) - 150).mean() > 30  # the mark, seen
    outside = np.ones((200, 300), bool)
    outside[70:150, 120:220] = False
    assert np.array_equal(blended[outside], target[outside])
    assert np.abs(blended[76:80, 126:214].astype(int) - 150).max() <= 2  # no seam


def test_nothing_to_splice_is_told(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataRefusedError, match="no damages"):
        splice.splice(replace(data, damages=()), data, tmp_path / "x", 1, 1, 1)
    with pytest.raises(DataRefusedError, match="no photos"):
        splice.splice(data, replace(data, photos=()), tmp_path / "x", 1, 1, 1)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_places_are_inside_and_beside_what_is_there(seed: int) -> None:
    patch = splice.Patch(picture(1)[80:160, 130:220], (POLYGON - (130, 80),))
    corner = splice.best_place(patch, picture(2), [Box(150, 95, 200, 140)], np.random.default_rng(seed))
    if corner is not None:
        box = Box(corner[0], corner[1], corner[0] + 90, corner[1] + 80)
        assert Box(0, 0, 320, 240).intersection(box) == box
        assert box.intersection(Box(150, 95, 200, 140)) is None
