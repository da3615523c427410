"""The embedding of a window: a point that lies close to those of other photographs of the same damage."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo
from damagewatch.vision.engine import Engine
from damagewatch.vision.manifest import EmbedderModel, ModelInput
from damagewatch.vision.resample import cut


def to_tensor(image: NDArray[np.uint8], wanted: ModelInput) -> NDArray[np.float32]:
    """A model's input: float32 (1, 3, h, w) RGB, (value / 255 - mean) / std.

    Args:
        image: uint8 (h, w, 3) BGR.
        wanted: mean and std of the channels, in the order RGB.
    """
    mean = np.asarray(wanted.mean, np.float32)
    std = np.asarray(wanted.std, np.float32)
    blob = np.asarray(cv2.dnn.blobFromImage(image, swapRB=True), np.float32)
    blob *= (1 / (255 * std)).reshape(1, -1, 1, 1)
    blob -= (mean / std).reshape(1, -1, 1, 1)
    return blob


class Embedder:
    """Turns windows into vectors."""

    def __init__(self, engine: Engine, model: EmbedderModel) -> None:
        self._engine = engine
        self._model = model

    def embed(self, photo: Photo, window: Box) -> NDArray[np.float32]:
        """The vector of a window, stretched to the model's square: float32 (dimension,), of unit length."""
        size = self._model.input.size
        (vectors,) = self._engine.run(to_tensor(cut(photo, window, size, size), self._model.input))
        vector = vectors[0]
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
