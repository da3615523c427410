"""What the detector is shown: photos and label maps, changed anew in each epoch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from damagewatch_training.data import crops, dataset, sources, split
from damagewatch_training.data.dataset import MADE_FROM, MADE_ONTO, DataRefusedError
from damagewatch_training.data.sources import SEVERITIES, Label, Photo
from damagewatch_training.detector.losses import UNLABELLED
from damagewatch_training.experiment import record

GREY = 127
PARTS = 0.3, 0.7
"""Least and most of the sides of a photo that a part without damage has."""

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Examples:
    """The photos that the detector learns from, by what is known of them."""

    outlined: list[Photo]
    """Damages outlined, of known type."""
    coarse: list[Photo] = field(default_factory=list)
    """Parts outlined that are damaged somewhere."""
    graded: list[Photo] = field(default_factory=list)
    """How badly the car is damaged: see `severity`."""
    severity: Mapping[str, int] = field(default_factory=dict)
    """Of graded photos, by name: 0 to 2."""
    maps: Mapping[str, Path] = field(default_factory=dict)
    """Of photos that nobody outlined, by name: where `teach` wrote what trained detectors see in them."""
    shows: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """What a photo shows, by name: groups of photos that belong together (`data.split`), more than one of a photo
    that was made of several. One without an entry belongs with the views of it alone."""

    @property
    def unlabelled(self) -> list[Photo]:
        """The coarse and the graded photos, once each, without the outlined ones."""
        outlined = {photo.name for photo in self.outlined}
        others = {photo.name: photo for photo in [*self.coarse, *self.graded]}
        return [photo for name, photo in others.items() if name not in outlined]

    @property
    def taught(self) -> list[Photo]:
        """The unlabelled photos that have a map."""
        return [photo for photo in self.unlabelled if photo.name in self.maps]

    def split(self, share: float) -> tuple[Examples, list[Photo]]:
        """Without the `share` of the outlined photos that a hash of what they show picks, and these.

        Of all kinds of photos no other one is left that shows what these do.
        """

        def shown(photo: Photo) -> frozenset[str]:
            return self.shows.get(photo.name) or frozenset({photo.name.partition("~")[0]})

        def picks(name: str) -> bool:
            return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < share * 2**32

        def left(photos: list[Photo]) -> list[Photo]:
            return [photo for photo in photos if not shown(photo) & picked]

        picked = {name for photo in self.outlined for name in shown(photo) if picks(name)}
        held_out = [photo for photo in self.outlined if shown(photo) <= picked]
        kept = replace(self, outlined=left(self.outlined), coarse=left(self.coarse), graded=left(self.graded))
        return kept, held_out


def gather(root: Path) -> Examples:
    """What there is to learn from below `root`: data that was imported, or the folders of `data.sources`.

    Of imported data the photos of the split "train" count. A photo's grade is its attribute `severity`.

    Raises:
        DataRefusedError: the data makes no sense.
    """
    if dataset.is_dataset(root):
        return _imported(root, "train")
    allowed = {photo.name for photo in sources.training_photos(root)}
    graded = sources.severity(root, "train")
    photos = [*sources.damage_polygons(root, "train"), *sources.damaged_parts(root), *graded]
    return _by_kind([photo for photo in photos if photo.name in allowed], _folders(graded))


def validation(root: Path) -> Examples:
    """What was not trained on, the split "val": figures are measured on it.

    Raises:
        DataRefusedError: the data makes no sense.
    """
    if dataset.is_dataset(root):
        return _imported(root, "val")
    graded = sources.severity(root, "val")
    return _by_kind([*sources.damage_polygons(root, "val"), *graded], _folders(graded))


def _folders(photos: list[Photo]) -> dict[str, str]:
    return {photo.name: photo.path.parent.name for photo in photos}


def _imported(root: Path, part: str) -> Examples:
    loaded = dataset.load(root)
    grades = {photo.name: photo.attributes.get("severity") for photo in loaded.photos}
    return replace(_by_kind(loaded.labelled(part), grades), shows=_shows(loaded))


def _shows(data: dataset.Dataset) -> dict[str, frozenset[str]]:
    """The groups of each photo; a made one shows those of all that it was made of, photos of other data by name."""
    made = {
        photo.name: [photo.attributes[of] for of in (MADE_FROM, MADE_ONTO) if of in photo.attributes]
        for photo in data.photos
    }
    photographed = replace(
        data,
        photos=tuple(photo for photo in data.photos if not made[photo.name]),
        damages=tuple(damage for damage in data.damages if not made.get(damage.photo)),
    )
    known = {name: {min(group)} for group in split.groups(photographed) for name in group}

    def origins(name: str) -> set[str]:
        seen, waiting = set(), [name]
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting += made.get(one, ())
        return {group for one in seen for group in known.get(one, () if one in made else {one})}

    return {name: frozenset(origins(name)) for name in made}


def _by_kind(photos: list[Photo], grades: Mapping[str, str | None]) -> Examples:
    severity = {name: SEVERITIES.index(grade) for name, grade in grades.items() if grade in SEVERITIES}
    return Examples(
        outlined=[photo for photo in photos if _outlined(photo)],
        coarse=[photo for photo in photos if photo.labels and not _outlined(photo)],
        graded=[photo for photo in photos if photo.name in severity],
        severity=severity,
    )


def hash_of(root: Path) -> str:
    """Of all data below `root` that decides what is learned."""
    if dataset.is_dataset(root):
        return dataset.load(root).sha256
    listed = [*root.glob("*/*.json"), *root.glob("*.csv")]
    return record.data_sha256({str(path.relative_to(root)): path for path in listed})


def _outlined(photo: Photo) -> bool:
    return bool(photo.labels) and all(label.type is not None and label.polygons for label in photo.labels)


def letterbox(image: Image, size: int, margin: int = GREY) -> Image:
    """The whole image in the top left of a square of `size`, as the service does it."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    out = np.full((size, size, *image.shape[2:]), margin, np.uint8)
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out[:high, :wide] = cv2.resize(image, (wide, high), interpolation=shrink)
    return out


