"""From a claim photo's bytes to all that is remembered of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import (
    Box,
    ClaimImage,
    Damage,
    LocalFeatures,
    Origin,
    PhotoRef,
    PhotoSeverity,
    Reason,
    Refused,
    Sighting,
    sha256_of,
)
from damagewatch.vision import formats, verify
from damagewatch.vision.decode import Photo, decode
from damagewatch.vision.hashing import perceptual_hashes
from damagewatch.vision.models import Models
from damagewatch.vision.regions import whole_photo, window
from damagewatch.vision.resample import cut, fitted

CROP_SIDE = 768
CROP_QUALITY = 88
THUMBNAIL = 64

Observe = Callable[[str, float], None]


def _ignore(_stage: str, _seconds: float) -> None:
    pass


@dataclass(frozen=True, slots=True, eq=False)
class Perceived:
    """All that was seen in one photo.

    `damages` are the detector's, the most certain first; `severity` is the photo's as a whole, None where no model
    could grade it; `sightings` are one for the whole photo (the first) and one for each damage; `crops` are JPEG
    bytes by window, without metadata: regions with the same window share one; `mirrored_hash` is the perceptual hash
    of the mirrored photo. It holds the decoded photo, some 4 MB, for as long as `mirrored` may be asked for.
    """

    photo: PhotoRef
    width: int
    height: int
    damages: tuple[Damage, ...]
    sightings: tuple[Sighting, ...]
    crops: Mapping[Box, bytes]
    mirrored_hash: int
    severity: PhotoSeverity | None
    _image: Photo
    _extract: Callable[[Photo, Box, bool], LocalFeatures]
    _mirrored: dict[Box, LocalFeatures] = field(default_factory=dict)

    def embedded_by(self, embed: Callable[[Photo, Box], NDArray[np.float32]]) -> tuple[Sighting, ...]:
        """The sightings with the vectors of another embedder."""
        windows = dict.fromkeys(sighting.window for sighting in self.sightings)
        vectors = {window: embed(self._image, window) for window in windows}
        return tuple(replace(sighting, embedding=vectors[sighting.window]) for sighting in self.sightings)

    def mirrored(self, sighting: Sighting) -> Sighting:
        """A sighting of this photo as the mirrored photo would have it; computed when first asked for."""
        found = self._mirrored.get(sighting.window)
        if found is None:
            found = self._mirrored[sighting.window] = self._extract(self._image, sighting.window, True)
        return verify.mirrored(sighting, found, self.mirrored_hash)


class Perception:
    """Looks at photos; many threads may share it."""

    def __init__(
        self, models: Models, limits: formats.Limits | None = None, observe: Observe = _ignore
    ) -> None:
        """Prepares to look.

        Args:
            models: the loaded models.
            limits: what a photo may cost.
            observe: told the seconds of each stage (decode, detect, severity, embed, features, crop), from any
                thread.
        """
        self._models = models
        self._limits = limits or formats.Limits()
        self._observe = observe

    def perceive(self, image: ClaimImage, origin: Origin | None = None) -> Perceived:
        """Decodes a photo, finds its damages, and describes each.

        Args:
            image: with its bytes inline.
            origin: where on the stream it came from.

        Raises:
            Refused: the photo cannot be processed.
        """
        if image.content is None:
            raise Refused(Reason.PHOTO_MISSING, "the photo's bytes were not fetched", formats.STAGE)
        content = image.content
        with self._timed("decode"):
            photo = decode(content, self._limits)
            reference = PhotoRef(image.tenant, image.claim_id, image.photo_id, sha256_of(content))
            photo_hash, mirrored_hash = perceptual_hashes(photo.image)
        with self._timed("detect"):
            found = self._models.detector.detect(photo)
        severity = None
        if self._models.severity is not None:
            with self._timed("severity"):
                severity = self._models.severity.grade(photo)
        damages = tuple(region.damage(reference, number) for number, region in enumerate(found, 1))
        regions = (whole_photo(reference, photo.width, photo.height), *damages)
        windows = {r.damage_id: window(r.box, photo.width, photo.height) for r in regions}
        views = {box: self._view(photo, box) for box in dict.fromkeys(windows.values())}
        sightings = tuple(
            Sighting(
                photo=reference,
                damage=region,
                width=photo.width,
                height=photo.height,
                window=windows[region.damage_id],
                embedding=views[windows[region.damage_id]].embedding,
                features=views[windows[region.damage_id]].features,
                thumbnail=views[windows[region.damage_id]].thumbnail,
                photo_hash=photo_hash,
                origin=origin,
                received_at=image.received_at,
                attributes=image.attributes,
            )
            for region in regions
        )
        return Perceived(
            photo=reference,
            width=photo.width,
            height=photo.height,
            damages=damages,
            sightings=sightings,
            crops=MappingProxyType({box: view.crop for box, view in views.items()}),
            mirrored_hash=mirrored_hash,
            severity=severity,
            _image=photo,
            _extract=self._models.local_features.extract,
        )

    def _view(self, photo: Photo, box: Box) -> _View:
        with self._timed("embed"):
            embedding = self._models.embedder.embed(photo, box)
        with self._timed("features"):
            features = self._models.local_features.extract(photo, box)
        with self._timed("crop"):
            thumbnail = cv2.cvtColor(cut(photo, box, THUMBNAIL, THUMBNAIL), cv2.COLOR_BGR2GRAY)
            return _View(embedding, features, np.asarray(thumbnail, np.uint8), encode_crop(photo, box))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._observe(stage, time.perf_counter() - start)


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """What is made of one window."""

    embedding: NDArray[np.float32]
    features: LocalFeatures
    thumbnail: NDArray[np.uint8]
    crop: bytes


def encode_crop(photo: Photo, box: Box) -> bytes:
    """A window as JPEG for the evidence store: at most `CROP_SIDE` pixels wide and high, never enlarged."""
    side = min(CROP_SIDE, max(1, round(max(box.width, box.height) * photo.scale)))
    image = cut(photo, box, *fitted(box, side))
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, CROP_QUALITY])
    return jpeg.tobytes()
