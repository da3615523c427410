"""YOLO polygons: beside each photo, or in `labels` for `images`, a text file of `class x y x y ...`, 0 to 1.

A line of four numbers is a box: centre, width, height. Class names are in `classes.txt`, or under `names` in
`data.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from damagewatch.domain import Box
from damagewatch.folders import photos_in
from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.data.importers.found import MAX_REGIONS, Found, Region, located, read_bytes
from damagewatch_training.data.report import Report, Trouble

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read(folder: Path, report: Report) -> Iterator[Found]:
    """The photos below `folder`, split as their folders (train, val, test) say.

    Coordinates are shares of the photo: `Found.size` is (1, 1).

    Raises:
        DataRefusedError: there is no list of classes.
    """
    names = _names(folder)
    for file in photos_in([folder]):
        relative = file.path.relative_to(folder)
        name = relative.as_posix()
        if located(folder, name) is None:
            report.add(Trouble.PHOTO_OUTSIDE, name, "a link that leads out of the folder; left out")
            continue
        split = next((_SPLITS[part] for part in relative.parts[:-1] if part in _SPLITS), "")
        regions = tuple(_regions(folder, _labels_of(relative), names, report))
        yield Found(name, file.path, split=split, size=(1, 1), regions=regions)


def _labels_of(photo: Path) -> Path:
    """`a/images/b.jpg` has its labels in `a/labels/b.txt`, any other photo beside it."""
    parts = list(photo.parts[:-1])
    for index in reversed(range(len(parts))):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts, photo.stem + ".txt")


def _regions(folder: Path, labels: Path, names: list[str], report: Report) -> Iterator[Region]:
    path = located(folder, labels.as_posix())
    if path is None or not path.is_file():
        return
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    if len(lines) > MAX_REGIONS:
        report.add(Trouble.TOO_MANY, str(labels), f"{len(lines):,} lines; the first {MAX_REGIONS} are taken")
    for number, line in enumerate(lines[:MAX_REGIONS], 1):
        where = f"{labels.as_posix()} line {number}"
        try:
            first, *rest = line.split()
            values = np.array(rest, np.float64)
            if len(values) < 4 or len(values) % 2 or not np.isfinite(values).all() or int(first) < 0:
                raise ValueError
        except ValueError:
            if line.strip():
                report.add(Trouble.ENTRY_BROKEN, where, "not `class x y x y ...`; left out")
            continue
        class_name = names[int(first)] if int(first) < len(names) else f"class {int(first)}"
        if len(values) > 4:
            yield Region((values.reshape(-1, 2),), class_name)
            continue
        x, y, width, height = values.tolist()
        if width <= 0 or height <= 0:
            report.add(Trouble.ENTRY_BROKEN, where, "a box without area; left out")
            continue
        yield Region((), class_name, Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _names(folder: Path) -> list[str]:
    for path in (folder / "classes.txt", folder / "labels" / "classes.txt"):
        if path.is_file():
            return [line.strip() for line in read_bytes(path).decode("utf-8", "replace").splitlines()]
    for path in (folder / "data.yaml", folder / "data.yml"):
        if path.is_file():
            return _from_yaml(path)
    raise DataRefusedError(f"{folder}: no classes.txt and no data.yaml, which name the classes")


def _from_yaml(path: Path) -> list[str]:
    import yaml

    try:
        names = yaml.safe_load(read_bytes(path))["names"]
    except (yaml.YAMLError, TypeError, KeyError, ValueError, RecursionError):
        raise DataRefusedError(f"{path}: no YAML with `names`") from None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if isinstance(names, dict):
        numbers = [int(key) for key in names if re.fullmatch(r"\d{1,4}", str(key))]
        told = [names.get(number, names.get(str(number))) for number in range(max(numbers, default=-1) + 1)]
        # Words alone: a list of lists of lists, by YAML's aliases, would never be written out.
        return [str(name) if isinstance(name, str | int | float) else "" for name in told]
    raise DataRefusedError(f"{path}: `names` is neither a list nor an object")
