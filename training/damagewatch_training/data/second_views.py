"""Photos of a data set photographed again, with exact correspondences: views that real claims hardly ever hold."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, sha256_of
from damagewatch.synthesis.conditions import Condition, Movement, View, rephotograph_under
from damagewatch.vision.hashing import perceptual_hashes
from damagewatch_training.data import crops, dataset, outlines, windows
from damagewatch_training.data.dataset import (
    MADE_FROM,
    PHOTOS,
    DamageEntry,
    DataRefusedError,
    Dataset,
    PairEntry,
    PhotoEntry,
)

CORRESPONDENCES = "correspondences"
LEAST_VISIBLE = 0.5
"""Share of a damage's area that a view shows at least; what is hidden more is not labelled in it."""
_SIDE = 8.0
"""Pixels: longer sides of polygons are divided before they are bent."""
_ATTEMPTS = 4
_SAVED_EACH = 2_000

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Plan:
    """What views are made: of each photo `count`; each of `conditions` happens with probability `chance`.

    `strength` is as in `rephotograph`; `mirrored` is the share of views that are mirrored.
    """

    count: int = 2
    conditions: tuple[Condition, ...] = tuple(Condition)
    chance: float = 0.25
    strength: float = 1.0
    mirrored: float = 0.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Made:
    """A photo that was made, as bytes of a JPEG, with its entry and those of its damages."""

    content: bytes
    photo: PhotoEntry
    damages: tuple[DamageEntry, ...]
    correspondence: dict[str, NDArray[np.generic]] | None = None


def make(
    data: Dataset,
    out: Path,
    plan: Plan,
    split: str = "",
    workers: int | None = None,
    told: Callable[[], None] = lambda: None,
) -> Dataset:
    """Makes views of the photos of `split` (empty: of all), and saves them with all of the data in `out`.

    A view is named after its photo with `~1` and so on, is of the same split but of another claim, and is paired
    with it. `out` may be the data's own folder, which then grows. Views that are there already are not made again.
    """
    grown = Growing(data, out)
    saved = len(grown.photos)
    chosen = [
        photo for photo in data.photos if split in {"", photo.split} and MADE_FROM not in photo.attributes
    ]
    damages = data.damages_of()
    tasks = []
    for photo in chosen:
        if any(f"{photo.name}~{number}" not in grown.photos for number in range(1, plan.count + 1)):
            tasks.append((data.folder, photo, tuple(damages.get(photo.name, ())), plan))
        else:
            told()
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for (_, photo, _, _), views in zip(tasks, pool.map(_views_of, tasks, chunksize=2), strict=True):
            for made in views:
                if made.photo.name in grown.photos:
                    continue
                grown.add(made)
                mirrored = made.photo.attributes.get("mirrored") == "yes"
                grown.pairs.append(
                    PairEntry(a=photo.name, b=made.photo.name, verdict="mirror" if mirrored else "same")
                )
            told()
            if len(grown.photos) - saved > _SAVED_EACH:  # whoever stops it loses little
                saved = len(grown.saved().photos)
    return grown.saved()


class Growing:
    """A data set in `out` that holds all of `data`, and to which photos that were made are added."""

    def __init__(self, data: Dataset, out: Path) -> None:
        """Starts from what is in `out` already.

        Raises:
            DataRefusedError: `out` holds another photo under a name of `data`, or the same one of another split.
        """
        known = dataset.load(out) if dataset.is_dataset(out) else Dataset(out)
        self._out = out
        self.photos = {photo.name: photo for photo in known.photos}
        self.damages = {damage.id: damage for damage in known.damages}
        self.pairs = list(known.pairs)
        if out.resolve() == data.folder.resolve():
            return
        for photo in data.photos:
            there = self.photos.setdefault(photo.name, photo)
            if there.sha256 != photo.sha256:
                raise DataRefusedError(
                    f"{out}: another photo is called {photo.name!r} there: give another --out"
                )
            if there.split != photo.split:
                raise DataRefusedError(
                    f"{out}: {photo.name!r} is of the split {there.split!r} there, of {photo.split!r} in "
                    f"{data.folder}, which was split again: give another --out"
                )
            if not (out / photo.file).exists():
                dataset.write_whole(out / photo.file, (data.folder / photo.file).read_bytes())
        for damage in data.damages:
            self.damages.setdefault(damage.id, damage)
        self.pairs.extend(data.pairs)

    def add(self, made: Made) -> None:
        """Writes a made photo. The damages that it shows are tied to those that they come from by `damage`."""
        dataset.write_whole(self._out / made.photo.file, made.content)
        if made.correspondence is not None:
            path = correspondence_of(self._out, made.photo)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                np.savez_compressed(file, **made.correspondence)  # type: ignore[arg-type]
        self.photos[made.photo.name] = made.photo
        for damage in made.damages:
            self.damages[damage.id] = damage
            first = self.damages.get(damage.physical)
            if first is not None and first.damage is None:
                self.damages[first.id] = first.model_copy(update={"damage": first.id})

    def saved(self) -> Dataset:
        """The data set, saved."""
        known = {(pair.a, pair.b): pair for pair in self.pairs}
        grown = Dataset(
            self._out, tuple(self.photos.values()), tuple(self.damages.values()), tuple(known.values())
        )
        grown.save()
        return grown


