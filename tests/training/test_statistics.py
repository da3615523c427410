from pathlib import Path

import cv2
import numpy as np
import pytest

from damagewatch.vision.models import Models
from damagewatch_training.export.statistics import TooFewPhotosError, measure

MODELS = Path(__file__).parents[2] / "deploy/models"


def test_too_few_photos_give_no_reference() -> None:
    photo = cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8))[1].tobytes()
    with pytest.raises(TooFewPhotosError, match="1 photos could be read; 200"):
        measure(Models.load(MODELS), [photo, b"no photo"])


def test_the_shipped_reference_is_of_the_shipped_embedder() -> None:
    manifest = Models.load(MODELS).manifest.embedder
    assert manifest.statistics is not None
    assert manifest.statistics.photos >= 200
    # Of vectors of unit length the mean and the spread are the sides of a right triangle.
    mean = np.array(manifest.statistics.mean)
    assert float(mean @ mean) + manifest.statistics.spread**2 == pytest.approx(1.0, abs=1e-3)
