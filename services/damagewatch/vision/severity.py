"""How badly the car of a photo is damaged, as a whole."""

from __future__ import annotations

import numpy as np

from damagewatch.domain import Box, PhotoSeverity
from damagewatch.vision.decode import Photo
from damagewatch.vision.embed import to_tensor
from damagewatch.vision.engine import Engine
from damagewatch.vision.manifest import Model
from damagewatch.vision.resample import cut

CLASSES = 3


class Grader:
    """Grades whole photos."""

    def __init__(self, engine: Engine, model: Model) -> None:
        """Takes an engine of one output: logits, float32 (N, 3), minor to severe.

        Raises:
            ValueError: it gives another number of them, or what is no number.
        """
        side = model.input.size
        (logits,) = engine.run(np.zeros((1, 3, side, side), np.float32))
        if logits.shape != (1, CLASSES):
            raise ValueError(f"gives {logits.shape[1:]} for a photo, not the logits of {CLASSES} classes")
        if not np.isfinite(logits).all():
            raise ValueError(f"gives {logits[0].tolist()} for a black photo, not numbers")
        self._engine = engine
        self._model = model

    def grade(self, photo: Photo) -> PhotoSeverity | None:
        """The probabilities (softmax), rounded to four digits, of the photo stretched to the model's square.

        None where the model gives what is no number.
        """
        side = self._model.input.size
        image = cut(photo, Box(0, 0, photo.width, photo.height), side, side)
        (logits,) = self._engine.run(to_tensor(image, self._model.input))
        if not np.isfinite(logits).all():
            return None
        likely = np.exp(logits[0] - logits[0].max())
        minor, moderate, severe = (round(float(share), 4) for share in likely / likely.sum())
        return PhotoSeverity(minor, moderate, severe)
