"""Cutting a box out of a photo at another size: the one way in which every model gets its pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo


def cut(photo: Photo, box: Box, width: int, height: int) -> NDArray[np.uint8]:
    """The part of a photo under a box, stretched to a size.

    Halved by exact 2 x 2 averages while it is at least twice too large, then linear: without aliasing, and
    four times faster than area interpolation by any factor.

    Args:
        photo: the decoded photo, perhaps reduced.
        box: in pixels of the full-size photo, within it.
        width: of the result, pixels.
        height: of the result, pixels.

    Returns:
        uint8 (height, width, 3) BGR. Its continuous point (u, v) shows the photo's point
        (box.x0 + u * box.width / width, box.y0 + v * box.height / height).
    """
    left, top = math.floor(box.x0 * photo.scale), math.floor(box.y0 * photo.scale)
    part = photo.image[
        top : max(top + 1, math.ceil(box.y1 * photo.scale)),
        left : max(left + 1, math.ceil(box.x1 * photo.scale)),
    ]
    scale_x, scale_y = photo.scale, photo.scale
    while part.shape[1] >= 2 * width and part.shape[0] >= 2 * height:
        part = part[: part.shape[0] // 2 * 2, : part.shape[1] // 2 * 2]
        half = part.shape[1] // 2, part.shape[0] // 2
        part = np.asarray(cv2.resize(part, half, interpolation=cv2.INTER_AREA), np.uint8)
        scale_x, scale_y = scale_x / 2, scale_y / 2
    offset_x, offset_y = left * scale_x / photo.scale, top * scale_y / photo.scale
    step_x, step_y = box.width / width * scale_x, box.height / height * scale_y
    whole = offset_x, offset_y, offset_x + part.shape[1], offset_y + part.shape[0]
    if whole == (box.x0 * scale_x, box.y0 * scale_y, box.x1 * scale_x, box.y1 * scale_y):
        # The same to one level of brightness, in a half to a quarter of the time.
        return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    # Pixel u has its centre at u + 1/2.
    back = np.array(
        [
            [step_x, 0, box.x0 * scale_x - offset_x + step_x / 2 - 0.5],
            [0, step_y, box.y0 * scale_y - offset_y + step_y / 2 - 0.5],
        ]
    )
    return np.asarray(
        cv2.warpAffine(
            part,
            back,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        np.uint8,
    )


def fitted(box: Box, size: int) -> tuple[int, int]:
    """Width and height in pixels of a box scaled to fit a square of `size`."""
    scale = size / max(box.width, box.height)
    return min(size, max(1, round(box.width * scale))), min(size, max(1, round(box.height * scale)))
