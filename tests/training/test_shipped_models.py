"""The files under deploy/models are those of the manifest and keep the contract. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from damagewatch.vision.models import Models

MODELS = Path(__file__).parents[2] / "deploy" / "models"
MANIFEST = json.loads((MODELS / "manifest.json").read_text())
CONTRACT = {
    "detector": (3, {"logits": (7, None, None)}),
    "embedder": (3, {"embedding": (512,)}),
    "local_features": (
        1,
        {"descriptors": (64, 48, 48), "keypoints": (65, 48, 48), "reliability": (1, 48, 48)},
    ),
    "severity": (3, {"severity": (3,)}),
}


@pytest.mark.parametrize("part", CONTRACT)
def test_file_is_that_of_the_manifest(part: str) -> None:
    content = (MODELS / MANIFEST[part]["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == MANIFEST[part]["sha256"]


@pytest.mark.parametrize("part", CONTRACT)
@pytest.mark.parametrize("batch", [1, 2])
def test_outputs_keep_the_contract(part: str, batch: int) -> None:
    channels, outputs = CONTRACT[part]
    size = MANIFEST[part]["input"]["size"]
    session = ort.InferenceSession(MODELS / MANIFEST[part]["file"], providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((batch, channels, size, size), dtype=np.float32)
    results = dict(zip(outputs, session.run(list(outputs), {"image": image}), strict=True))
    for name, shape in outputs.items():
        found = results[name]
        assert found.dtype == np.float32
        assert found.shape[0] == batch
        assert len(found.shape) == len(shape) + 1
        assert all(w in (None, h) for w, h in zip(shape, found.shape[1:], strict=True))
        assert np.isfinite(found).all()


def test_embeddings_have_unit_length_and_differ() -> None:
    entry = MANIFEST["embedder"]
    session = ort.InferenceSession(MODELS / entry["file"], providers=["CPUExecutionProvider"])
    size = entry["input"]["size"]
    noise = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    noise[1] = noise[1].cumsum(1) / 8
    (vectors,) = session.run(None, {"image": noise})
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-4)
    assert vectors[0] @ vectors[1] < 0.99


def test_every_source_has_a_licence() -> None:
    for part in CONTRACT:
        assert MANIFEST[part]["data"]
        assert all(source["licence"] and source["source"] for source in MANIFEST[part]["data"])


def test_the_service_loads_them_and_they_are_small() -> None:
    assert Models.load(MODELS).dimension == MANIFEST["embedder"]["dimension"]
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 60e6
