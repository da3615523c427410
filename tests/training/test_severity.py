"""The training of the grader of whole photos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from damagewatch_training.data.dataset import DataRefusedError  # noqa: E402
from damagewatch_training.data.sources import Photo  # noqa: E402
from damagewatch_training.detector.examples import Examples  # noqa: E402
from damagewatch_training.embedder.augment import PLAIN  # noqa: E402
from damagewatch_training.experiment.config import ConfigError, load  # noqa: E402
from damagewatch_training.experiment.record import OtherExperiment  # noqa: E402
from damagewatch_training.severity import train as severity  # noqa: E402
from damagewatch_training.severity.network import Grader, Network  # noqa: E402

NETWORK = Network(backbone="mobilenetv3_small_050", weights="none", dropout=0.0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def settings(**changes: object) -> severity.Settings:
    told: dict[str, object] = {"network": NETWORK, "augment": PLAIN, "size": 64, "batch": 4, "epochs": 2}
    return severity.Settings(**told | changes)  # type: ignore[arg-type]


def graded(folder: Path, count: int) -> Examples:
    """Photos whose brightness is their grade."""
    photos, grades = [], {}
    for number in range(count):
        path = folder / f"{number}.png"
        shade = np.random.default_rng(number).normal(50 + 80 * (number % 3), 8, (64, 80, 3))
        cv2.imwrite(str(path), shade.clip(0, 255).astype(np.uint8))
        photos.append(Photo(path.name, path))
        grades[path.name] = number % 3
    return Examples([], graded=photos, severity=grades)


def test_a_training_that_was_stopped_ends_where_one_that_was_not_ends(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(line: str) -> None:
        raise Stopped

    examples = graded(tmp_path, 12)
    straight = severity.train(examples, tmp_path / "a", settings(), tell=lambda line: None)
    with pytest.raises(Stopped):
        severity.train(examples, tmp_path / "b", settings(), tell=stop)
    resumed = severity.train(examples, tmp_path / "b", settings(), tell=lambda line: None)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-6)
    with pytest.raises(OtherExperiment, match="rate"):
        severity.train(examples, tmp_path / "b", settings(rate=1.0))


def test_a_missing_grade_is_refused(tmp_path: Path) -> None:
    examples = graded(tmp_path, 2)
    with pytest.raises(DataRefusedError, match="0 severe"):
        severity.train(examples, tmp_path / "run", settings(batch=2))


def test_a_backbone_that_takes_one_size_alone_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    network = Network(backbone="vit_tiny_patch16_224", weights="none")
    with pytest.raises(ConfigError, match=r"network\.backbone: 'vit_tiny_patch16_224' cannot be used: .*224"):
        severity.train(graded(tmp_path, 12), tmp_path / "run", settings(network=network))
    assert not (tmp_path / "run").exists()


def test_rates_out_of_range_are_refused() -> None:
    for override in ("rate=0", "rate=1e9", "backbone_rate=-1e-4", "weight_decay=-0.1"):
        with pytest.raises(ConfigError, match=override.partition("=")[0]):
            load(None, [override], severity.Settings)


def test_frozen_stages_and_statistics_stay_while_a_batch_passes() -> None:
    network = Grader(Network(backbone="mobilenetv3_small_050", weights="none", frozen_stages=2)).train()
    norms = [module for module in network.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    trained = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert "head.1.weight" in trained
    assert any(name.startswith("backbone.blocks.2.") for name in trained)
    assert not any(name.startswith(("backbone.conv_stem", "backbone.blocks.1.")) for name in trained)