def label_map(photo: Photo, height: int, width: int) -> Image:
    """uint8 (H, W, 3): damaged (255 or 0), type and severity (UNLABELLED where there is none)."""
    labels = np.zeros((height, width, 3), np.uint8)
    labels[..., 1:] = UNLABELLED
    # The largest first, so that a scratch on a dented door is not lost.
    for label in sorted(photo.labels, key=lambda label: -label.box.area):
        draw(labels, label, np.eye(2, 3))
    return labels


def draw(labels: Image, label: Label, placement: NDArray[np.floating]) -> None:
    """Draws a label into a label map, its polygons moved by the 2 x 3 matrix `placement`."""
    polygons = [
        np.rint(polygon @ placement[:, :2].T + placement[:, 2]).astype(np.int32) for polygon in label.polygons
    ]
    kinds = (UNLABELLED if kind is None else kind for kind in (label.type, label.severity))
    cv2.fillPoly(labels, polygons, (255, *kinds))


class Photos(Dataset[tuple[Tensor, Tensor, int]]):
    """Items of one size: uint8 (3, S, S) RGB, uint8 (3, S, S) label map, the photo's severity or UNLABELLED.

    Args:
        photos: of one kind.
        severity: of graded photos, by name.
        maps: of photos whose label map is a file, by name.
        size: side in pixels that the detector is run at.
        crop: side S of the items.
        scales: the least and the most of what `size` is multiplied by.
        whole: show whole photos, not crops of damages.
        undamaged: show parts that touch no label, as if they were photos, where there are such.
        spliced: share of the photos that get damages of other photos.
        seed: all chance comes from it and the index.
    """

    def __init__(
        self,
        photos: list[Photo],
        severity: Mapping[str, int],
        maps: Mapping[str, Path],
        size: int,
        crop: int,
        scales: tuple[float, float],
        *,
        whole: bool,
        spliced: float,
        seed: tuple[int, ...],
        undamaged: bool = False,
    ) -> None:
        self.photos = photos
        self.severity = severity
        self.maps = maps
        self.size = size
        self.crop = crop
        self.scales = scales
        self.whole = whole
        self.undamaged = undamaged
        self.spliced = spliced
        self.seed = seed
        self.damages = [
            (i, label) for i, photo in enumerate(photos) for label in photo.labels if label.type is not None
        ]

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        severity = self.severity.get(self.photos[index].name, UNLABELLED)
        rng = np.random.default_rng([*self.seed, index])
        photo = self.photos[index].read()
        labels = self._labels(self.photos[index], *photo.shape[:2])
        if self.undamaged:
            photo, labels = _part_without(self.photos[index], photo, labels, rng)
        if self.damages and rng.random() < self.spliced:
            for _ in range(rng.integers(1, 3)):
                source, label = self.damages[rng.integers(len(self.damages))]
                photo = splice(photo, labels, self.photos[source].read(), label, rng)
        matrix = _placement(labels[..., 0], self.crop, self.size, self.scales, self.whole, rng)
        size = (self.crop, self.crop)
        image = cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(GREY,) * 3)
        nothing = (0, UNLABELLED, UNLABELLED)
        placed = cv2.warpAffine(labels, matrix, size, flags=cv2.INTER_NEAREST, borderValue=nothing)
        image = _other_camera(np.asarray(image, np.uint8), rng)
        pixels = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
        placed = np.ascontiguousarray(placed.transpose(2, 0, 1))
        return torch.from_numpy(pixels), torch.from_numpy(placed), severity

    def _labels(self, photo: Photo, height: int, width: int) -> Image:
        if photo.name not in self.maps:
            return label_map(photo, height, width)
        labels = np.full((height, width, 3), UNLABELLED, np.uint8)
        damage = cv2.imread(str(self.maps[photo.name]), cv2.IMREAD_GRAYSCALE)
        if damage is None or damage.shape != (height, width):
            path = self.maps[photo.name]
            raise DataRefusedError(f"{path} is no map of {photo.name}: delete it to have it made again")
        labels[..., 0] = damage
        return labels


