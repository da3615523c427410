"""Windows of photos: what is embedded of a damage, as the service cuts it, and which ones are trained on."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch.vision.regions import window

Image = NDArray[np.uint8]


def whole(width: int, height: int) -> Box:
    """The window of the whole photo."""
    return Box(0, 0, width, height)


def cut(photo: Image, box: Box, size: int, interpolation: int = cv2.INTER_LINEAR) -> Image:
    """The window stretched to (size, size, 3). A window is cut at whole pixels, at least one wide.

    In one step and by any interpolation, unlike the service's `resample.cut`: views of other cameras are to differ.
    """
    height, width = photo.shape[:2]
    x0, y0 = min(int(box.x0), width - 1), min(int(box.y0), height - 1)
    x1, y1 = max(round(box.x1), x0 + 1), max(round(box.y1), y0 + 1)
    part = photo[y0:y1, x0:x1]
    return np.asarray(cv2.resize(part, (size, size), interpolation=interpolation), np.uint8)


def mapped(box: Box, homography: NDArray[np.float64], width: int, height: int) -> Box | None:
    """The upright box around `box` after `homography`, clipped; None where less than half stays in view."""
    corners = np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]], np.float64)
    points = cv2.perspectiveTransform(corners[None], homography)[0]
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    inside = Box(x0, y0, x1, y1).intersection(whole(width, height))
    if inside is None or inside.area < 0.5 * (x1 - x0) * (y1 - y0):
        return None
    return inside


def jittered(box: Box, rng: np.random.Generator, width: int, height: int) -> Box:
    """The box that a detector might have drawn instead: each side moved, by up to a tenth or so."""
    dx, dy = rng.normal(0, 0.07, 2) * (box.width, box.height)
    grow = np.exp(rng.normal(0, 0.12, 2))
    x, y = box.centre
    w, h = max(box.width * grow[0], 2), max(box.height * grow[1], 2)
    moved = Box(x + dx - w / 2, y + dy - h / 2, x + dx + w / 2, y + dy + h / 2)
    return moved.intersection(whole(width, height)) or box


def to_train_on(damages: list[Box], width: int, height: int, rng: np.random.Generator) -> list[Box]:
    """The boxes of a photo that the embedder learns: its damages (at most 6), the whole, three random ones.

    The random ones are as small as damages are, so that their windows show plain panels, seams and lamps.
    """
    chosen = [damages[i] for i in rng.permutation(len(damages))[:6]]
    for _ in range(3):
        w, h = np.exp(rng.uniform(np.log(0.04), np.log(0.2), 2)) * (width, height)
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        chosen.append(Box(x, y, x + w, y + h))
    kept = [whole(width, height)]
    for box in chosen:
        around = window(box, width, height)
        if all(around.iou(window(other, width, height)) < 0.8 for other in kept):
            kept.append(box)
    return kept
