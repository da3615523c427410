"""Pictures for people: damages on a photo, and a match of two photos side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, Damage, DamageType, Severity, Sighting

Image = NDArray[np.uint8]

MATCH_HEIGHT = 640
"""Pixels of both photos in the drawing of a match."""
MAX_LINES = 60

# BGR, told apart by the colour-blind too (Okabe and Ito).
_COLOURS = {
    Severity.MINOR: (115, 158, 0),
    Severity.MODERATE: (0, 159, 230),
    Severity.SEVERE: (0, 94, 213),
    Severity.UNKNOWN: (178, 114, 0),
}
_INK = (255, 255, 255)
_GAP = 8
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_damages(image: Image, damages: Sequence[Damage], width: int | None = None) -> Image:
    """A copy of a photo with each damage outlined, boxed and named.

    Args:
        image: uint8 (h, w, 3) BGR, upright.
        damages: in pixels of the full-size photo.
        width: of the full-size photo, where `image` is reduced.

    Returns:
        uint8 (h, w, 3) BGR.
    """
    drawn = image.copy()
    scale = image.shape[1] / (width or image.shape[1])
    tint = drawn.copy()
    for damage in damages:
        for polygon in damage.polygons:
            cv2.fillPoly(tint, [_pixels(polygon, scale)], _COLOURS[damage.severity])
    drawn = np.asarray(cv2.addWeighted(tint, 0.3, drawn, 0.7, 0), np.uint8)
    for damage in reversed(damages):
        for polygon in damage.polygons:
            cv2.polylines(drawn, [_pixels(polygon, scale)], True, _COLOURS[damage.severity], 1, cv2.LINE_AA)
        _box(drawn, damage.box, scale, 0, _COLOURS[damage.severity], _name(damage))
    return drawn


def draw_match(
    query_image: Image,
    match_image: Image,
    query: Sighting,
    match: Sighting,
    points: Sequence[tuple[float, float, float, float]] = (),
) -> Image:
    """Two photos side by side, with the box of either damage and lines between matched points.

    Args:
        query_image: uint8 (h, w, 3) BGR, upright, perhaps reduced.
        match_image: the same.
        query: on the left, in pixels of its full-size photo.
        match: on the right.
        points: query x, y, match x, y, as in `domain.Match`; at most `MAX_LINES` of them are drawn.

    Returns:
        uint8 (MATCH_HEIGHT, both widths and a gap, 3) BGR.
    """
    left, right = _at_height(query_image), _at_height(match_image)
    shift = left.shape[1] + _GAP
    drawn = np.full((MATCH_HEIGHT, shift + right.shape[1], 3), 255, np.uint8)
    drawn[:, : left.shape[1]] = left
    drawn[:, shift:] = right
    scale_left, scale_right = MATCH_HEIGHT / query.height, MATCH_HEIGHT / match.height
    step = max(1, -(-len(points) // MAX_LINES))
    for x, y, u, v in points[::step]:
        start = round(x * scale_left), round(y * scale_left)
        end = round(u * scale_right) + shift, round(v * scale_right)
        cv2.line(drawn, start, end, (150, 220, 60), 1, cv2.LINE_AA)
        for at in (start, end):
            cv2.circle(drawn, at, 3, (60, 160, 20), -1, cv2.LINE_AA)
    for sighting, scale, across in ((query, scale_left, 0), (match, scale_right, shift)):
        damage = sighting.damage
        if damage.type is not DamageType.WHOLE:
            _box(drawn, damage.box, scale, across, _COLOURS[damage.severity], _name(damage))
    return drawn


def _name(damage: Damage) -> str:
    return f"{damage.severity} {damage.type} {damage.score:.2f}"


def _pixels(polygon: Sequence[tuple[float, float]], scale: float) -> NDArray[np.int32]:
    return np.rint(np.asarray(polygon) * scale).astype(np.int32)


def _at_height(image: Image) -> Image:
    width = max(1, round(image.shape[1] * MATCH_HEIGHT / image.shape[0]))
    way = cv2.INTER_AREA if image.shape[0] > MATCH_HEIGHT else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, MATCH_HEIGHT), interpolation=way), np.uint8)


def _box(image: Image, box: Box, scale: float, shift: int, colour: tuple[int, int, int], text: str) -> None:
    x0, y0 = round(box.x0 * scale) + shift, round(box.y0 * scale)
    x1, y1 = round(box.x1 * scale) + shift - 1, round(box.y1 * scale) - 1
    cv2.rectangle(image, (x0, y0), (x1, y1), colour, 2, cv2.LINE_AA)
    size = max(0.35, min(image.shape[:2]) / 1400)
    (wide, high), below = cv2.getTextSize(text, _FONT, size, 1)
    x = max(0, min(x0, image.shape[1] - wide))
    y = y0 if y0 > high + 2 * below else y1 + high + 2 * below
    cv2.rectangle(image, (x, y - high - 2 * below), (x + wide, y), colour, -1)
    cv2.putText(image, text, (x, y - below), _FONT, size, _INK, 1, cv2.LINE_AA)
