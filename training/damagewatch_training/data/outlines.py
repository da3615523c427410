"""Polygons drawn by people: cut to the photo, and made simple where they cross themselves."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch_training.data.report import Trouble

Points = NDArray[np.float64]

SMALLEST = 4.0
"""Pixels squared: what covers less is a slip of the mouse."""
SLACK = 1.0
"""Pixels by which a polygon may reach outside without being told: exports round."""
MAX_VERTICES = 5_000


def area(polygon: Points) -> float:
    """Of a simple polygon (N, 2), pixels squared (the shoelace formula)."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2)


def box_around(polygons: list[Points] | tuple[Points, ...]) -> Box:
    """The upright box of all points."""
    points = np.concatenate(polygons)
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    return Box(x0, y0, x1, y1)


def clean(polygon: Points, width: int, height: int) -> tuple[list[Points], list[Trouble]]:
    """A drawn polygon as it can be trained on: inside the photo, of some size, crossing itself nowhere.

    Args:
        polygon: float64 (N, 2), pixels of the upright photo.
        width: of the photo.
        height: of the photo.

    Returns:
        What is left (nothing, the polygon as it was, or others that cover the same pixels), and the troubles met.
    """
    if len(polygon) > MAX_VERTICES:
        return [], [Trouble.TOO_MANY]
    if len(polygon) < 3:
        return [], [Trouble.POLYGON_SHORT]
    if not np.isfinite(polygon).all() or np.abs(polygon).max() > 1e7:
        return [], [Trouble.ENTRY_BROKEN]
    troubles = []
    over = max(-polygon.min(), float((polygon - (width, height)).max()))
    if over > 0:
        if over <= SLACK:
            polygon = np.clip(polygon, 0, (width, height))
        else:
            polygon = clipped(polygon, width, height)
            if len(polygon) < 3:
                return [], [Trouble.POLYGON_OUTSIDE]
            troubles.append(Trouble.POLYGON_CLIPPED)
    polygons = [polygon]
    if crosses_itself(polygon):
        troubles.append(Trouble.POLYGON_CROSSING)
        polygons = traced([polygon], width, height)
    kept = [outline for outline in polygons if area(outline) >= SMALLEST]
    if not kept:
        troubles.append(Trouble.POLYGON_SMALL)
    return kept, troubles


def clipped(polygon: Points, width: int, height: int) -> Points:
    """The part inside the photo (Sutherland and Hodgman, 1974); fewer than 3 points where there is none."""
    for axis, bound, sign in (
        (0, 0.0, 1.0),
        (0, float(width), -1.0),
        (1, 0.0, 1.0),
        (1, float(height), -1.0),
    ):
        if len(polygon) == 0:
            break
        inside = sign * (polygon[:, axis] - bound)
        points = []
        for start, end, from_, to in zip(
            polygon, np.roll(polygon, -1, 0), inside, np.roll(inside, -1), strict=True
        ):
            if from_ >= 0:
                points.append(start)
            if (from_ < 0) != (to < 0):
                crossing = start + (end - start) * (from_ / (from_ - to))
                crossing[axis] = bound
                points.append(crossing)
        polygon = np.array(points, np.float64).reshape(-1, 2)
    return polygon


def crosses_itself(polygon: Points) -> bool:
    """Whether two sides that do not follow each other have a point in common that is not an end of both."""
    start, end = polygon, np.roll(polygon, -1, 0)
    count = len(polygon)
    for index in range(count - 2):
        others = slice(index + 2, count - 1 if index == 0 else count)
        a, b = start[index], end[index]
        c, d = start[others], end[others]
        first = _side(a, b, c) * _side(a, b, d)
        second = _side(c, d, a) * _side(c, d, b)
        if bool(((first < 0) & (second < 0)).any()):
            return True
    return False


def _side(a: Points, b: Points, c: Points) -> NDArray[np.float64]:
    """The sign of the turn from a over b to c, 0 on a line; broadcasts over (..., 2)."""
    turn = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
        c[..., 0] - a[..., 0]
    )
    return np.asarray(np.sign(turn), np.float64)


def filled(polygons: list[Points] | tuple[Points, ...], width: int, height: int) -> NDArray[np.uint8]:
    """uint8 (height, width): 255 inside any of the polygons."""
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        # OpenCV counts from the centre of the first pixel, in sixteenths here.
        points = np.rint((np.asarray(polygon, np.float64) - 0.5) * 16).astype(np.int32)
        one = np.zeros_like(mask)
        cv2.fillPoly(one, [points], 255, shift=4)
        mask |= one
    return mask


def outlines(mask: NDArray[np.uint8]) -> list[Points]:
    """Outer outlines of the parts of a mask (H, W), in pixels, those of fewer than 3 points left out."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = [cv2.approxPolyDP(contour, 0.5, True)[:, 0].astype(np.float64) + 0.5 for contour in contours]
    return [outline for outline in found if len(outline) >= 3]


def traced(polygons: list[Points], width: int, height: int) -> list[Points]:
    """Simple polygons that cover the pixels of polygons that cross themselves."""
    return outlines(filled(polygons, width, height))
