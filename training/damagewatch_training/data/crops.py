"""Crops of damages: around the polygons that people drew, or around what a detector found, for people to look at."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, Refused
from damagewatch.vision import regions
from damagewatch.vision.decode import Photo, decode
from damagewatch.vision.models import Models
from damagewatch.vision.resample import cut, fitted
from damagewatch_training.data import contact_sheet
from damagewatch_training.data.dataset import DamageEntry, DataRefusedError, Dataset, PhotoEntry
from damagewatch_training.data.importers.found import read_bytes
from damagewatch_training.data.report import Report, Trouble

Image = NDArray[np.uint8]

TABLE = "crops.csv"
COLUMNS = ("keep", "file", "photo", "x0", "y0", "x1", "y1", "type", "severity", "part", "score", "polygons")
LONGEST = 768
"""Pixels of a crop's longer side, at most, as in the evidence that the service keeps."""
OVERLAP = 0.3
"""IoU from which a detected damage is one that was labelled already."""
DAMAGE_SHARES = 0.06, 0.25
"""Least and most that the sides of a damage mostly have, of the photo's."""
QUALITY = 95


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A damage with the pixels around it: uint8 (h, w, 3) BGR, of the photo's part `window`."""

    damage: DamageEntry
    image: Image
    window: Box


def around(box: Box, photo: PhotoEntry, context: float) -> Box:
    """The window of a damage as the service cuts it, its sides `context` times the box's."""
    x, y = box.centre
    wide, high = (side * context / regions.CONTEXT / 2 for side in (box.width, box.height))
    return regions.window(Box(x - wide, y - high, x + wide, y + high), photo.width, photo.height)


def read(data: Dataset, photo: PhotoEntry) -> Photo:
    """A photo of the data set, decoded.

    Raises:
        DataRefusedError: its file is gone or broken since it was taken in.
    """
    path = data.folder / photo.file
    try:
        return decode(path.read_bytes())
    except (OSError, Refused) as error:
        raise DataRefusedError(f"{path}: {error}") from None


def labelled(data: Dataset, context: float, told: Callable[[], None] = lambda: None) -> Iterator[Crop]:
    """The crops of all damages of the data set."""
    damages = data.damages_of()
    for photo in data.photos:
        told()
        own = damages.get(photo.name, [])
        pixels = read(data, photo) if own else None
        for damage in own:
            assert pixels is not None
            yield _crop(damage, pixels, photo, context)


def detected(
    data: Dataset, models: Models, least: float, context: float, told: Callable[[], None] = lambda: None
) -> Iterator[Crop]:
    """The crops of damages that the detector finds with a score of `least` or more, and that nobody labelled."""
    damages = data.damages_of()
    for photo in data.photos:
        told()
        pixels = read(data, photo)
        known = [damage.area for damage in damages.get(photo.name, [])]
        for number, region in enumerate(models.detector.detect(pixels), 1):
            if region.score < least or any(region.box.iou(box) >= OVERLAP for box in known):
                continue
            damage = DamageEntry(
                id=f"{photo.name}#detected-{number}",
                photo=photo.name,
                box=(region.box.x0, region.box.y0, region.box.x1, region.box.y1),
                polygons=region.polygons,
                type=region.type.value,  # type: ignore[arg-type]
                severity=region.severity.value,  # type: ignore[arg-type]
                score=region.score,
            )
            yield _crop(damage, pixels, photo, context)


def undamaged(
    data: Dataset, each: int, seed: int, context: float, told: Callable[[], None] = lambda: None
) -> Iterator[Crop]:
    """Up to `each` crops of each photo that touch none of its damages; of photos without labels nothing is known."""
    damages = data.damages_of()
    for index, photo in enumerate(data.photos):
        told()
        own = [damage.area for damage in damages.get(photo.name, [])]
        if not own:
            continue
        rng = np.random.default_rng([seed, index])
        pixels = None
        for number in range(each):
            box = free_place(own, photo.width, photo.height, rng, context)
            if box is None:
                break
            pixels = pixels or read(data, photo)
            damage = DamageEntry(
                id=f"{photo.name}#undamaged-{number}", photo=photo.name, box=(box.x0, box.y0, box.x1, box.y1)
            )
            yield _crop(damage, pixels, photo, context)


def free_place(
    damages: list[Box],
    width: int,
    height: int,
    rng: np.random.Generator,
    context: float = 1.0,
    shares: tuple[float, float] = DAMAGE_SHARES,
) -> Box | None:
    """A box whose surroundings (`context` times the box) touch none of `damages`; None where a few tries find none.

    Its sides are between the two `shares` of the photo's; those of damages, if not given.
    """
    for _ in range(20):
        share = np.exp(rng.uniform(np.log(shares[0]), np.log(shares[1]), 2))
        wide, high = (share * (width, height)).tolist()
        x, y = rng.uniform(0, width - wide), rng.uniform(0, height - high)
        box = Box(x, y, x + wide, y + high)
        dx, dy = wide * (context - 1) / 2, high * (context - 1) / 2
        surroundings = Box(x - dx, y - dy, x + wide + dx, y + high + dy)
        if all(surroundings.intersection(damage) is None for damage in damages):
            return box
    return None


