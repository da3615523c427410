"""Random textures with detail at several scales."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def fractal(
    height: int, width: int, cell: float, rng: np.random.Generator, octaves: int = 4
) -> NDArray[np.float32]:
    """Value noise, float32 (height, width), mean about 0 and deviation about 1.

    The coarsest spots are about `cell` pixels wide; each octave halves their size and their strength.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        rows, columns = int(height / step) + 2, int(width / step) + 2
        grid = rng.standard_normal((rows, columns), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.5**octave)
    return total


def wobble(points: int, roughness: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random line of `points` values that starts near 0: smooth for roughness 0, jagged for 1."""
    smooth = np.interp(np.linspace(0, 5, points), np.arange(6), rng.standard_normal(6))
    return smooth * (1 - roughness) + rng.standard_normal(points) * roughness
