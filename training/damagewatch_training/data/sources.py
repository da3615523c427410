"""The photos that are trained on: where they lie, what is labelled, and which must not be mixed.

The root is a data set as `data import` makes it (`data.dataset`), or holds the folders that the shipped models were
trained on: `damage-polygons` (COCO: polygon, severity and type), `damaged-parts` (COCO: polygon of each damaged
part), `severity` (one folder a class); `same_damage_pairs.csv` lists pairs of photos that look alike.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box

if TYPE_CHECKING:
    from damagewatch_training.data.dataset import Dataset

TYPES = ("scratch", "dent", "broken")
SEVERITIES = ("minor", "moderate", "severe")
JUDGED = Path(__file__).parents[2] / "data-lists" / "judged_pairs.csv"
"""More pairs of these photos, judged by eye since; a checkout has the list, an installed package does not."""
SAME = frozenset({"copy", "same", "mirror"})
"""Verdicts of a pair that shows one and the same damage."""


@dataclass(frozen=True, slots=True)
class Label:
    """One labelled region: `type` and `severity` count in TYPES and SEVERITIES, None where not labelled."""

    polygons: tuple[NDArray[np.float32], ...]
    box: Box
    type: int | None = None
    severity: int | None = None


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of the data, `name` being its path below the root."""

    name: str
    path: Path
    labels: tuple[Label, ...] = ()

    def read(self) -> NDArray[np.uint8]:
        """The photo, uint8 (H, W, 3) BGR, upright."""
        image = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{self.path} is not an image")
        return np.asarray(image, np.uint8)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos, by name, with what was said of them by eye."""

    a: str
    b: str
    verdict: str


def damage_polygons(root: Path, split: str) -> list[Photo]:
    """Photos of `split` ("train" or "val") with damages labelled by polygon, type and severity."""
    if (imported := _imported(root)) is not None:
        return [photo for photo in imported.labelled(split) if any(_typed(x) for x in photo.labels)]
    return _coco(root, Path("damage-polygons") / split, root / "damage-polygons" / f"{split}.json")


def damaged_parts(root: Path) -> list[Photo]:
    """Photos whose damaged parts are outlined: coarse."""
    if (imported := _imported(root)) is not None:
        photos = imported.labelled("train")
        return [photo for photo in photos if photo.labels and not any(_typed(x) for x in photo.labels)]
    return _coco(root, Path("damaged-parts/images"), root / "damaged-parts" / "annotations.json")


def severity(root: Path, split: str) -> list[Photo]:
    """Photos without regions."""
    if (imported := _imported(root)) is not None:
        return [photo for photo in imported.labelled(split) if not photo.labels]
    folder = root / "severity" / split
    return [Photo(str(path.relative_to(root)), path) for path in sorted(folder.glob("*/*.*"))]


def pairs(root: Path, more: Iterable[Path] = ()) -> list[Pair]:
    """The pairs that look alike, as judged, and those of `more` lists."""
    imported = _imported(root)
    own = read_pairs(root / "same_damage_pairs.csv") if imported is None else imported.judged()
    return [*own, *(pair for path in more for pair in read_pairs(path))]


def judged() -> list[Pair]:
    """The pairs of `JUDGED`; none where there is no such list."""
    return read_pairs(JUDGED) if JUDGED.exists() else []


def read_pairs(path: Path) -> list[Pair]:
    """Pairs judged by eye: CSV with the columns a, b (names of photos) and verdict.

    Raises:
        DataRefusedError: The file is none, or a row lacks fields.
    """
    from damagewatch_training.data.dataset import DataRefusedError  # whose module imports this one

    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns, rows = set(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataRefusedError(f"{path}: not a CSV file: {error}") from None
    if not {"a", "b", "verdict"} <= columns:
        raise DataRefusedError(f"{path} lacks the columns a, b and verdict")
    for line, row in rows:
        if None in (row["a"], row["b"], row["verdict"]):
            raise DataRefusedError(f"{path}, line {line}: too few fields, wanted are a, b and verdict")
    return [Pair(row["a"], row["b"], row["verdict"]) for _, row in rows]


def train_split(root: Path) -> list[Photo]:
    """All photos outside the val splits, copies of val photos and of each other among them."""
    return [*damage_polygons(root, "train"), *severity(root, "train"), *damaged_parts(root)]


def training_photos(root: Path) -> list[Photo]:
    """All photos that may be trained on: of each group of copies one, and none that a val photo shows too."""
    held_out = {photo.name for photo in [*damage_polygons(root, "val"), *severity(root, "val")]}
    return without_leaks(train_split(root), held_out, [*pairs(root), *judged()])


def without_leaks(photos: Iterable[Photo], held_out: set[str], known: Iterable[Pair]) -> list[Photo]:
    """Keeps the first of each group that `known` links as the same, of groups without a held-out photo."""
    group = groups(known)
    closed = {group[name] for name in held_out if name in group}
    kept = []
    for photo in photos:
        key = group.get(photo.name, photo.name)
        if key not in closed and photo.name not in held_out:
            closed.add(key)
            kept.append(photo)
    return kept


def _imported(root: Path) -> Dataset | None:
    from damagewatch_training.data import dataset

    return dataset.load(root) if dataset.is_dataset(root) else None


def _typed(label: Label) -> bool:
    return label.type is not None or label.severity is not None


def groups(known: Iterable[Pair]) -> dict[str, str]:
    """Each linked name with one name that stands for its connected component."""
    links: dict[str, set[str]] = defaultdict(set)
    for pair in known:
        if pair.verdict in SAME:
            links[pair.a].add(pair.b)
            links[pair.b].add(pair.a)
    group: dict[str, str] = {}
    for start in sorted(links):
        waiting = [start] if start not in group else []
        while waiting:
            name = waiting.pop()
            if name not in group:
                group[name] = start
                waiting.extend(links[name])
    return group


def _coco(root: Path, folder: Path, annotations: Path) -> list[Photo]:
    content = json.loads(annotations.read_text())
    classes = {category["id"]: category["name"] for category in content["categories"]}
    labels: dict[int, list[Label]] = defaultdict(list)
    for annotation in content["annotations"]:
        polygons = tuple(
            np.asarray(flat, np.float32).reshape(-1, 2)
            for flat in annotation["segmentation"]
            if len(flat) >= 6
        )
        if not polygons:
            continue
        points = np.concatenate(polygons)
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        severity_name, _, type_name = classes[annotation["category_id"]].partition("-")
        labels[annotation["image_id"]].append(
            Label(
                polygons,
                Box(x0, y0, x1, y1),
                TYPES.index(type_name) if type_name in TYPES else None,
                SEVERITIES.index(severity_name) if severity_name in SEVERITIES else None,
            )
        )
    return [
        Photo(
            str(folder / image["file_name"]), root / folder / image["file_name"], tuple(labels[image["id"]])
        )
        for image in sorted(content["images"], key=lambda image: str(image["file_name"]))
    ]
