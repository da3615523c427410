"""Crops in one folder whose names say which damage each shows: `damageid_imageid.jpg` (`data.naming`)."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2

from damagewatch.domain import Box
from damagewatch.vision.hashing import distance, perceptual_hashes
from damagewatch_training.data import crops, naming
from damagewatch_training.data.dataset import DataRefusedError, Dataset, PhotoEntry
from damagewatch_training.data.split import NEAR_COPY

TABLE = "names.csv"


@dataclass(slots=True)
class Encoded:
    """What became of the damages."""

    damages: int = 0
    crops: int = 0
    near_copies: int = 0
    alone: int = 0


def encode(
    data: Dataset, folder: Path, context: float, *, clean: bool, told: Callable[[], None] = lambda: None
) -> Encoded:
    """Writes a crop of each damage from each photo that shows it, and `names.csv` with their photos and boxes.

    The image id is the first 12 digits of the photo's SHA-256, the damage id the name of the damage, or of a longer
    name its hash: so names last when the data grow. `names.csv` has the whole names.

    Args:
        data: with `damage` set on what is known to be one damage; any other region is a damage of its own.
        folder: to write to; must be empty, or not there.
        context: the crop's sides over the damage's.
        clean: leave out crops that nearly copy another of the same damage, plain or mirrored, then damages with
            one crop.
        told: called for each damage.

    Raises:
        DataRefusedError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataRefusedError(f"{folder}: not empty")
    folder.mkdir(parents=True, exist_ok=True)
    photos = {photo.name: photo for photo in data.photos}
    showing: dict[str, dict[str, Box]] = defaultdict(dict)
    for damage in data.damages:
        box = showing[damage.physical].get(damage.photo)
        showing[damage.physical][damage.photo] = damage.area if box is None else _union(box, damage.area)
    result = Encoded()
    with (folder / TABLE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "damage", "photo", "x0", "y0", "x1", "y1"))
        for identity, boxes in showing.items():
            told()
            kept = _kept(data, [(photos[name], box) for name, box in boxes.items()], context, clean, result)
            if clean and len(kept) < 2:
                result.alone += 1
                continue
            result.damages += 1
            for photo, box, crop in kept:
                name = naming.name(naming.identifier(identity), photo.sha256[:12])
                cv2.imwrite(str(folder / name), crop, [cv2.IMWRITE_JPEG_QUALITY, crops.QUALITY])
                corners = (f"{value:.2f}" for value in (box.x0, box.y0, box.x1, box.y1))
                table.writerow((name, identity, photo.name, *corners))
                result.crops += 1
    return result


def _kept(
    data: Dataset, views: list[tuple[PhotoEntry, Box]], context: float, clean: bool, result: Encoded
) -> list[tuple[PhotoEntry, Box, crops.Image]]:
    kept: list[tuple[PhotoEntry, Box, crops.Image]] = []
    looks: list[int] = []
    bytes_seen: set[str] = set()
    for photo, box in views:
        if photo.sha256 in bytes_seen:  # the same file in two claims: one name
            result.near_copies += 1
            continue
        bytes_seen.add(photo.sha256)
        crop = crops.crop_of(data, photo, box, context)
        plain, mirrored = perceptual_hashes(crop)
        if clean and any(distance(seen, one) <= NEAR_COPY for seen in looks for one in (plain, mirrored)):
            result.near_copies += 1
            continue
        looks.append(plain)
        kept.append((photo, box, crop))
    return kept


def _union(one: Box, other: Box) -> Box:
    return Box(min(one.x0, other.x0), min(one.y0, other.y0), max(one.x1, other.x1), max(one.y1, other.y1))
