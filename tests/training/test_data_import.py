"""Other people's photos and labels: what is good in them comes in, what is not is told, nothing breaks."""

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo as Decoded
from damagewatch.vision.formats import Format
from damagewatch_training.data import dataset, intake, outlines
from damagewatch_training.data.classes import understood
from damagewatch_training.data.dataset import DataRefusedError, Dataset
from damagewatch_training.data.importers import coco, folders, tables, via, video, yolo
from damagewatch_training.data.importers.found import Found, Region
from damagewatch_training.data.intake import Intake, take_all
from damagewatch_training.data.report import Report, Trouble

TRIANGLE = [10, 10, 60, 10, 60, 50]
KEYS = (
    "images annotations categories id image_id category_id segmentation bbox file_name filename regions counts size "
    "shape_attributes region_attributes name all_points_x all_points_y width height attributes"
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.sampled_from(["a.jpg", "polygon", "dent"])
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=6)
    ),
    max_leaves=30,
)
NEARLY = st.fixed_dictionaries(
    {
        "images": st.lists(
            st.fixed_dictionaries({"id": st.just(1), "file_name": st.just("a.jpg"), "width": ANYTHING})
        ),
        "annotations": st.lists(
            st.fixed_dictionaries({"image_id": st.just(1), "segmentation": ANYTHING, "bbox": ANYTHING})
        ),
        "categories": st.lists(ANYTHING),
        "_via_img_metadata": st.lists(
            st.fixed_dictionaries({"filename": st.just("a.jpg"), "regions": ANYTHING})
        ),
    }
)


