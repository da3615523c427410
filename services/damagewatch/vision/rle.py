"""Masks in COCO's uncompressed run-length encoding: column by column, runs of 0 and 1 in turn, 0 first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Polygon


class Rle(TypedDict):
    """`size` is [height, width]; `counts` are run lengths that sum to height * width."""

    size: list[int]
    counts: list[int]


def encode(mask: NDArray[np.bool_]) -> Rle:
    """Encodes a mask (height, width). pycocotools reads it through `frPyObjects`."""
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat.size and flat[0]:
        counts.insert(0, 0)
    return Rle(size=[int(mask.shape[0]), int(mask.shape[1])], counts=counts if flat.size else [])


def decode(rle: Rle) -> NDArray[np.bool_]:
    """The mask (height, width) of an encoding.

    Raises:
        ValueError: the runs do not sum to the size.
    """
    height, width = rle["size"]
    if sum(rle["counts"]) != height * width:
        raise ValueError("runs that do not sum to the size")
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape((height, width), order="F")


def fill(polygons: Sequence[Polygon], width: int, height: int) -> NDArray[np.bool_]:
    """The mask (height, width) of outlines in pixels."""
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.floor(np.asarray(polygon)).astype(np.int32)], 1)
    return mask.astype(bool)
