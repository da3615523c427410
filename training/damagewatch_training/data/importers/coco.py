"""COCO: a file of images, annotations and categories (https://cocodataset.org/#format-data), read and written."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch_training.data import outlines
from damagewatch_training.data.dataset import DamageEntry, DataRefusedError, Dataset
from damagewatch_training.data.importers.found import MAX_REGIONS, Found, Region, located, read_json
from damagewatch_training.data.report import Report, Trouble

_MAX_MASK = 100_000_000
_SIDE = 1_000_000
"""Pixels: no photo is so wide or high."""


def read(labels: Path, photos: Path, report: Report) -> Iterator[Found]:
    """The photos that `labels` names, below the folder `photos`.

    Segmentations are polygons or run lengths (plain or compressed); where there is none, the box is taken. An
    annotation's attribute `damage_id` names the damage on the car, an image's `claim` the claim.

    Raises:
        DataRefusedError: the file cannot be read, or is no COCO data.
    """
    content = read_json(labels)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise DataRefusedError(
            f"{labels}: no COCO data: lists of images, annotations and categories are wanted"
        )
    classes = {
        _key(entry.get("id")): str(entry.get("name"))
        for entry in content["categories"]
        if isinstance(entry, dict)
    }
    annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, entry in enumerate(content["annotations"]):
        if isinstance(entry, dict):
            annotations[_key(entry.get("image_id"))].append(entry)
        else:
            report.add(Trouble.ENTRY_BROKEN, f"annotation {number}", "no object; left out")
    seen = set()
    for number, image in enumerate(content["images"]):
        if not isinstance(image, dict):
            report.add(Trouble.ENTRY_BROKEN, f"image {number}", "no object; left out")
            continue
        seen.add(key := _key(image.get("id")))
        name = image.get("file_name")
        path = located(photos, name)
        if path is None:
            report.add(Trouble.PHOTO_OUTSIDE, str(name), "not a file below the folder of photos; left out")
            continue
        own = annotations.get(key, [])
        if len(own) > MAX_REGIONS:
            report.add(
                Trouble.TOO_MANY, str(name), f"{len(own):,} annotations; the first {MAX_REGIONS} are taken"
            )
        regions = (_region(entry, classes, str(name), report) for entry in own[:MAX_REGIONS])
        yield Found(
            str(name),
            path,
            str(image.get("claim") or "")[:200],
            size=_size(image),
            regions=tuple(region for region in regions if region is not None),
        )
    for key in annotations.keys() - seen:
        report.add(
            Trouble.ENTRY_BROKEN, f"image_id {key}", "annotations of an image that is not listed; left out"
        )


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if (
        isinstance(width, int)
        and isinstance(height, int)
        and min(width, height) > 0
        and max(width, height) < _SIDE
    ):
        return width, height
    return None


def _key(value: object) -> str:
    """Ids are whole numbers, but some tools write them as text."""
    return str(value)[:100]


def _region(entry: dict[str, Any], classes: dict[str, str], name: str, report: Report) -> Region | None:
    where = f"{name} annotation {_key(entry.get('id'))}"
    class_name = classes.get(_key(entry.get("category_id")), f"category {_key(entry.get('category_id'))}")
    attributes = entry.get("attributes")
    damage = attributes.get("damage_id") if isinstance(attributes, dict) else None
    named = str(damage)[:200] if isinstance(damage, str | int) and str(damage) else None
    try:
        segmentation, box = entry.get("segmentation"), entry.get("bbox")
        if isinstance(segmentation, dict):
            outlined = tuple(outlines.outlines(_mask(segmentation)))
            # A mask one pixel wide, a scratch, has no outline.
            return Region(outlined, class_name, None if outlined or not box else _box(box), named)
        if segmentation:
            polygons = tuple(np.array(flat, np.float64).reshape(-1, 2) for flat in segmentation)
            return Region(polygons, class_name, damage=named)
        if box:
            return Region((), class_name, _box(box), named)
    except (KeyError, TypeError, ValueError, OverflowError):
        report.add(Trouble.ENTRY_BROKEN, where, "the segmentation or box cannot be read; left out")
        return None
    report.add(Trouble.ENTRY_BROKEN, where, "neither segmentation nor box; left out")
    return None


def _box(given: Any) -> Box:
    x, y, width, height = (float(value) for value in given)
    return Box(x, y, x + width, y + height)


def _mask(segmentation: dict[str, Any]) -> NDArray[np.uint8]:
    """A mask of run lengths, uint8 (H, W): columns from the top, the first run is background.

    Raises:
        ValueError: the runs do not fill the size.
    """
    height, width = (int(value) for value in segmentation["size"])
    if not (0 < height * width <= _MAX_MASK and min(height, width) > 0):
        raise ValueError("a mask of no size, or of too many pixels")
    counts = segmentation["counts"]
    runs = np.array(_decompressed(counts) if isinstance(counts, str) else counts, np.int64)
    total = height * width
    if len(runs) > total + 1 or (runs < 0).any() or (runs > total).any() or runs.sum() != total:
        raise ValueError("run lengths that do not fill the mask")
    values = np.arange(len(runs)) % 2 * 255
    return np.repeat(values.astype(np.uint8), runs).reshape(width, height).T.copy()


def _decompressed(text: str) -> list[int]:
    """Run lengths from COCO's text: five bits a character, from 48; from the third on differences to two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("not a compressed run length")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def write(data: Dataset, path: Path) -> None:
    """Writes a data set's photos and damages as COCO, so that labelling tools can open them.

    A damage's class is "severity-type", as far as both are labelled, its part, or "damage". File names are as in
    the data set's folder.
    """
    names = sorted({_class_of(damage) for damage in data.damages})
    numbers = {photo.name: number for number, photo in enumerate(data.photos)}
    content = {
        "images": [
            {
                "id": numbers[photo.name],
                "file_name": photo.file,
                "width": photo.width,
                "height": photo.height,
                "claim": photo.claim,
                "name": photo.name,
            }
            for photo in data.photos
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {
                "id": number,
                "image_id": numbers[damage.photo],
                "category_id": names.index(_class_of(damage)),
                "segmentation": [
                    [value for point in polygon for value in point] for polygon in damage.polygons
                ],
                "bbox": [damage.box[0], damage.box[1], damage.area.width, damage.area.height],
                "area": sum(outlines.area(np.array(polygon)) for polygon in damage.polygons),
                "iscrowd": 0,
                "attributes": {"damage_id": damage.physical},
            }
            for number, damage in enumerate(data.damages)
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _class_of(damage: DamageEntry) -> str:
    return "-".join(word for word in (damage.severity, damage.type) if word) or damage.part or "damage"
