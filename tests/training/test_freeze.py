"""Which part of an encoder is frozen, and which encoders are refused. Skipped without torch."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
timm = pytest.importorskip("timm", reason="the extra `train` is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the extra `train` is not installed")

from damagewatch_training.detector import network as detector  # noqa: E402
from damagewatch_training.experiment.config import ConfigError  # noqa: E402
from damagewatch_training.experiment.freeze import freeze  # noqa: E402
from damagewatch_training.severity import network as severity  # noqa: E402


@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize(
    ("name", "last_frozen", "first_trained"),
    [
        ("mobilenetv3_small_050", "blocks.1.", "blocks.2."),
        ("resnet18", "layer2.", "layer3."),
        ("convnext_atto", "stages.1.", "stages.2."),
    ],
)
def test_the_stem_and_two_stages_are_frozen_and_nothing_else(
    name: str, last_frozen: str, first_trained: str, features_only: bool
) -> None:
    encoder = timm.create_model(name, features_only=features_only)
    freeze(encoder, 2, name)
    trained = [parameter.requires_grad for parameter in encoder.parameters()]
    assert trained == sorted(trained)
    by_name = {  # timm flattens some networks
        name.replace("stages_", "stages."): parameter.requires_grad
        for name, parameter in encoder.named_parameters()
    }
    assert [on for name, on in by_name.items() if name.startswith(last_frozen)][-1] is False
    assert next(on for name, on in by_name.items() if name.startswith(first_trained)) is True


def test_none_frozen_is_good_for_any_encoder() -> None:
    encoder = torch.nn.Sequential(torch.nn.Linear(2, 2))
    freeze(encoder, 0, "one_layer")
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_an_encoder_without_stages_is_refused_and_left_alone() -> None:
    encoder = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"network\.frozen_stages: 1 is too many, one_layer has 0"):
        freeze(encoder, 1, "one_layer")
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_both_networks_refuse_more_stages_than_there_are() -> None:
    name = "mobilenetv3_small_050"
    with pytest.raises(ConfigError, match=rf"network\.frozen_stages: 9 is too many, {name} has 6"):
        severity.Grader(severity.Network(name, weights="none", frozen_stages=9))
    with pytest.raises(ConfigError, match=rf"network\.frozen_stages: 9 is too many, {name} has"):
        detector.Detector(detector.Network(encoder=name, weights="none", frozen_stages=9))


def test_frozen_stages_keep_their_statistics_where_the_others_learn_theirs() -> None:
    network = detector.Network(encoder="resnet18", weights="none", norm="batch", frozen_stages=1)
    model = detector.Detector(network).train()
    before = {name: buffer.clone() for name, buffer in model.encoder.named_buffers()}
    model(torch.rand(2, 3, 64, 64))
    moved = {name for name, buffer in model.encoder.named_buffers() if not torch.equal(before[name], buffer)}
    assert any("layer2" in name for name in moved)
    assert all(re.search("layer[234]", name) for name in moved)