def photo(path: Path, seed: int = 0, width: int = 120, height: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    return path


def taken(found: list[Found], out: Path, **settings: object) -> tuple[Dataset, Report]:
    report = Report()
    return take_all(found, Intake(out, report, **settings)), report  # type: ignore[arg-type]


def coco_file(folder: Path, polygons: list[list[float]], name: str = "a.jpg", **image: object) -> Path:
    content = {
        "images": [{"id": 1, "file_name": name, "width": 120, "height": 80} | image],
        "categories": [{"id": 3, "name": "minor-dent"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 3, "segmentation": [polygon], "bbox": [0, 0, 1, 1]}
            for n, polygon in enumerate(polygons)
        ],
    }
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


def from_coco(folder: Path, labels: Path, out: Path) -> tuple[Dataset, Report]:
    report = Report()
    return take_all(coco.read(labels, folder, report), Intake(out, report)), report


# Polygons whose corners go once around a centre cross themselves nowhere.
@st.composite
def round_polygons(draw: st.DrawFn) -> list[float]:
    count = draw(st.integers(3, 12))
    start = draw(st.floats(0, 1))
    radii = draw(st.lists(st.floats(6, 30), min_size=count, max_size=count))
    angles = (np.arange(count) + start) * 2 * np.pi / count
    points = np.column_stack([60 + radii * np.cos(angles), 40 + radii * np.sin(angles)])
    return [float(value) for value in points.ravel()]


@settings(max_examples=30)
@given(st.lists(round_polygons(), min_size=1, max_size=4))
def test_coco_to_here_to_coco_keeps_polygons_and_classes(
    tmp_path_factory: pytest.TempPathFactory, polygons: list[list[float]]
) -> None:
    folder = tmp_path_factory.mktemp("coco")
    photo(folder / "a.jpg")
    distinct = [list(p) for p in {tuple(p): None for p in polygons}]
    data, report = from_coco(folder, coco_file(folder, distinct), folder / "data")
    assert not report.counts
    coco.write(dataset.load(data.folder), folder / "again.json")
    back = json.loads((folder / "again.json").read_text())
    assert [a["segmentation"] for a in back["annotations"]] == [[polygon] for polygon in distinct]
    assert [c["name"] for c in back["categories"]] == ["minor-dent"]
    again, report = from_coco(data.folder, folder / "again.json", folder / "other")
    assert not report.counts
    assert [d.polygons for d in again.damages] == [d.polygons for d in data.damages]


@settings(max_examples=60)
@given(content=ANYTHING | NEARLY)
@pytest.mark.parametrize("read", [coco.read, via.read])
def test_labels_of_any_content_are_taken_or_refused(
    read, tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    folder = tmp_path_factory.mktemp("any")
    photo(folder / "a.jpg")
    (folder / "labels.json").write_text(json.dumps(content))
    report = Report()
    try:
        take_all(read(folder / "labels.json", folder, report), Intake(folder / "data", report))
    except DataRefusedError as refused:
        assert "labels.json" in str(refused)


@pytest.mark.parametrize("broken", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_broken_json_is_refused_by_name(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "labels.json").write_bytes(broken)
    for read in (coco.read, via.read):
        with pytest.raises(DataRefusedError, match=r"labels\.json"):
            list(read(tmp_path / "labels.json", tmp_path, Report()))


def test_via_regions_as_list_and_as_object_give_the_same(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    region = {
        "shape_attributes": {
            "name": "polygon",
            "all_points_x": TRIANGLE[::2],
            "all_points_y": TRIANGLE[1::2],
        },
        "region_attributes": {"type": "dent", "how": {"severe": True, "minor": False}, "damage_id": "d7"},
    }
    made = []
    for regions in ([region], {"0": region}):
        entry = {"filename": "a.jpg", "regions": regions, "file_attributes": {"claim": "c1", "make": "x"}}
        (tmp_path / "via.json").write_text(json.dumps({"a.jpg123": entry}))
        report = Report()
        made.append(list(via.read(tmp_path / "via.json", tmp_path, report)))
        assert not report.counts
    data, _ = taken(made[0], tmp_path / "one")
    assert data.damages == taken(made[1], tmp_path / "two")[0].damages
    (damage,) = data.damages
    assert damage.polygons == (((10, 10), (60, 10), (60, 50)),)
    assert (damage.type, damage.severity, damage.damage, damage.box) == (
        "dent",
        "severe",
        "d7",
        (10, 10, 60, 50),
    )
    assert (data.photos[0].claim, data.photos[0].attributes) == ("c1", {"make": "x"})


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "link.jpg", "a\0.jpg", "x" * 5000, "", 7])
def test_names_that_lead_out_of_the_folder_are_told_and_never_opened(tmp_path: Path, name: object) -> None:
    photo(tmp_path / "secret.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    entry = {"filename": name, "regions": []}
    (tmp_path / "in" / "via.json").write_text(json.dumps({"a": entry}))
    report = Report()
    assert list(via.read(tmp_path / "in" / "via.json", tmp_path / "in", report)) == []
    assert report.counts == {Trouble.PHOTO_OUTSIDE: 1}


def test_links_in_folders_of_claims_are_not_followed_out(tmp_path: Path) -> None:
    photo(tmp_path / "secret.jpg")
    photo(tmp_path / "claims" / "c1" / "a.jpg")
    (tmp_path / "claims" / "c1" / "b.jpg").symlink_to(tmp_path / "secret.jpg")
    report = Report()
    found = list(folders.claims(tmp_path / "claims", report))
    assert [(one.name, one.claim) for one in found] == [("c1/a.jpg", "c1")]
    assert report.counts == {Trouble.PHOTO_OUTSIDE: 1}


@pytest.mark.parametrize(
    "counts",
    [
        [2**63 - 1, 2**63 - 1, 9602],  # of which the sum, in 64 bits, is that of the mask
        [2**64, 1],
        [9601],
        [-1, 9601],
        "0" * 9700,
    ],
)
def test_run_lengths_that_do_not_fill_their_mask_are_told_and_nothing_is_written(
    tmp_path: Path, counts: object
) -> None:
    photo(tmp_path / "a.jpg")
    labels = coco_file(tmp_path, [TRIANGLE])
    content = json.loads(labels.read_text())
    content["annotations"].append(
        {"id": 9, "image_id": 1, "category_id": 3, "segmentation": {"size": [80, 120], "counts": counts}}
    )
    labels.write_text(json.dumps(content))
    data, report = from_coco(tmp_path, labels, tmp_path / "data")
    assert len(data.damages) == 1
    assert report.counts == {Trouble.ENTRY_BROKEN: 1}


def test_a_scratch_one_pixel_wide_is_its_box_and_an_empty_mask_is_told(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    labels = coco_file(tmp_path, [TRIANGLE])
    content = json.loads(labels.read_text())
    line = {"size": [80, 120], "counts": [10 * 80 + 5, 60, 9600 - 10 * 80 - 65]}
    empty = {"size": [80, 120], "counts": [9600]}
    content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": line, "bbox": [10, 5, 4, 60]},
        {"id": 2, "image_id": 1, "category_id": 3, "segmentation": empty},
    ]
    labels.write_text(json.dumps(content))
    data, report = from_coco(tmp_path, labels, tmp_path / "data")
    assert [damage.box for damage in data.damages] == [(10, 5, 14, 65)]
    assert report.counts == {Trouble.POLYGON_SMALL: 1}


@pytest.mark.parametrize(
    ("image", "annotation", "category"),
    [
        ({"file_name": "x" * 304 + ".jpg"}, {}, "dent"),
        ({"width": 4 * 10**400, "height": 3}, {}, "dent"),
        ({"width": 12 * 10**30, "height": 8 * 10**30}, {}, "dent"),
        ({"width": 60, "height": 40}, {"segmentation": [], "bbox": [1e308, 1e308, 1e308, 1e308]}, "dent"),
        ({}, {}, "door " * 200),
    ],
)
def test_one_absurd_entry_keeps_no_other_photo_out(
    tmp_path: Path, image: dict[str, object], annotation: dict[str, object], category: str
) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg", seed=1)
    labels = coco_file(tmp_path, [TRIANGLE], name="b.jpg")
    content = json.loads(labels.read_text())
    content["images"].append({"id": 2, "file_name": "a.jpg", "width": 120, "height": 80} | image)
    content["categories"].append({"id": 4, "name": category})
    content["annotations"].append(
        {"id": 9, "image_id": 2, "category_id": 4, "segmentation": [TRIANGLE], "bbox": [0, 0, 9, 9]}
        | annotation
    )
    labels.write_text(json.dumps(content))
    data, _ = from_coco(tmp_path, labels, tmp_path / "data")
    assert "b.jpg" in {one.name for one in dataset.load(tmp_path / "data").photos}
    assert "b.jpg" in {one.photo for one in data.damages}


def test_an_import_that_broke_off_leaves_no_half_of_a_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photo(tmp_path / "a.jpg")

    class Stopped(Exception):
        pass

    def stop(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:300])
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Path, "write_bytes", stop)
        taken([Found("x", path)], tmp_path / "data")
    data, _ = taken([Found("x", path)], tmp_path / "data")
    assert (tmp_path / "data" / data.photos[0].file).read_bytes() == path.read_bytes()


def test_names_in_another_encoding_are_taken_and_shown_as_far_as_they_can_be(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg").rename(tmp_path / "Sto\udfdfstange.jpg".replace("\udfdf", "\udcdf"))
    (tmp_path / "classes.txt").write_text("scratch\n")
    report = Report()
    data = take_all(yolo.read(tmp_path, report), Intake(tmp_path / "data", report))
    assert [one.name for one in data.photos] == ["Sto?stange.jpg"]
    assert not report.counts


def test_classes_in_yaml_that_unpack_without_end_are_no_words(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    (tmp_path / "data.yaml").write_text(f"l0: &l0 [x]\n{levels}names: [dent, *l11]\n")
    (tmp_path / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.1 0.1 0.5 0.1 0.5 0.5\n")
    report = Report()
    data = take_all(yolo.read(tmp_path, report), Intake(tmp_path / "data", report))
    assert [damage.type for damage in data.damages] == ["dent"]
    assert report.counts == {Trouble.CLASS_UNKNOWN: 1}


def test_yolo_polygons_boxes_and_splits(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "valid" / "a.jpg")
    (tmp_path / "labels" / "valid").mkdir(parents=True)
    (tmp_path / "labels" / "valid" / "a.txt").write_text(
        "1 0.1 0.1 0.5 0.1 0.5 0.5\n0 0.5 0.5 0.2 0.5\nx 1 2\n1 0.5\n0 0.5 0.5 0 0.1\n9 0.1 0.1 0.5 0.1 0.5 0.5\n\n"
    )
    (tmp_path / "classes.txt").write_text("scratch\nsevere-dent\n")
    report = Report()
    data = take_all(yolo.read(tmp_path, report), Intake(tmp_path / "data", report))
    assert data.photos[0].split == "val"
    polygon, box = data.damages
    assert np.allclose(polygon.polygons, [[(12, 8), (60, 8), (60, 40)]])
    assert (polygon.type, polygon.severity) == ("dent", "severe")
    assert box.polygons == () and np.allclose(box.box, (48, 20, 72, 60))
    assert report.counts == {Trouble.ENTRY_BROKEN: 3, Trouble.CLASS_UNKNOWN: 1}


def test_photos_that_cannot_be_used_are_told_one_by_one(tmp_path: Path) -> None:
    good = photo(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("no photo")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(bomb)
    photo(tmp_path / "icon.png", width=9, height=9)
    (tmp_path / "again.jpg").write_bytes(good.read_bytes())
    names = ["good.jpg", "cut.jpg", "text.jpg", "bomb.png", "icon.png", "again.jpg", "gone.jpg"]
    data, report = taken([Found(name, tmp_path / name) for name in names], tmp_path / "data")
    assert [one.name for one in data.photos] == ["good.jpg"]
    assert report.counts == {
        Trouble.PHOTO_UNREADABLE: 3,
        Trouble.PHOTO_SMALL: 1,
        Trouble.PHOTO_TWICE: 1,
        Trouble.PHOTO_MISSING: 1,
    }


def test_one_photo_in_two_claims_is_a_pair_and_not_a_double(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg")
    data, report = taken([Found("1", path, "c1"), Found("2", path, "c2")], tmp_path / "data")
    assert [(pair.a, pair.b, pair.verdict) for pair in data.pairs] == [("1", "2", "copy")]
    assert report.photos == 2


def test_importing_again_adds_nothing_and_another_photo_of_the_name_is_refused(tmp_path: Path) -> None:
    first, other = photo(tmp_path / "a.jpg"), photo(tmp_path / "b.jpg", seed=1)
    taken([Found("x", first)], tmp_path / "data")
    data, report = taken([Found("x", first), Found("x", other)], tmp_path / "data")
    assert len(data.photos) == 1
    assert report.counts == {Trouble.PHOTO_TWICE: 1, Trouble.NAME_TAKEN: 1}


def region(points: list[float], name: str = "dent") -> Region:
    return Region((np.array(points, np.float64).reshape(-1, 2),), name)


@pytest.mark.parametrize(
    ("points", "troubles", "kept"),
    [
        (TRIANGLE, [], True),
        ([10, 10, 60, 10], [Trouble.POLYGON_SHORT], False),
        ([200, 200, 260, 200, 260, 250], [Trouble.POLYGON_OUTSIDE], False),
        ([-50, 10, 60, 10, 60, 50], [Trouble.POLYGON_CLIPPED], True),
        ([-0.5, 10, 60, 10, 60, 50], [], True),
        ([10, 10, 11, 10, 11, 11], [Trouble.POLYGON_SMALL], False),
        ([10, 10, 60, 60, 60, 10, 10, 60], [Trouble.POLYGON_CROSSING], True),
        ([10, 10, float("nan"), 60, 60, 10], [Trouble.ENTRY_BROKEN], False),
    ],
)
def test_polygons_are_mended_or_left_out_and_told(
    tmp_path: Path, points: list[float], troubles: list[Trouble], kept: bool
) -> None:
    found = Found("a", photo(tmp_path / "a.jpg"), regions=(region(points),))
    data, report = taken([found], tmp_path / "data")
    assert list(report.counts) == troubles
    assert bool(data.damages) is kept
    for damage in data.damages:
        corners = np.concatenate([np.array(polygon) for polygon in damage.polygons])
        assert (corners >= 0).all() and (corners <= (120, 80)).all()


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(-200, 300), st.floats(-200, 300)), min_size=3, max_size=12))
def test_a_clipped_polygon_lies_inside_and_covers_what_it_covered_there(
    points: list[tuple[float, float]],
) -> None:
    polygon = np.rint(np.array(points))
    clipped = outlines.clipped(polygon, 100, 80)
    assert (clipped >= 0).all() and (clipped <= (100, 80)).all()
    # Even-odd filling of the whole polygon on a larger canvas, seen through the photo's frame.
    canvas = np.zeros((540, 540), np.uint8)
    cv2.fillPoly(canvas, [(polygon + 220).astype(np.int32)], 255)
    frame = np.zeros_like(canvas)
    if len(clipped):
        cv2.fillPoly(frame, [np.rint(clipped + 220).astype(np.int32)], 255)
    inner = (slice(222, 298), slice(222, 318))
    if not outlines.crosses_itself(polygon):
        differing = (canvas[inner] > 0) != (frame[inner] > 0)
        # Lines that are cut off begin elsewhere, so that single pixels beside them differ.
        blocks = cv2.erode(
            differing.astype(np.uint8), np.ones((4, 4)), borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        assert blocks.sum() == 0


def test_crossing_polygons_are_told_from_simple_ones() -> None:
    assert outlines.crosses_itself(np.array([[0, 0], [10, 10], [10, 0], [0, 10.0]]))
    assert not outlines.crosses_itself(np.array([[0, 0], [10, 0], [10, 10], [0, 10.0]]))
    assert not outlines.crosses_itself(np.array([[0, 0], [10, 0], [5, 3], [10, 10], [0, 10.0]]))


def test_labels_of_another_size_are_scaled_or_left_out(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg")
    half, turned = (
        Found(name, path, name, size=size, regions=(region(TRIANGLE),))
        for name, size in (("half", (60, 40)), ("turned", (80, 120)))
    )
    data, report = taken([half, turned], tmp_path / "data")
    assert [damage.box for damage in data.damages] == [(20, 20, 120, 80)]
    assert report.counts[Trouble.SIZE_DIFFERS] == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("minor-dent", ("dent", "minor", None)),
        ("Glass shatter", ("broken", None, "glass")),
        ("Door", (None, None, "door")),
        ("damage", (None, None, None)),
    ],
)
def test_class_names_are_understood(name: str, expected: tuple[str | None, ...]) -> None:
    meaning = understood(name)
    assert meaning is not None
    assert (meaning.type, meaning.severity, meaning.part) == expected


def test_unknown_classes_are_told_until_they_are_explained() -> None:
    assert understood("Beule") is None
    assert understood("Beule", {"Beule": "severe dent"}).type == "dent"  # type: ignore[union-attr]
    assert understood("plate", {"plate": "ignore"}).ignored  # type: ignore[union-attr]


def test_coco_masks_of_run_lengths(tmp_path: Path) -> None:
    mask = np.zeros((80, 120), np.uint8)
    mask[20:41, 30:71] = 255
    flat = (mask.T.ravel() > 0).astype(int)
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    photo(tmp_path / "a.jpg")
    boxes = []
    # Compressed by hand, as COCO's maskApi does: five bits a character, differences from the third run on.
    text = ""
    for index, run in enumerate(runs):
        value = run - (runs[index - 2] if index > 2 else 0)
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = not (value == -1 and bits & 0x10) and not (value == 0 and not bits & 0x10)
            text += chr(48 + (bits | (0x20 if more else 0)))
    for number, counts in enumerate((runs, text)):
        labels = coco_file(tmp_path, [TRIANGLE])
        content = json.loads(labels.read_text())
        content["annotations"][0]["segmentation"] = {"size": [80, 120], "counts": counts}
        labels.write_text(json.dumps(content))
        data, report = from_coco(tmp_path, labels, tmp_path / f"data{number}")
        assert not report.counts
        boxes.append(data.damages[0].area)
    assert boxes[0] == boxes[1]
    assert boxes[0].iou(Box(30, 20, 71, 41)) > 0.9


def test_what_is_stored_smaller_has_its_labels_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A HEIC photo of 240 x 160 pixels, which its decoder gives at half the size.
    half = cv2.imread(str(photo(tmp_path / "a.jpg")))
    monkeypatch.setattr(intake, "sniff", lambda content: Format.HEIC)
    monkeypatch.setattr(intake, "decode", lambda content, limits: Decoded(half, 240, 160, 0.5))
    data, report = taken([Found("a.heic", b"heic", regions=(region(TRIANGLE),))], tmp_path / "data")
    assert not report.counts
    assert (data.photos[0].width, data.photos[0].file[-4:]) == (120, ".jpg")
    assert data.damages[0].box == (5, 5, 30, 25)
    assert data.labelled()[0].read().shape == (80, 120, 3)


def test_a_retrieval_task_is_known_by_names_and_folders(tmp_path: Path) -> None:
    for number, name in enumerate(("q/d1_a.jpg", "g/d1_b.jpg", "g/d2/any.jpg", "g/strange.jpg")):
        photo(tmp_path / name, seed=number)
    report = Report()
    found = list(folders.query_gallery(tmp_path / "q", tmp_path / "g", report))
    data, _ = taken(found, tmp_path / "data")
    assert {d.photo: d.damage for d in data.damages} == {
        "query/d1_a.jpg": "d1",
        "gallery/d1_b.jpg": "d1",
        "gallery/d2/any.jpg": "d2",
    }
    assert {photo.split for photo in data.photos} == {"query", "gallery"}
    assert report.counts == {Trouble.NO_IDENTITY: 1}


def test_a_table_of_labels_ties_queries_to_references(tmp_path: Path) -> None:
    for number, name in enumerate(("q/00001.png", "q/00002.png", "r/00005.png", "r/00006.png")):
        photo(tmp_path / name, seed=number)
    (tmp_path / "labels.csv").write_text("\ufeffquery,reference\n1,5\n00002,00006.png\n3,6\n1,\n")
    report = Report()
    found, pairs = tables.labels(tmp_path / "labels.csv", tmp_path / "q", tmp_path / "r", report)
    data = take_all(found, Intake(tmp_path / "data", report), pairs)
    assert [(pair.a, pair.b) for pair in data.pairs] == [
        ("query/00001.png", "gallery/00005.png"),
        ("query/00002.png", "gallery/00006.png"),
    ]
    shown = {damage.photo: damage.damage for damage in data.damages}
    assert shown["query/00001.png"] == shown["gallery/00005.png"] != shown["query/00002.png"]
    assert report.counts == {Trouble.PAIR_UNKNOWN: 2}


def test_a_table_may_say_that_two_do_not_belong_together(tmp_path: Path) -> None:
    for number, name in enumerate(("q/1.png", "r/1.png", "r/2.png")):
        photo(tmp_path / name, seed=number)
    words = f"query,reference,verdict\n1,1,same\n1,2,diff\n1,2,{'x' * 400}\n"
    (tmp_path / "labels.csv").write_text(words)
    report = Report()
    found, pairs = tables.labels(tmp_path / "labels.csv", tmp_path / "q", tmp_path / "r", report)
    data = take_all(found, Intake(tmp_path / "data", report), pairs)
    shown = {damage.photo: damage.damage for damage in data.damages}
    assert shown == {"query/1.png": "gallery/1.png", "gallery/1.png": "gallery/1.png"}
    assert [pair.verdict for pair in data.pairs] == ["same", "diff"]
    assert report.counts == {Trouble.ENTRY_BROKEN: 1}


def test_judged_pairs_must_name_known_photos_and_verdicts(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("a,b,verdict\nx,y,copy\nx,z,copy\nx,y,perhaps\nx,x,same\n")
    report = Report()
    assert [p.verdict for p in tables.judged(tmp_path / "pairs.csv", {"x", "y"}, report)] == ["copy"]
    assert report.counts == {Trouble.PAIR_UNKNOWN: 1, Trouble.ENTRY_BROKEN: 2}
    with pytest.raises(DataRefusedError, match="query"):
        list(tables.rows(tmp_path / "pairs.csv", "query", "reference"))


def film(path: Path, frames: list[np.ndarray]) -> None:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def test_of_a_video_the_sharpest_frame_of_each_second_is_taken_and_repeats_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for scene in (0, 1, 1):
        still = cv2.resize(
            np.random.default_rng(scene).integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120)
        )
        still = cv2.add(still, rng.integers(0, 40, still.shape, dtype=np.uint8))
        frames += [still if index == 6 else cv2.GaussianBlur(still, (0, 0), 4) for index in range(10)]
    film(tmp_path / "walk.mp4", frames)
    report = Report()
    found = list(video.read([tmp_path / "walk.mp4"], video.Pace(rate=1), report))
    assert [one.name for one in found] == ["walk/00000.600.jpg", "walk/00001.600.jpg"]
    assert {one.claim for one in found} == {"walk"}
    assert not report.counts
    cut = list(video.read([tmp_path / "walk.mp4"], video.Pace(rate=1, frames=5), report))
    assert len(cut) == 1 and report.counts == {Trouble.VIDEO_CUT: 1}


@pytest.mark.parametrize(
    "content", [b"", b"#EXTM3U\nfile:///etc/hostname\n", b"\0\0\0\x18ftypmp42" + b"\0" * 500]
)
def test_what_is_no_video_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    report = Report()
    assert list(video.read([tmp_path / "a.mp4"], video.Pace(), report)) == []
    assert report.counts == {Trouble.VIDEO_UNREADABLE: 1}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["photos"][0].update(file="../x.jpg"), "below the folder"),
        (lambda c: c["photos"][0].update(file="/etc/hostname"), "below the folder"),
        (lambda c: c["photos"].append(c["photos"][0]), "share a name"),
        (lambda c: c["damages"][0].update(photo="other"), "not listed"),
        (lambda c: c["damages"][0].update(box=[5, 5, 5, 9]), "empty box"),
        (lambda c: c.update(version=2), "version"),
    ],
)
def test_a_data_set_that_makes_no_sense_is_refused(tmp_path: Path, change, told: str) -> None:  # type: ignore[no-untyped-def]
    taken([Found("a", photo(tmp_path / "a.jpg"), regions=(region(TRIANGLE),))], tmp_path / "data")
    path = tmp_path / "data" / dataset.FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataRefusedError, match=told):
        dataset.load(tmp_path / "data")


def test_a_saved_data_set_is_what_it_was_and_its_hash_tells_changes(tmp_path: Path) -> None:
    data, _ = taken([Found("a", photo(tmp_path / "a.jpg"), regions=(region(TRIANGLE),))], tmp_path / "data")
    loaded = dataset.load(tmp_path / "data")
    assert loaded == data
    assert loaded.sha256 == data.sha256
    assert Dataset(tmp_path, data.photos).sha256 != data.sha256
    (labelled,) = loaded.labelled()
    assert labelled.read().shape == (80, 120, 3)
    assert labelled.labels[0].type == 1
