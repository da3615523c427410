"""The severity of whole photos, with the shipped models and without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from damagewatch.domain import PhotoSeverity, Severity
from damagewatch.vision.decode import Photo
from damagewatch.vision.engine import Engine
from damagewatch.vision.manifest import Model, ModelInput
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perception
from damagewatch.vision.severity import Grader

from . import pictures
from .models_folder import SHIPPED, shipped

ENTRY = Model(name="x", file="x", sha256="0" * 64, input=ModelInput(size=32))


class Constant(Engine):
    """Gives the same logits for every photo."""

    def __init__(self, *logits: float) -> None:
        self._logits = np.array([logits], np.float32)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        assert images.shape == (1, 3, 32, 32)
        return [self._logits]


PHOTO = Photo(np.zeros((40, 60, 3), np.uint8), 60, 40, 1.0)


@pytest.mark.parametrize(
    ("logits", "wanted"),
    [((2.0, 1.0, 0.0), Severity.MINOR), ((0, 1, 0), Severity.MODERATE), ((-500, -800, 900), Severity.SEVERE)],
)
def test_probabilities_add_up_and_the_likeliest_is_told(logits: tuple[float, ...], wanted: Severity) -> None:
    found = Grader(Constant(*logits), ENTRY).grade(PHOTO)
    assert found is not None
    assert found.severity is wanted
    assert found.minor + found.moderate + found.severe == pytest.approx(1, abs=2e-4)


def test_of_equals_the_worse_is_told() -> None:
    assert PhotoSeverity(0.4, 0.4, 0.2).severity is Severity.MODERATE


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        Grader(Constant(1, 2), ENTRY)


@pytest.mark.parametrize("logits", [(0.0, float("nan"), 0.0), (float("inf"), 0.0, 0.0)])
def test_what_is_no_number_is_refused_at_first_and_told_to_nobody_later(logits: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="not numbers"):
        Grader(Constant(*logits), ENTRY)
    engine = Constant(0, 0, 0)
    grader = Grader(engine, ENTRY)
    engine._logits = np.array([logits], np.float32)
    assert grader.grade(PHOTO) is None


def test_a_folder_without_a_grader_tells_nothing(tmp_path: Path) -> None:
    told = json.loads((SHIPPED / "manifest.json").read_text())
    told.pop("severity", None)
    for part in ("detector", "embedder", "local_features"):
        shutil.copy(SHIPPED / told[part]["file"], tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(told))
    models = Models.load(tmp_path)
    assert "severity" not in models.versions
    image = pictures.claim_image(pictures.encoded(pictures.scene(120, 90, seed=1)))
    assert Perception(models).perceive(image).severity is None


def test_the_shipped_models_tell_it_of_every_photo() -> None:
    image = pictures.claim_image(pictures.encoded(pictures.scene(120, 90, seed=1)))
    found = Perception(shipped()).perceive(image).severity
    assert found is not None
    assert found.minor + found.moderate + found.severe == pytest.approx(1, abs=2e-4)
