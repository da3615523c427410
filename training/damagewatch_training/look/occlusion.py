"""Where an embedder looks: how much of a likeness is lost when a part of the picture is covered.

Occlusion (Zeiler and Fergus, ECCV 2014) asks the model as it ships, whatever it is made of; a class activation map
needs its layers, and shows what they hold, not what the likeness rests on.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo as Decoded
from damagewatch_training.evaluate.methods import Embed, Vector, unit

Image = NDArray[np.uint8]

GRID = 10
PATCH = 0.2
"""Side of the covered square, over that of the picture."""


def vector(embed: Embed, image: Image) -> Vector:
    """The embedding of a picture, uint8 (H, W, 3) BGR: float32 (D,) of unit length."""
    height, width = image.shape[:2]
    found = embed(Decoded(image, width, height, 1.0), Box(0, 0, width, height))
    return np.asarray(unit(found[None])[0])


def lost(embed: Embed, image: Image, likeness: Vector, grid: int = GRID) -> NDArray[np.float32]:
    """How much of the cosine to `likeness` is lost where the picture is covered.

    Args:
        embed: The embedder.
        image: uint8 (H, W, 3) BGR.
        likeness: Unit length: of the picture itself, or of what it should be like.
        grid: How many places across and down.

    Returns:
        float32 (grid, grid): the loss with a square of `PATCH` around each place in the picture's mean colour.
        Negative where the likeness grows: what is covered spoke against it.
    """
    height, width = image.shape[:2]
    whole = float(vector(embed, image) @ likeness)
    colour = image.reshape(-1, 3).mean(0)
    found = np.empty((grid, grid), np.float32)
    for row in range(grid):
        for column in range(grid):
            y, x = (row + 0.5) / grid * height, (column + 0.5) / grid * width
            high, wide = PATCH * height / 2, PATCH * width / 2
            covered = image.copy()
            covered[max(0, round(y - high)) : round(y + high), max(0, round(x - wide)) : round(x + wide)] = (
                colour
            )
            found[row, column] = whole - float(vector(embed, covered) @ likeness)
    return found


def shown(image: Image, loss: NDArray[np.float32], most: float) -> Image:
    """The picture with its map laid over: dark blue for nothing lost, red for `most`."""
    height, width = image.shape[:2]
    smooth = cv2.resize(loss, (width, height), interpolation=cv2.INTER_CUBIC)
    level = np.asarray(np.clip(smooth / max(most, 1e-6), 0, 1) * 255, np.uint8)
    coloured = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(grey, 0.55, coloured, 0.45, 0), np.uint8)