def correspondence_of(folder: Path, photo: PhotoEntry) -> Path:
    """The file that says where the pixels of its first photo lie in a view.

    Arrays: `map` float32 (rows, columns, 2) and `visible` uint8 (H, W) as in `synthesis.conditions` (look points up
    by `looked_up`); `homography` float64 (3, 3) where the panel is flat; `scale`: the map takes the first photo's
    pixels times this (1 but for photos of more than 2,560 pixels); `first`: the first photo's name.
    """
    return folder / CORRESPONDENCES / f"{Path(photo.file).stem}.npz"


def _views_of(task: tuple[Path, PhotoEntry, tuple[DamageEntry, ...], Plan]) -> list[Made]:
    folder, photo, damages, plan = task
    cv2.setNumThreads(1)
    pixels = crops.read(Dataset(folder), photo)
    return list(views(pixels.image, pixels.scale, photo, damages, plan))


def views(
    image: Image, scale: float, photo: PhotoEntry, damages: Sequence[DamageEntry], plan: Plan
) -> Iterator[Made]:
    """The views of one photo; its chance depends on its name and the seed alone.

    A view that shows none of the damages is drawn anew, and left out after some attempts.

    Args:
        image: uint8 (H, W, 3) BGR, `scale` times the photo.
        scale: of the image.
        photo: its entry.
        damages: its damages, in pixels of the full photo.
        plan: how many, and how.
    """
    for number in range(1, plan.count + 1):
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([plan.seed, zlib.crc32(photo.name.encode()), number, attempt])
            conditions = frozenset(one for one in plan.conditions if rng.random() < plan.chance)
            mirror = bool(rng.random() < plan.mirrored)
            view = rephotograph_under(image, rng, conditions, plan.strength, mirror=mirror)
            name = f"{photo.name}~{number}"
            seen = [
                damage
                for index, one in enumerate(damages, 1)
                if (damage := seen_again(one, view, scale, f"{name}#{index}", name, rng)) is not None
            ]
            if seen or not damages:
                attributes = {
                    **photo.attributes,
                    MADE_FROM: photo.name,
                    "conditions": " ".join(sorted(conditions)),
                    "mirrored": "yes" if mirror else "no",
                }
                entry = entry_of(
                    name, view.encoded(), photo.split, f"{photo.claim or photo.name}~{number}", attributes
                )
                yield Made(entry[0], entry[1], tuple(seen), _correspondence(view, scale, photo.name))
                break


def entry_of(
    name: str, content: bytes, split: str, claim: str, attributes: dict[str, str]
) -> tuple[bytes, PhotoEntry]:
    """The bytes of a made photo with its entry."""
    image = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    plain, mirrored = perceptual_hashes(image)
    sha256 = sha256_of(content)
    return content, PhotoEntry(
        name=name,
        file=f"{PHOTOS}/{sha256[:20]}.jpg",
        sha256=sha256,
        width=image.shape[1],
        height=image.shape[0],
        hashes=(f"{plain:016x}", f"{mirrored:016x}"),
        claim=claim[:512],
        split=split,
        attributes=attributes,
    )


def _correspondence(view: View, scale: float, first: str) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {
        "map": view.movement.grid(),
        "visible": view.visible,
        "scale": np.array(scale),
        "first": np.array(first),
    }
    if view.movement.homography is not None:
        arrays["homography"] = view.movement.homography
    return arrays


def seen_again(
    damage: DamageEntry, view: View, scale: float, name: str, photo: str, rng: np.random.Generator
) -> DamageEntry | None:
    """A damage as a view shows it: polygons exact, the box as a detector would have drawn it.

    None where less than `LEAST_VISIBLE` of it is to be seen.
    """
    height, width = view.visible.shape
    whole = [moved_outline(polygon, view.movement) for polygon in polygons_of(damage, scale)]
    kept = [
        left
        for polygon in whole
        if len(left := outlines.clipped(polygon, width, height)) >= 3
        and outlines.area(left) >= outlines.SMALLEST
    ]
    seen = int(((outlines.filled(kept, width, height) > 0) & (view.visible > 0)).sum())
    if not kept or seen < LEAST_VISIBLE * max(sum(outlines.area(polygon) for polygon in whole), 1):
        return None
    box = windows.jittered(outlines.box_around(kept), rng, width, height)
    if box.area <= 0:
        return None
    return damage.model_copy(
        update={
            "id": name,
            "photo": photo,
            "polygons": as_tuples(kept) if damage.polygons else (),
            "box": (box.x0, box.y0, box.x1, box.y1),
            "damage": damage.physical,
        }
    )


def polygons_of(damage: DamageEntry, scale: float = 1.0) -> list[outlines.Points]:
    """A damage's polygons, or its box where it has none, times `scale`."""
    if damage.polygons:
        return [np.array(polygon, np.float64) * scale for polygon in damage.polygons]
    box: Box = damage.area
    corners = [[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]]
    return [np.array(corners, np.float64) * scale]


def moved_outline(polygon: outlines.Points, movement: Movement) -> outlines.Points:
    """A polygon where a movement takes it; sides are divided where straight ones become bent."""
    if movement.relief is None:
        return movement.forward(polygon)
    points = []
    for start, end in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        parts = max(1, int(np.ceil(np.hypot(*(end - start)) / _SIDE)))
        points.append(start + (end - start) * (np.arange(parts) / parts)[:, None])
    return movement.forward(np.concatenate(points))


def as_tuples(polygons: Iterable[outlines.Points]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Polygons as a data set keeps them, to a hundredth of a pixel."""
    return tuple(
        tuple((float(x), float(y)) for x, y in np.round(polygon, 2).tolist()) for polygon in polygons
    )
