"""Damages cut from their photos and blended onto other cars, or onto undamaged places: more damages than there are.

A damage with some of the panel around it is scaled, seen from another side as a curved panel, brought to the colours
of the place, and blended by Poisson's equation (Perez et al., Poisson Image Editing, SIGGRAPH 2003).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch.synthesis.conditions import Movement, Relief, moved
from damagewatch.synthesis.rephotograph import standpoint
from damagewatch_training.data import crops, outlines, second_views
from damagewatch_training.data.dataset import (
    MADE_FROM,
    MADE_ONTO,
    DamageEntry,
    DataRefusedError,
    Dataset,
    PairEntry,
    PhotoEntry,
)
from damagewatch_training.data.second_views import Growing, Made, Plan

Image = NDArray[np.uint8]

CLEAR_SIDE = 24
"""Pixels: damages smaller than this show nothing."""
LARGEST = 0.12
"""Share of its photo that a damage covers at most: larger ones are half a car."""
_MARGIN = 0.35
"""Of panel around the damage, in its own sizes, that is taken along and blended."""
_PLACES = 48
_SEEN = 12
"""Grey levels by which the clearest twentieth of a spliced damage changes the place."""
_UNEVEN = 7.0
"""Lab units: a place further from smooth shading holds an edge, a lamp, the road."""
_OTHER_COLOUR = 45.0
"""Lab units, summed: a place further from the panel beside a known damage is no panel of that car."""
_ATTEMPTS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A damage with its surroundings: uint8 (h, w, 3) BGR; its polygons in the patch's pixels."""

    image: Image
    polygons: tuple[outlines.Points, ...]


def splice(
    data: Dataset,
    onto: Dataset,
    out: Path,
    count: int,
    views: int,
    seed: int,
    split: str = "",
    told: Callable[[], None] = lambda: None,
) -> Dataset:
    """Makes `count` photos with a spliced damage, each with `views` - 1 more views, and saves them in `out`.

    Damages and places are of photos of `split` (empty: of one split or another, but both of the same where both have
    one). Photos of `onto` with labelled damages get the new one elsewhere; those without any are taken for undamaged
    where `onto` is another data set, and left out where it is `data` itself.

    Raises:
        DataRefusedError: there is nothing to splice, or nowhere.
    """
    photos = {photo.name: photo for photo in data.photos}
    damages = [
        damage
        for damage in data.damages
        if damage.polygons
        and split in {"", photos[damage.photo].split}
        and _fits(damage, photos[damage.photo])
    ]
    labelled, itself = onto.damages_of(), onto.folder.resolve() == data.folder.resolve()
    places = [
        photo
        for photo in onto.photos
        if split in {"", photo.split}
        and MADE_FROM not in photo.attributes
        and (not itself or photo.name in labelled)
    ]
    if not damages or not places:
        raise DataRefusedError("no damages with polygons to splice" if places else "no photos to splice onto")
    grown = Growing(data, out)
    for number in range(1, count + 1):
        told()
        name = f"splice-{seed}-{number:06}"
        if name in grown.photos:
            continue
        rng = np.random.default_rng([seed, number])
        for _ in range(_ATTEMPTS):
            damage = damages[rng.integers(len(damages))]
            place = places[rng.integers(len(places))]
            source = photos[damage.photo]
            if place.sha256 == source.sha256 or (
                place.split and source.split and place.split != source.split
            ):
                continue
            made = _spliced(data, onto, damage, source, place, labelled.get(place.name, ()), name, rng)
            if made is not None:
                _add(grown, made, views, seed)
                break
    return grown.saved()


