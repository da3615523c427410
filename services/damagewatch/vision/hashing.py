"""Cheap fingerprints of a photo: a 64-bit perceptual hash that survives re-encoding and scaling."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 32
_FREQUENCIES = 8


def perceptual_hashes(image: NDArray[np.uint8]) -> tuple[int, int]:
    """The DCT hash (pHash, Zauner 2010) of a photo and that of its mirrored twin.

    Which of the 8 x 8 lowest frequencies of the 32 x 32 grey image exceed their median (without the first).

    Args:
        image: uint8 (h, w, 3) BGR.

    Returns:
        Twice 64 bits, 0 <= hash < 2**64.
    """
    while min(image.shape[:2]) >= 4 * _SIDE:  # halving by integer area is exact and cheap
        size = image.shape[1] // 2, image.shape[0] // 2
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)
    low = np.asarray(cv2.dct(small))[:_FREQUENCIES, :_FREQUENCIES]
    turned = low * np.where(
        np.arange(_FREQUENCIES) % 2, -1, 1
    )  # mirroring negates the odd frequencies across
    return _bits(low), _bits(turned)


def _bits(low: NDArray[Any]) -> int:
    bits = low.ravel() > np.median(low.ravel()[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def distance(one: int, other: int) -> int:
    """Bits in which two hashes differ, 0 to 64."""
    return (one ^ other).bit_count()
