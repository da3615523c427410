from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damagewatch.vision import manifest
from damagewatch.vision.engine import CPU, CUDA, Engine, available
from damagewatch.vision.manifest import ModelRefusedError, read_manifest, read_model
from damagewatch.vision.models import Models

from .models_folder import SHIPPED, shipped

Change = Callable[[dict[str, Any]], None]


def folder(tmp_path: Path, change: Change) -> Path:
    """A models folder with links to the shipped files and a changed manifest."""
    told = json.loads((SHIPPED / "manifest.json").read_text())
    for model in read_manifest(SHIPPED).models.values():
        (tmp_path / model.file).write_bytes((SHIPPED / model.file).read_bytes())
    change(told)
    (tmp_path / "manifest.json").write_text(json.dumps(told))
    return tmp_path


def test_shipped_models_load_and_name_themselves() -> None:
    models = shipped()
    assert set(models.versions) == {*models.manifest.models, "calibration"}
    digest = hashlib.sha256((SHIPPED / models.manifest.embedder.file).read_bytes()).hexdigest()
    assert models.versions["embedder"] == f"{models.manifest.embedder.name}-{digest[:12]}"
    assert models.dimension == 512
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 60_000_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m["embedder"].update(sha256="0" * 64), "embedder.sha256"),
        (lambda m: m["embedder"].update(file="../embedder.onnx"), "embedder.file"),
        (lambda m: m["embedder"].update(file="/etc/passwd"), "embedder.file"),
        (lambda m: m["embedder"].update(file="gone.onnx"), "gone.onnx"),
        (lambda m: m.pop("detector"), "detector"),
        (lambda m: m["detector"]["input"].update(size=10**9), "detector.input.size"),
        (lambda m: m["detector"]["input"].update(std=[0, 1, 1]), "detector.input.std"),
        (lambda m: m["detector"].update(thresholds={"damage": 2}), "detector.thresholds.damage"),
        (lambda m: m["embedder"].update(dimension="many"), "embedder.dimension"),
        (lambda m: m["embedder"].update(dimension=64, statistics=None), "embedder.dimension"),
        (lambda m: m["detector"].update(m["local_features"]), "detector.file"),
        (lambda m: m["local_features"]["input"].update(size=512), "local_features.file"),
        (lambda m: m.update(severity=m["embedder"]), "severity.file"),
        (lambda m: m.update(calibration={"features": ["luck"]}), "calibration"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, change: Change, told: str) -> None:
    with pytest.raises(ModelRefusedError) as refused:
        Models.load(folder(tmp_path, change))
    assert told in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    directory = folder(tmp_path, lambda told: None)
    path = directory / "xfeat.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelRefusedError, match=r"local_features\.sha256"):
        Models.load(directory)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    directory = folder(tmp_path, lambda told: None)
    (directory / "xfeat.onnx").unlink()
    (directory / "xfeat.onnx").symlink_to(SHIPPED / "xfeat.onnx")
    told = read_manifest(directory)
    with pytest.raises(ModelRefusedError, match="outside"):
        read_model(directory, "local_features", told.local_features)


def test_missing_broken_and_huge_manifests(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"manifest\.json"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ModelRefusedError, match="JSON"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b" " * (manifest.MAX_MANIFEST_BYTES + 1))
    with pytest.raises(ModelRefusedError, match="larger"):
        read_manifest(tmp_path)


def test_a_file_that_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="ONNX Runtime"):
        Engine(b"no model", (3, 8, 8), ("logits",))


def test_sessions_use_one_thread_and_do_not_spin() -> None:
    """ONNX Runtime's default costs more than twice the time as soon as there are two sessions."""
    model = (SHIPPED / shipped().manifest.local_features.file).read_bytes()
    options = Engine(model, (1, 384, 384), ("reliability",))._session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_without_the_wanted_provider_the_cpu_is_used_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # one for each model
            assert available(["NoSuchExecutionProvider", CPU]) == [CPU]
    assert len(caplog.records) == 1
    assert "NoSuchExecutionProvider" in caplog.text
    caplog.clear()
    assert available([CPU]) == [CPU]
    assert not caplog.records
    assert available([CUDA, CPU])[-1] == CPU


def test_batches_give_what_single_images_give() -> None:
    model = (SHIPPED / shipped().manifest.embedder.file).read_bytes()
    side = shipped().manifest.embedder.input.size
    engine = Engine(model, (3, side, side), ("embedding",))
    images = np.random.default_rng(0).normal(size=(3, 3, side, side)).astype(np.float32)
    (together,) = engine.run(images)
    alone = np.concatenate([engine.run(images[i : i + 1])[0] for i in range(3)])
    assert np.abs(together - alone).max() < 1e-4
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-4