def _add(grown: Growing, made: Made, views: int, seed: int) -> None:
    grown.add(made)
    if views < 2:
        return
    image = np.asarray(cv2.imdecode(np.frombuffer(made.content, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    plan = Plan(count=views - 1, seed=seed)
    for view in second_views.views(image, 1.0, made.photo, made.damages, plan):
        grown.add(view)
        grown.pairs.append(PairEntry(a=made.photo.name, b=view.photo.name, verdict="same"))


def _fits(damage: DamageEntry, photo: PhotoEntry) -> bool:
    box = damage.area
    return min(box.width, box.height) >= CLEAR_SIDE and box.area <= LARGEST * photo.width * photo.height


def _spliced(
    data: Dataset,
    onto: Dataset,
    damage: DamageEntry,
    source: PhotoEntry,
    place: PhotoEntry,
    there: Sequence[DamageEntry],
    name: str,
    rng: np.random.Generator,
) -> Made | None:
    """A damage on another photo; None where no place suits it."""
    first, second = crops.read(data, source), crops.read(onto, place)
    target = second.image
    height, width = target.shape[:2]
    polygons = second_views.polygons_of(damage, first.scale)
    size = max(width, height) / max(first.image.shape[:2]) * float(np.exp(rng.uniform(-0.4, 0.3)))
    patch = cut(first.image, polygons, size)
    if patch is None:
        return None
    patch = turned(patch, rng)
    rows, columns = patch.image.shape[:2]
    if any((p < 2).any() or (p > (columns - 2, rows - 2)).any() for p in patch.polygons):
        return None
    taken = [Box(*(value * second.scale for value in one.box)) for one in there]
    corner = best_place(patch, target, taken, rng)
    if corner is None:
        return None
    blended, shifted = blend(patch, target, corner)
    inside = outlines.filled(shifted, width, height) > 0
    change = np.abs(blended.astype(np.int16) - target).max(axis=2)[inside]
    if not inside.any() or np.percentile(change, 95) < _SEEN:  # black on black, white on white
        return None
    # What was there before is the same damage as there: else an embedder would learn to tell it from itself.
    of = "" if onto.folder.resolve() == data.folder.resolve() else f"{place.sha256[:12]} "
    kept = [
        DamageEntry(
            **(
                one.model_dump()
                | {"id": f"{name}#{index}", "photo": name, "damage": f"{of}{one.physical}"[:512]}
            )
        )
        for index, one in enumerate((_scaled(one, second.scale) for one in there), 2)
    ]
    box = outlines.box_around(shifted)
    new = DamageEntry(
        id=f"{name}#1",
        photo=name,
        box=(box.x0, box.y0, box.x1, box.y1),
        polygons=second_views.as_tuples(shifted),
        type=damage.type,
        severity=damage.severity,
        part=damage.part,
        damage=f"{name}#1",
    )
    content = cv2.imencode(".jpg", blended, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 96))])[
        1
    ].tobytes()
    attributes = {MADE_FROM: source.name, MADE_ONTO: place.name}
    content, entry = second_views.entry_of(name, content, place.split or source.split, name, attributes)
    return Made(content, entry, (new, *kept))


def _scaled(damage: DamageEntry, scale: float) -> DamageEntry:
    if scale == 1:
        return damage
    x0, y0, x1, y1 = (value * scale for value in damage.box)
    polygons = second_views.as_tuples(np.array(polygon) * scale for polygon in damage.polygons)
    return damage.model_copy(update={"box": (x0, y0, x1, y1), "polygons": polygons})


def cut(image: Image, polygons: Sequence[outlines.Points], size: float) -> Patch | None:
    """A damage with the panel around it, enlarged `size` times; None where it lies at the photo's edge."""
    height, width = image.shape[:2]
    box = outlines.box_around(list(polygons))
    margin = _MARGIN * max(box.width, box.height) + 2
    x0, y0, x1, y1 = box.x0 - margin, box.y0 - margin, box.x1 + margin, box.y1 + margin
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        return None
    left, top, right, bottom = int(x0), int(y0), int(np.ceil(x1)), int(np.ceil(y1))
    piece = image[top:bottom, left:right]
    columns, rows = max(round((right - left) * size), 8), max(round((bottom - top) * size), 8)
    way = cv2.INTER_AREA if size < 1 else cv2.INTER_CUBIC
    scale = columns / (right - left), rows / (bottom - top)
    enlarged = np.asarray(cv2.resize(piece, (columns, rows), interpolation=way), np.uint8)
    return Patch(enlarged, tuple((polygon - (left, top)) * scale for polygon in polygons))


def turned(patch: Patch, rng: np.random.Generator) -> Patch:
    """The patch as another panel would show it: seen from another side, curved, perhaps mirrored."""
    height, width = patch.image.shape[:2]
    seen = standpoint(width, height, rng, 0.6)
    bend = rng.uniform(0.1, 0.5) / max(width, height)
    relief = Relief(float(rng.uniform(0, np.pi)), (float(bend), float(bend * rng.uniform(-0.3, 0.5))))
    movement = Movement(seen, relief, mirror=bool(rng.random() < 0.5))
    image, _ = moved(patch.image, movement)
    return Patch(image, tuple(second_views.moved_outline(polygon, movement) for polygon in patch.polygons))


