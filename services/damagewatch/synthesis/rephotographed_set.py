"""A set made of anybody's photos: a claim of each, and some of them photographed again for other claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from damagewatch.domain import AlertKind, Refused
from damagewatch.folders import photos_in
from damagewatch.synthesis.expectations import DemoPhoto, DemoSet, ExpectedAlert, ExpectedRejection
from damagewatch.synthesis.rephotograph import Image, rephotograph
from damagewatch.vision.decode import decode
from damagewatch.vision.formats import Limits, read_header

KINDS = frozenset({AlertKind.SAME_DAMAGE, AlertKind.DUPLICATE_PHOTO})
"""A tame second photograph is as good as a copy."""
SMALLEST_SIDE = 64
"""Pixels: what is smaller is no photograph of a damage, and is not photographed again."""


def rephotographed_set(
    photos: Path, directory: Path, seed: int = 0, *, share: float = 0.1, strength: float = 1.0
) -> DemoSet:
    """Makes a claim of every photo below `photos`, and of `share` of them, photographed again, another one.

    The photos stay where they are and are named by their paths; the new ones and `expected.json` are written
    to `directory`. Files whose header says that they are no photo are in the set too, and must be refused.
    Other alerts than the planted ones are not false: a folder of photos may hold real repeats.

    Args:
        photos: Searched in depth, as by `folders.photos_in`.
        directory: Made where missing. Photos in it are passed over, where it lies below `photos`.
        seed: Of the choice and of the new photographs. The same seed and files give the same set.
        share: Of the readable photos, 0 to 1; at least one where there is one and the share is not 0.
        strength: See `rephotograph`.

    Raises:
        FileNotFoundError: `photos` is no folder, or holds no photos.
        ValueError: a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, this is {share}")
    if not photos.is_dir():
        raise FileNotFoundError(f"no such folder: {photos}")
    found = [
        DemoPhoto(f"claim-{number:05}", path.name, path)
        for number, path in enumerate(_photos_below(photos, directory), start=1)
    ]
    if not found:
        raise FileNotFoundError(f"no photos in {photos}")
    rejections = tuple(_refusals(found))
    refused = {rejection.photo for rejection in rejections}
    good = [photo for photo in found if photo.key not in refused]
    wanted = max(round(share * len(good)), 1) if share and good else 0
    rng = np.random.default_rng(seed)
    again: list[DemoPhoto] = []
    alerts = []
    for choice, child in zip(rng.permutation(len(good)), rng.spawn(len(good)), strict=True):
        if len(again) == wanted:
            break
        photo = good[choice]
        image = _image(photo.path)
        if image is None or min(image.shape[:2]) < SMALLEST_SIDE:
            continue
        claim_id = f"again-{len(again) + 1:05}"
        path = directory / claim_id / "photo-1.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rephotograph(image, child, strength).encoded())
        again.append(DemoPhoto(claim_id, path.name, path))
        alerts.append(
            ExpectedAlert(frozenset((photo.key, again[-1].key)), KINDS, f"{photo.path.name}, again")
        )
    result = DemoSet(directory, seed, (*found, *again), tuple(alerts), frozenset(), rejections, closed=False)
    directory.mkdir(parents=True, exist_ok=True)
    result.save()
    return result


def _photos_below(folder: Path, but: Path) -> Iterator[Path]:
    """In the order of their paths; what an earlier run wrote (`but`) is no photo of the folder."""
    for photo in photos_in([folder]):
        if but == folder or not photo.path.is_relative_to(but):
            yield photo.path


def _refusals(photos: Sequence[DemoPhoto]) -> Iterator[ExpectedRejection]:
    """What its header gives away; whatever is wrong further inside comes to light when the photo is decoded."""
    for photo in photos:
        try:
            read_header(photo.path.read_bytes(), Limits())
        except Refused as refusal:
            yield ExpectedRejection(photo.key, frozenset({refusal.reason}), refusal.detail)


def _image(path: Path) -> Image | None:
    """The photo, upright, or None where it cannot be decoded after all."""
    try:
        return decode(path.read_bytes()).image
    except Refused:
        return None
