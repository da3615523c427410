"""VIA polygons: `via_region_data.json` of the VGG Image Annotator, version 1 or 2, or a whole VIA project.

Format: https://www.robots.ox.ac.uk/~vgg/software/via/. `regions` is a list, or (version 1) an object of regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.data.importers.found import MAX_REGIONS, Found, Region, located, read_json
from damagewatch_training.data.report import Report, Trouble

_DAMAGE_KEYS = ("damage_id", "damage-id", "damageid")


def read(labels: Path, photos: Path, report: Report) -> Iterator[Found]:
    """The photos that `labels` names, below the folder `photos`.

    Region attributes of any name are read for the class ("type": "dent", "severity": "minor"); one named
    `damage_id` names the damage on the car. The file attribute `claim` names the claim, others become attributes.

    Raises:
        DataRefusedError: the file cannot be read, or is no VIA data.
    """
    content = read_json(labels)
    if isinstance(content, dict) and isinstance(content.get("_via_img_metadata"), dict):
        content = content["_via_img_metadata"]
    entries = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(entries, list) or not any(
        isinstance(entry, dict) and "regions" in entry for entry in entries
    ):
        raise DataRefusedError(f"{labels}: no VIA data: entries with `filename` and `regions` are wanted")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            report.add(Trouble.ENTRY_BROKEN, f"entry {number}", "no object; left out")
            continue
        name = entry.get("filename")
        path = located(photos, name)
        if path is None:
            report.add(Trouble.PHOTO_OUTSIDE, str(name), "not a file below the folder of photos; left out")
            continue
        attributes = _texts(entry.get("file_attributes"))
        claim = attributes.pop("claim", "")
        yield Found(
            str(name), path, claim, regions=tuple(_regions(entry, str(name), report)), attributes=attributes
        )


def _regions(entry: dict[str, Any], name: str, report: Report) -> Iterator[Region]:
    regions = entry.get("regions")
    if isinstance(regions, dict):
        regions = list(regions.values())
    if not isinstance(regions, list):
        report.add(Trouble.ENTRY_BROKEN, name, "`regions` is neither a list nor an object; taken as none")
        return
    if len(regions) > MAX_REGIONS:
        report.add(Trouble.TOO_MANY, name, f"{len(regions):,} regions; the first {MAX_REGIONS} are taken")
    for number, region in enumerate(regions[:MAX_REGIONS], 1):
        where = f"{name} region {number}"
        shape = region.get("shape_attributes") if isinstance(region, dict) else None
        if not isinstance(shape, dict):
            report.add(Trouble.ENTRY_BROKEN, where, "no `shape_attributes`; left out")
            continue
        try:
            points = _points(shape)
        except (KeyError, TypeError, ValueError, OverflowError):
            report.add(Trouble.ENTRY_BROKEN, where, "coordinates are missing or no numbers; left out")
            continue
        if points is None:
            report.add(Trouble.SHAPE_UNSUPPORTED, where, f"{shape.get('name')}; left out")
            continue
        attributes = _texts(region.get("region_attributes"))
        damage = next((attributes.pop(key) for key in _DAMAGE_KEYS if key in attributes), None)
        yield Region((points,), " ".join(attributes.values()) or "damage", damage=damage or None)


def _points(shape: dict[str, Any]) -> NDArray[np.float64] | None:
    """The outline (N, 2) of a shape; None for shapes that have none."""
    if shape.get("name") in {"polygon", "polyline"}:
        return np.column_stack([np.array(shape[f"all_points_{axis}"], np.float64).ravel() for axis in "xy"])
    if shape.get("name") == "rect":
        x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
        return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    return None


def _texts(attributes: object) -> dict[str, str]:
    """Attributes as text. A VIA checkbox is an object of the chosen values."""
    if not isinstance(attributes, dict):
        return {}
    texts = {}
    for key, value in list(attributes.items())[:50]:
        chosen = [name for name, ticked in value.items() if ticked] if isinstance(value, dict) else [value]
        text = " ".join(str(one) for one in chosen if isinstance(one, str | int | float))
        if text:
            texts[str(key)[:200]] = text[:200]
    return texts
