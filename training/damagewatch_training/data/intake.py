"""Takes what an importer found into a data set: every photo is decoded, every label checked, nothing is believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, Refused, sha256_of
from damagewatch.folders import PhotoFile
from damagewatch.vision.decode import decode
from damagewatch.vision.formats import Format, Limits, sniff
from damagewatch.vision.hashing import perceptual_hashes
from damagewatch_training.data import dataset, outlines
from damagewatch_training.data.classes import Meaning, understood
from damagewatch_training.data.dataset import PHOTOS, DamageEntry, Dataset, PairEntry, PhotoEntry
from damagewatch_training.data.importers.found import Found, Region
from damagewatch_training.data.report import Report, Trouble, readable

SMALLEST_SIDE = 16
"""Pixels: what is smaller is an icon."""
_SUFFIX = {Format.JPEG: ".jpg", Format.PNG: ".png", Format.WEBP: ".webp"}
_LIKE = 0.02
"""By which the sides' ratio of labels and photo may differ for the labels to be scaled."""


@dataclass(slots=True)
class Intake:
    """A data set that grows. `prefix` is put before the photos' names, so that sources do not clash.

    `split` is given to photos whose source names none; `classes` is as in `classes.understood`.
    """

    folder: Path
    report: Report
    prefix: str = ""
    split: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    photos: dict[str, PhotoEntry] = field(default_factory=dict)
    damages: list[DamageEntry] = field(default_factory=list)
    pairs: list[PairEntry] = field(default_factory=list)
    _same_bytes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if dataset.is_dataset(self.folder):
            known = dataset.load(self.folder)
            self.photos = {photo.name: photo for photo in known.photos}
            self.damages, self.pairs = list(known.damages), list(known.pairs)
            self._same_bytes = {photo.sha256: photo.name for photo in reversed(known.photos)}

    def take(self, found: Found) -> None:
        """Takes a photo with its labels, or reports why not."""
        name = readable(self.prefix + found.name, 480)
        if isinstance(found.source, Path) and found.source.resolve().is_relative_to(self.folder.resolve()):
            self.report.add(Trouble.PHOTO_TWICE, name, "lies in the data set itself; left out")
            return
        content = self._content(found, name)
        if content is None:
            return
        if name in self.photos:
            known = self.photos[name].sha256 == sha256_of(content)
            detail = "was taken before" if known else "another photo has this name: give a --prefix"
            self.report.add(Trouble.PHOTO_TWICE if known else Trouble.NAME_TAKEN, name, f"{detail}; left out")
            return
        split = found.split or self.split
        sha256 = sha256_of(content)
        earlier = self.photos.get(self._same_bytes.get(sha256, ""))
        if earlier is not None:
            if earlier.claim == found.claim and earlier.split == split:
                self.report.add(Trouble.PHOTO_TWICE, name, f"the same bytes as {earlier.name}; left out")
                return
            self.report.add(Trouble.PHOTO_TWICE, name, f"the same bytes as {earlier.name}; taken, as a pair")
            self.pairs.append(PairEntry(a=earlier.name, b=name, verdict="copy"))
        try:
            photo = decode(content, self.limits)
        except Refused as refused:
            self.report.add(Trouble.PHOTO_UNREADABLE, name, f"{refused.detail}; left out")
            return
        if min(photo.width, photo.height) < SMALLEST_SIDE:
            self.report.add(Trouble.PHOTO_SMALL, name, f"{photo.width} x {photo.height} pixels; left out")
            return
        hashes = perceptual_hashes(photo.image)
        suffix = _SUFFIX.get(sniff(content) or Format.HEIC)
        file = f"{PHOTOS}/{sha256[:20]}{suffix or '.jpg'}"
        target = self.folder / file
        if not target.exists():
            dataset.write_whole(target, content if suffix else _as_jpeg(photo.image))
        # What OpenCV cannot read again, HEIC, is stored as JPEG, as large as it was decoded.
        full = photo.width, photo.height
        width, height = full if suffix else photo.image.shape[1::-1]
        entry = PhotoEntry(
            name=name,
            file=file,
            sha256=sha256,
            width=width,
            height=height,
            hashes=(f"{hashes[0]:016x}", f"{hashes[1]:016x}"),
            claim=readable(found.claim),
            split=readable(split, 32),
            attributes={readable(key): readable(value) for key, value in found.attributes.items()},
        )
        self.photos[name] = entry
        self._same_bytes.setdefault(sha256, name)
        self.report.photos += 1
        self._label(found, entry, full)

    def dataset(self) -> Dataset:
        """All that was taken, with what was there before."""
        return Dataset(self.folder, tuple(self.photos.values()), tuple(self.damages), tuple(self.pairs))

    def _content(self, found: Found, name: str) -> bytes | None:
        if isinstance(found.source, bytes):
            return found.source
        try:
            missing = not found.source.is_file()
        except OSError as error:  # a name that is too long
            self.report.add(Trouble.PHOTO_MISSING, name, f"{error.strerror}; left out")
            return None
        if missing:
            self.report.add(Trouble.PHOTO_MISSING, name, "no such file; left out")
            return None
        try:
            return PhotoFile(found.source, "", "").read(self.limits.max_bytes)
        except Refused as refused:
            self.report.add(Trouble.PHOTO_UNREADABLE, name, f"{refused.detail}; left out")
            return None

    def _label(self, found: Found, photo: PhotoEntry, full: tuple[int, int]) -> None:
        whole = (0.0, 0.0, float(photo.width), float(photo.height))
        if found.shows is not None:
            shows = readable(found.shows)
            self._add(DamageEntry(id=f"{photo.name}#0", photo=photo.name, box=whole, damage=shows))
        scale = self._scale(found, photo.name, full)
        if scale is None:
            return
        scale = scale * (photo.width / full[0], photo.height / full[1])
        taken: set[tuple[object, ...]] = set()
        for number, region in enumerate(found.regions, 1):
            where = f"{photo.name} region {number}"
            meaning = understood(region.class_name, self.classes)
            if meaning is None:
                self.report.add(
                    Trouble.CLASS_UNKNOWN,
                    where,
                    f"{region.class_name!r}; left out (say what it means: --class '{region.class_name}=dent')",
                )
                continue
            if meaning.ignored:
                continue
            try:
                entry = self._damage(region, scale, photo, meaning, number, where)
            except ValueError:
                self.report.add(Trouble.ENTRY_BROKEN, where, "numbers out of all bounds; left out")
                continue
            if entry is None:
                continue
            key = (entry.box, entry.polygons, entry.type, entry.part)
            if key in taken:
                self.report.add(Trouble.LABEL_TWICE, where, "drawn before; left out")
                continue
            taken.add(key)
            self._add(entry)

    def _add(self, damage: DamageEntry) -> None:
        self.damages.append(damage)
        self.report.damages += 1

    def _scale(self, found: Found, name: str, full: tuple[int, int]) -> NDArray[np.float64] | None:
        """What labels are multiplied by, x and y, to be pixels of the whole photo; None where they cannot fit."""
        if found.size is None or not found.regions:
            return np.ones(2)
        scale = np.array(full, np.float64) / found.size
        if found.size == (1, 1) or (scale == 1).all():
            return scale
        stated = f"{full[0]} x {full[1]} pixels, labelled at {found.size[0]} x {found.size[1]}"
        if abs(scale[0] / scale[1] - 1) > _LIKE:
            self.report.add(Trouble.SIZE_DIFFERS, name, f"{stated}; labels left out")
            return None
        self.report.add(Trouble.SIZE_DIFFERS, name, f"{stated}; labels scaled")
        return scale

    def _damage(
        self,
        region: Region,
        scale: NDArray[np.float64],
        photo: PhotoEntry,
        meaning: Meaning,
        number: int,
        where: str,
    ) -> DamageEntry | None:
        kept: list[NDArray[np.float64]] = []
        for polygon in region.polygons:
            left, troubles = outlines.clean(polygon * scale, photo.width, photo.height)
            for trouble in troubles:
                self.report.add(trouble, where, _DONE.get(trouble, "left out"))
            kept.extend(left)
        if kept:
            box = outlines.box_around(kept)
        elif region.box is not None:
            scaled = np.array([region.box.x0, region.box.y0, region.box.x1, region.box.y1]) * np.tile(
                scale, 2
            )
            inside = Box(*scaled.tolist()).intersection(Box(0, 0, photo.width, photo.height))
            if inside is None or inside.area < outlines.SMALLEST:
                self.report.add(Trouble.POLYGON_OUTSIDE, where, "the box; left out")
                return None
            box = inside
        else:
            if not region.polygons:  # of others it was told what became of them
                self.report.add(Trouble.POLYGON_SMALL, where, "nothing outlined; left out")
            return None
        return DamageEntry(
            id=f"{photo.name}#{number}",
            photo=photo.name,
            box=(box.x0, box.y0, box.x1, box.y1),
            polygons=tuple(tuple((x, y) for x, y in polygon.tolist()) for polygon in kept),
            type=meaning.type,  # type: ignore[arg-type]
            severity=meaning.severity,  # type: ignore[arg-type]
            part=None if meaning.part is None else readable(meaning.part),
            damage=None if region.damage is None else readable(region.damage),
        )


_DONE = {
    Trouble.POLYGON_CLIPPED: "cut off there",
    Trouble.POLYGON_CROSSING: "drawn anew around what it covers",
}


def _as_jpeg(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def take_all(found: Iterable[Found], intake: Intake, pairs: Iterable[PairEntry] = ()) -> Dataset:
    """Takes all, then the pairs whose photos are there; saves the data set where anything usable came in."""
    for photo in found:
        intake.take(photo)
    for pair in pairs:
        if pair.a in intake.photos and pair.b in intake.photos:
            intake.pairs.append(pair)
            intake.report.pairs += 1
    data = intake.dataset()
    unique = tuple({(pair.a, pair.b): pair for pair in data.pairs}.values())
    data = replace(data, pairs=unique)
    if intake.report.photos or intake.report.pairs:
        data.save()
    return data
