"""The detector: which regions of a photo are damaged, of what type, how badly."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, Damage, DamageType, PhotoRef, Polygon, Severity
from damagewatch.vision.decode import Photo
from damagewatch.vision.embed import to_tensor
from damagewatch.vision.engine import Engine
from damagewatch.vision.manifest import DetectorModel
from damagewatch.vision.resample import cut, fitted

MAX_DAMAGES = 8
MAX_POLYGONS = 16
MAX_VERTICES = 128

TYPES = (DamageType.SCRATCH, DamageType.DENT, DamageType.BROKEN)
SEVERITIES = (Severity.MINOR, Severity.MODERATE, Severity.SEVERE)

_GREY = 127
_JOIN = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
"""Fragments closer than this, in the network's pixels, are one damage: light breaks up a scratch."""


@dataclass(frozen=True, slots=True)
class Region:
    """A damaged region before it has a name: as in `domain.Damage`."""

    box: Box
    polygons: tuple[Polygon, ...]
    type: DamageType
    severity: Severity
    score: float

    def damage(self, photo: PhotoRef, ordinal: int) -> Damage:
        """The region as damage number `ordinal` of a photo, from 1."""
        return Damage(photo.damage_id(ordinal), self.box, self.polygons, self.type, self.severity, self.score)


class Detector:
    """Finds damaged regions."""

    def __init__(self, engine: Engine, model: DetectorModel) -> None:
        self._engine = engine
        self._model = model

    def detect(self, photo: Photo) -> tuple[Region, ...]:
        """At most `MAX_DAMAGES` regions, the most certain first; boxes and polygons in photo pixels."""
        size = self._model.input.size
        whole = Box(0, 0, photo.width, photo.height)
        width, height = fitted(whole, size)
        letterbox = np.full((size, size, 3), _GREY, np.uint8)
        letterbox[:height, :width] = cut(photo, whole, width, height)
        (logits,) = self._engine.run(to_tensor(letterbox, self._model.input))
        thresholds = self._model.thresholds
        maps = np.stack([np.asarray(cv2.resize(m, (size, size))) for m in logits[0]])[:, :height, :width]
        return regions(
            maps, photo.width, photo.height, thresholds.damage, thresholds.min_area, thresholds.certain
        )


def regions(
    logits: NDArray[np.float32],
    width: int,
    height: int,
    threshold: float,
    min_area: float,
    certain: float = 0.0,
) -> tuple[Region, ...]:
    """Connected regions of damage in the detector's maps.

    Args:
        logits: float32 (7, h, w) over the photo: damage, three types, three severities.
        width: of the photo, pixels.
        height: of the photo, pixels.
        threshold: probability from which a pixel is damage.
        min_area: least share of the photo that a region covers.
        certain: probability that its surest pixel has at least. A low `threshold` with a high `certain` keeps the
            faint ends of a scratch and drops faint reflections (hysteresis, Canny 1986).
    """
    rows, columns = logits.shape[1:]
    probability = 1 / (1 + np.exp(-np.clip(logits[0], -30, 30)))
    mask = (probability >= threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask, _JOIN), connectivity=8)
    scale_x, scale_y = width / columns, height / rows
    found = []
    for label in range(1, count):
        left, top, wide, high = (int(v) for v in stats[label, :4])
        part = slice(top, top + high), slice(left, left + wide)
        inside = (labels[part] == label) & (mask[part] > 0)
        if inside.sum() < max(1.0, min_area * rows * columns):
            continue
        weights = probability[part][inside]
        if weights.max() < certain:
            continue
        box_x, box_y, box_wide, box_high = cv2.boundingRect(inside.astype(np.uint8))
        x0, y0 = left + box_x, top + box_y
        found.append(
            Region(
                box=Box(x0 * scale_x, y0 * scale_y, (x0 + box_wide) * scale_x, (y0 + box_high) * scale_y),
                polygons=_outlines(inside.astype(np.uint8), left, top, scale_x, scale_y),
                type=TYPES[_argmax(logits[1:4, *part][:, inside], weights)],
                severity=SEVERITIES[_argmax(logits[4:7, *part][:, inside], weights)],
                score=round(float(weights.mean()), 4),
            )
        )
    found.sort(key=lambda r: (-r.score, -r.box.area, r.box.x0, r.box.y0))
    return tuple(found[:MAX_DAMAGES])


def _argmax(logits: NDArray[np.float32], weights: NDArray[np.float32]) -> int:
    """The class of a region: softmax at each of N pixels of (classes, N), then their weighted mean."""
    shifted = np.exp(logits - logits.max(axis=0))
    return int(np.argmax((shifted / shifted.sum(axis=0) * weights).sum(axis=1)))


def _outlines(
    mask: NDArray[np.uint8], left: int, top: int, scale_x: float, scale_y: float
) -> tuple[Polygon, ...]:
    """Outer contours of a region's parts in photo pixels, the largest first, simplified to bounded length."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    contours = sorted(contours, key=cv2.contourArea, reverse=True)[:MAX_POLYGONS]
    polygons = []
    for contour in contours:
        tolerance, outline = 0.75, contour
        while len(outline) > MAX_VERTICES or outline is contour:
            outline = cv2.approxPolyDP(contour, tolerance, True)
            tolerance *= 2
        if len(outline) < 3:  # a line or a dot: the box of its pixels
            x, y, wide, high = cv2.boundingRect(contour)
            corners = np.array([[x, y], [x + wide, y], [x + wide, y + high], [x, y + high]], float)
        else:
            corners = outline[:, 0].astype(float) + 0.5
        corners = (corners + np.array([left, top])) * np.array([scale_x, scale_y])
        polygons.append(tuple((round(float(x), 2), round(float(y), 2)) for x, y in corners))
    return tuple(polygons)