def crop_of(data: Dataset, photo: PhotoEntry, box: Box, context: float) -> Image:
    """The pixels around a box of a photo, uint8 (h, w, 3) BGR."""
    return _cut(read(data, photo), around(box, photo, context))


def _crop(damage: DamageEntry, pixels: Photo, photo: PhotoEntry, context: float) -> Crop:
    window = around(damage.area, photo, context)
    return Crop(damage, _cut(pixels, window), window)


def _cut(photo: Photo, window: Box) -> Image:
    longest = min(LONGEST, max(1, round(max(window.width, window.height) * photo.scale)))
    return cut(photo, window, *fitted(window, longest))


def write(crops: Iterable[Crop], folder: Path) -> int:
    """Writes crops, a table of them, and contact sheets, the least certain first. Returns how many.

    In the table, `keep` is 1: whoever looks at the sheets sets it to 0, or deletes the row, of what is wrong, and
    takes the rest in by `data import crops`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, crop in enumerate(crops, 1):
        name = f"{number:06}.jpg"
        cv2.imwrite(str(folder / name), crop.image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        rows.append((crop.damage, name, crop.window))
    rows.sort(key=lambda row: (row[0].score or 0, row[1]))
    with (folder / TABLE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for damage, name, _ in rows:
            corners = (f"{value:.2f}" for value in damage.box)
            words = (damage.type or "", damage.severity or "", damage.part or "")
            score = "" if damage.score is None else damage.score
            table.writerow((1, name, damage.photo, *corners, *words, score, json.dumps(damage.polygons)))
    cells = (
        (_outlined(folder / name, damage, window), f"{Path(name).stem} {_caption(damage)}")
        for damage, name, window in rows
    )
    contact_sheet.write(cells, folder)
    return len(rows)


def _outlined(path: Path, damage: DamageEntry, window: Box) -> Image:
    """The crop with its damage outlined, for the sheets alone."""
    image = np.asarray(cv2.imread(str(path)), np.uint8)
    scale = image.shape[1] / window.width, image.shape[0] / window.height
    box = damage.area
    corners = ((box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1))
    for polygon in damage.polygons or (corners,):
        points = (np.array(polygon) - (window.x0, window.y0)) * scale
        thick = max(1, round(max(image.shape[:2]) / contact_sheet.SIDE))
        cv2.polylines(image, [np.rint(points).astype(np.int32)], True, (0, 255, 255), thick, cv2.LINE_AA)
    return image


def _caption(damage: DamageEntry) -> str:
    score = "" if damage.score is None else f"{damage.score:.2f}"
    return " ".join(word for word in (score, damage.severity, damage.type, damage.part) if word)


def reviewed(table: Path, data: Dataset, report: Report) -> Dataset:
    """The data set with the damages of a table as `write` made it, of the rows that were kept.

    Raises:
        DataRefusedError: no such table.
    """
    photos = {photo.name: photo for photo in data.photos}
    taken = {damage.id for damage in data.damages}
    added = []
    lines = read_bytes(table).decode("utf-8-sig", "replace").splitlines(keepends=True)
    try:
        rows = csv.DictReader(lines, restval="")
        if not set(COLUMNS) <= set(rows.fieldnames or ()):
            raise DataRefusedError(f"{table}: columns {', '.join(COLUMNS)} are wanted")
        for number, row in enumerate(rows, 2):
            if row["keep"].strip().lower() not in {"1", "true", "yes"}:
                continue
            where = f"{table.name} line {number}"
            photo = photos.get(row["photo"])
            if photo is None:
                report.add(Trouble.PHOTO_MISSING, where, f"{row['photo']}; left out")
                continue
            damage = _damage(row, photo)
            if damage is None:
                report.add(Trouble.ENTRY_BROKEN, where, "the box, polygons, type or severity; left out")
            elif damage.id in taken:
                report.add(Trouble.LABEL_TWICE, where, "was taken before; left out")
            else:
                taken.add(damage.id)
                added.append(damage)
                report.damages += 1
    except csv.Error as error:
        raise DataRefusedError(f"{table}: {error}") from None
    return replace(data, damages=(*data.damages, *added))


def _damage(row: dict[str, str], photo: PhotoEntry) -> DamageEntry | None:
    try:
        x0, y0, x1, y1 = (float(row[key]) for key in ("x0", "y0", "x1", "y1"))
        inside = Box(x0, y0, x1, y1).intersection(Box(0, 0, photo.width, photo.height))
        if inside is None:
            return None
        return DamageEntry(
            id=f"{photo.name}#detected-{x0:.0f}-{y0:.0f}-{x1:.0f}-{y1:.0f}",
            photo=photo.name,
            box=(inside.x0, inside.y0, inside.x1, inside.y1),
            polygons=json.loads(row["polygons"] or "[]"),
            type=row["type"] or None,  # type: ignore[arg-type]
            severity=row["severity"] or None,  # type: ignore[arg-type]
            part=row["part"] or None,
            score=float(row["score"]) if row["score"] else None,
        )
    except (ValueError, RecursionError):
        return None
