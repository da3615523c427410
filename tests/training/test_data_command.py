"""The data commands as their user meets them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from damagewatch.cli.failure import Failure
from damagewatch_training.cli.data import app
from damagewatch_training.data import dataset
from damagewatch_training.data.dataset import DataRefusedError

COMMANDS = [[name] for name in ("crop", "encode", "split", "rephotograph", "splice", "export-coco")] + [
    ["import", name]
    for name in ("via", "coco", "yolo", "claims", "query-gallery", "labels", "pairs", "video", "crops")
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def code(result: Result) -> int:
    """As `damagewatch-train` ends."""
    if isinstance(result.exception, Failure):
        return result.exception.code
    return 1 if isinstance(result.exception, DataRefusedError) else result.exit_code


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    """Two claims with one photo each, and VIA polygons of both."""
    entries = {}
    for number in range(2):
        small = np.random.default_rng(number).integers(90, 160, (4, 5, 3), dtype=np.uint8)
        image = cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC)
        cv2.rectangle(image, (150, 100), (190, 130), (20, 20, 30), -1)
        path = tmp_path / "claims" / f"c{number}" / "a.jpg"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), image)
        shape = {
            "name": "polygon",
            "all_points_x": [150, 190, 190, 150],
            "all_points_y": [100, 100, 130, 130],
        }
        entries[f"k{number}"] = {
            "filename": f"c{number}/a.jpg",
            "regions": [{"shape_attributes": shape, "region_attributes": {"type": "Beule"}}],
            "file_attributes": {"claim": f"c{number}"},
        }
    (tmp_path / "claims" / "via_region_data.json").write_text(json.dumps(entries))
    return tmp_path / "claims"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches_by_example(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"data {' '.join(command)}" in " ".join(result.output.split())


def test_from_labels_to_crops_and_views(claims: Path, tmp_path: Path) -> None:
    labels, data = claims / "via_region_data.json", tmp_path / "data"
    result = run("import", "via", labels, "--out", data, "--json")
    report = json.loads(result.stdout)
    assert (code(result), report["photos"], report["counts"]) == (0, 2, {"class unknown": 2})
    assert "--class 'Beule=dent'" in report["problems"][0]["detail"]
    data = tmp_path / "other"
    assert code(run("import", "via", labels, "--out", data, "--class", "Beule=minor dent")) == 0
    assert code(run("split", data, "--val", "0.5")) == 0
    assert code(run("split", data, "--check")) == 0
    assert {photo.split for photo in dataset.load(data).photos} == {"train", "val"}
    assert code(run("crop", data, "--out", tmp_path / "crops")) == 0
    assert code(run("rephotograph", data, "--views", 1, "--workers", 1, "--out", tmp_path / "views")) == 0
    assert len(dataset.load(tmp_path / "views").photos) == 4
    assert code(run("encode", tmp_path / "views", "--clean", "--out", tmp_path / "named")) == 0
    assert len(list((tmp_path / "named").glob("*_*.jpg"))) == 4
    assert code(run("encode", tmp_path / "views", "--split", "val", "--out", tmp_path / "val")) == 0
    assert len(list((tmp_path / "val").glob("*_*.jpg"))) == 2
    assert code(run("encode", data, "--clean", "--out", tmp_path / "nothing")) == 1
    assert code(run("export-coco", data, data / "coco.json")) == 0
    again = run("import", "coco", data / "coco.json", "--out", tmp_path / "again")
    assert code(again) == 0
    assert [d.polygons for d in dataset.load(tmp_path / "again").damages] == [
        d.polygons for d in dataset.load(data).damages
    ]


def test_a_leak_is_listed_and_fails(claims: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "val"):
        run("import", "claims", claims, "--split", split, "--prefix", f"{split}/", "--out", data)
    result = run("split", data, "--check", "--json")
    told = json.loads(result.stdout)
    assert code(result) == 1
    assert {(leak["a"], leak["b"]) for leak in told["leaks"]} >= {("train/c0/a.jpg", "val/c0/a.jpg")}
    assert code(run("split", data, "--val", 0.4)) == 0


def test_what_holds_nothing_usable_fails(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text("{")
    assert code(run("import", "claims", tmp_path / "empty", "--out", tmp_path / "data")) == 1
    assert code(run("import", "via", tmp_path / "bad.json", "--out", tmp_path / "data")) == 1
    assert code(run("import", "via", tmp_path / "gone.json", "--out", tmp_path / "data")) == 2
    assert code(run("import", "via", tmp_path / "bad.json", "--out", tmp_path / "data", "--class", "x")) == 2
    assert code(run("split", tmp_path / "empty")) == 1
    assert not (tmp_path / "data").exists()