def best_place(
    patch: Patch, target: Image, taken: Sequence[Box], rng: np.random.Generator
) -> tuple[int, int] | None:
    """The top left corner of the plainest place on the panel of a damage that is there; None where none is plain.

    Where the photo has no damage, which would tell where the car is, places about its middle are tried.
    """
    rows, columns = patch.image.shape[:2]
    height, width = target.shape[:2]
    if rows >= height - 2 or columns >= width - 2:
        return None
    lab = cv2.cvtColor(target, cv2.COLOR_BGR2LAB).astype(np.float32)
    found: list[tuple[float, tuple[int, int]]] = []
    for _ in range(_PLACES):
        anchor = taken[int(rng.integers(len(taken)))] if taken else None
        if anchor is None:
            centre, reach = (width / 2, height / 2), np.array([0.2 * width, 0.2 * height])
        else:
            centre, reach = anchor.centre, np.array([columns + anchor.width, rows + anchor.height]) * 0.7
        x, y = np.rint(centre + rng.normal(0, 1, 2) * reach - (columns / 2, rows / 2)).astype(int).tolist()
        box = Box(x, y, x + columns, y + rows)
        if not (1 <= x < width - columns and 1 <= y < height - rows):
            continue
        if any(box.intersection(other) is not None for other in taken):
            continue
        colour, unevenness = _panel(lab[y : y + rows, x : x + columns])
        beside = 0.0
        if anchor is not None:
            grown = _around(anchor, width, height)
            beside = float(np.abs(colour - _panel(lab[grown])[0]).sum())
        if unevenness <= _UNEVEN and beside <= _OTHER_COLOUR:
            found.append((unevenness + 0.1 * beside, (x, y)))
    return min(found)[1] if found else None


def _around(box: Box, width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns of a box and as much again beside it."""
    x0, y0 = max(int(box.x0 - box.width / 2), 0), max(int(box.y0 - box.height / 2), 0)
    x1, y1 = min(int(box.x1 + box.width / 2) + 1, width), min(int(box.y1 + box.height / 2) + 1, height)
    return slice(y0, y1), slice(x0, x1)


def _panel(lab: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Median Lab colour of a place, and how far (standard deviation) it is from smooth shading, as panels have."""
    side = 16
    small = np.asarray(cv2.resize(lab, (side, side), interpolation=cv2.INTER_AREA), np.float64).reshape(-1, 3)
    y, x = (np.mgrid[:side, :side].reshape(2, -1) + 0.5) / side - 0.5
    shading = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    smooth = shading @ np.linalg.lstsq(shading, small, rcond=None)[0]
    return np.median(small, axis=0), float(np.sqrt(((small - smooth) ** 2).sum(1).mean()))


def blending_mask(patch: Patch) -> NDArray[np.uint8]:
    """uint8 (h, w): the damage and some panel around it, 255; the border of the patch is always 0."""
    height, width = patch.image.shape[:2]
    mask = outlines.filled(patch.polygons, width, height)
    reach = max(3, int(0.12 * max(height, width))) | 1
    mask = np.asarray(
        cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))), np.uint8
    )
    mask[:2] = mask[-2:] = 0
    mask[:, :2] = mask[:, -2:] = 0
    return mask


def blend(patch: Patch, target: Image, corner: tuple[int, int]) -> tuple[Image, list[outlines.Points]]:
    """The patch on the target with its corner at x, y. Returns the new photo and the damage's polygons in it."""
    rows, columns = patch.image.shape[:2]
    x, y = corner
    mask = blending_mask(patch)
    place = target[y : y + rows, x : x + columns]
    coloured = _coloured(patch.image, place, mask == 0)
    left, top, wide, high = cv2.boundingRect(mask)
    # OpenCV puts the middle of the mask's bounding box at the point: here exactly where it lies in the patch.
    centre = left + wide // 2, top + high // 2
    blended = cv2.seamlessClone(coloured, np.ascontiguousarray(place), mask, centre, cv2.NORMAL_CLONE)
    out = target.copy()
    out[y : y + rows, x : x + columns] = blended
    height, width = target.shape[:2]
    inside = (outlines.clipped(polygon + np.array(corner), width, height) for polygon in patch.polygons)
    return out, [polygon for polygon in inside if len(polygon) >= 3]


def _coloured(image: Image, place: Image, around: NDArray[np.bool_]) -> Image:
    """The patch in the colours of the place: mean and spread of Lab (Reinhard et al., 2001) of its panel."""
    own = cv2.cvtColor(image, cv2.COLOR_BGR2LAB).astype(np.float32)
    other = cv2.cvtColor(place, cv2.COLOR_BGR2LAB).astype(np.float32).reshape(-1, 3)
    panel = own[around] if around.any() else own.reshape(-1, 3)
    spread = np.clip((other.std(0) + 1) / (panel.std(0) + 1), 0.7, 1.4)
    changed = (own - panel.mean(0)) * spread + other.mean(0)
    return np.asarray(
        cv2.cvtColor(np.clip(np.rint(changed), 0, 255).astype(np.uint8), cv2.COLOR_LAB2BGR), np.uint8
    )