def _part_without(photo: Photo, image: Image, labels: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """A part that touches no label, of the photo and of its label map; all of both where none is found."""
    height, width = labels.shape[:2]
    box = crops.free_place([label.box for label in photo.labels], width, height, rng, shares=PARTS)
    if box is None:
        return image, labels
    part = slice(math.floor(box.y0), math.ceil(box.y1)), slice(math.floor(box.x0), math.ceil(box.x1))
    return image[part], labels[part]


def splice(photo: Image, labels: Image, source: Image, label: Label, rng: np.random.Generator) -> Image:
    """`photo` with the damage `label` of `source` somewhere; draws it into `labels`.

    The damage keeps its contrast and takes the colour of where it lands; its border fades over a tenth of its size.
    """
    height, width = photo.shape[:2]
    if max(label.box.width / width, label.box.height / height) > 0.4:
        return photo  # there is hardly an undamaged place for it
    scale, angle = np.exp(rng.uniform(-0.4, 0.4)), rng.uniform(-25, 25)
    turn = np.asarray(cv2.getRotationMatrix2D(label.box.centre, angle, scale), np.float64)
    if rng.random() < 0.5:
        turn = np.array([[-1.0, 0, 0], [0, 1, 0]]) @ np.vstack([turn, [0.0, 0, 1]])
    to = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.25, 0.8) * height])
    turn[:, 2] += to - (turn[:, :2] @ np.array(label.box.centre) + turn[:, 2])
    alone = np.zeros((height, width, 3), np.uint8)
    draw(alone, label, turn)
    mask = alone[..., 0]
    if not mask.any() or (labels[..., 0] & mask).any():
        return photo
    x, y, wide, high = cv2.boundingRect(mask)
    margin = max(8, max(wide, high) // 4)
    x0, y0 = max(0, x - margin), max(0, y - margin)
    x1, y1 = min(width, x + wide + margin), min(height, y + high + margin)
    part = slice(y0, y1), slice(x0, x1)
    turn[:, 2] -= [x0, y0]
    cut = cv2.warpAffine(
        source, turn, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    reach = max(2.0, 0.1 * max(x1 - x0, y1 - y0))
    grown = cv2.dilate(mask[part], np.ones((3, 3), np.uint8), iterations=max(1, round(reach)))
    fade = cv2.GaussianBlur(grown.astype(np.float32) / 255, (0, 0), reach / 2)[..., None]
    around = (grown > 0) & (mask[part] == 0)
    here = photo[part].astype(np.float32)
    there = cut.astype(np.float32)
    if around.any():
        there += here[around].mean(0) - there[around].mean(0)
    out = photo.copy()
    out[part] = np.clip(here + fade * (there - here), 0, 255).astype(np.uint8)
    draw(labels[part], label, turn)
    return out


def _placement(
    damaged: Image, crop: int, run_at: int, scales: tuple[float, float], whole: bool, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Photo to crop: scaled, turned, mirrored, and mostly put where a damage is."""
    height, width = damaged.shape
    middle = np.array([width / 2, height / 2])
    side, (least, most) = (crop, (0.8, 1.25)) if whole else (run_at, scales)
    size = side / max(height, width) * np.exp(rng.uniform(np.log(least), np.log(most)))
    aspect = np.exp(rng.normal(0, 0.1))
    angle = np.deg2rad(rng.normal(0, 6))
    flip = rng.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([flip * size * aspect, size / aspect])
    rows, columns = np.nonzero(damaged[::2, ::2] > 127)
    if whole:
        focus, spread = middle, 0.08
    elif len(rows) and rng.random() < 0.75:
        pick = rng.integers(len(rows))
        focus, spread = np.array([columns[pick] * 2.0, rows[pick] * 2.0]), 0.35
    else:
        focus, spread = np.array([rng.uniform(0, width), rng.uniform(0, height)]), 0.3
    if not whole and size * max(height, width) <= 1.1 * crop:  # nothing of the photo need be outside
        focus, spread = middle + 0.2 * (focus - middle), 0.12
    at = crop / 2 + rng.uniform(-spread, spread, 2) * crop
    return np.column_stack([linear, at - linear @ focus])


def _other_camera(image: Image, rng: np.random.Generator) -> Image:
    """Exposure, contrast, saturation, hue, blur, noise and JPEG of some other camera."""
    out = image.astype(np.float32)
    if rng.random() < 0.8:
        out = (out - 127) * np.exp(rng.normal(0, 0.2)) + 127 + rng.normal(0, 20)
        grey = out.mean(2, keepdims=True)
        out = grey + (out - grey) * np.exp(rng.normal(0, 0.3))
        out *= np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    if rng.random() < 0.1:
        out = np.repeat(out.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.3:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.5)), np.float32)
    if rng.random() < 0.3:
        out += rng.normal(0, rng.uniform(2, 12), out.shape).astype(np.float32)
    changed = np.clip(out, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        changed = np.ascontiguousarray(changed[..., rng.permutation(3)])  # another paint
    if rng.random() < 0.4:
        _, stored = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])
        changed = np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8)
    return changed
