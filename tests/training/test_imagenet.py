"""What networks start from: carried or downloaded weights, their colours, and clear refusals.

Skipped without torch.
"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
timm = pytest.importorskip("timm", reason="the extra `train` is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the extra `train` is not installed")
constants = pytest.importorskip("huggingface_hub.constants", reason="the extra `train` is not installed")

from damagewatch_training.detector import network as detector  # noqa: E402
from damagewatch_training.embedder import network as embedder  # noqa: E402
from damagewatch_training.experiment.config import ConfigError  # noqa: E402
from damagewatch_training.experiment.imagenet import MEAN, STD, Colours, Weights  # noqa: E402
from damagewatch_training.severity import network as severity  # noqa: E402

CARRIED = "tf_efficientnet_lite0"


def embed(name: str, weights: Weights = "imagenet") -> embedder.Embedder:
    return embedder.Embedder(embedder.Network(name, dimension=16, weights=weights))


def detect(name: str, weights: Weights = "imagenet") -> detector.Detector:
    return detector.Detector(detector.Network(encoder=name, weights=weights))


def grade(name: str, weights: Weights = "imagenet") -> severity.Grader:
    return severity.Grader(severity.Network(name, weights=weights))


ALL = pytest.mark.parametrize("make", [embed, detect, grade])


def normalised(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def test_colours_are_as_the_published_weights_want_them() -> None:
    images = torch.rand(2, 3, 4, 5)
    wanted = timm.get_pretrained_cfg("resnet18")
    assert torch.allclose(
        Colours("resnet18")(normalised(images, MEAN, STD)),
        normalised(images, wanted.mean, wanted.std),
        atol=1e-5,
    )
    assert Colours(CARRIED)(images) is images


@ALL
def test_networks_change_the_colours_before_the_backbone_sees_them(make) -> None:  # type: ignore[no-untyped-def]
    network = make("resnet18", "none").eval()
    images = torch.rand(1, 3, 64, 64)
    seen: list[torch.Tensor] = []
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(images)
    assert torch.equal(seen[0], Colours("resnet18")(images))


@ALL
def test_networks_start_from_the_weights_that_a_package_carries(make) -> None:  # type: ignore[no-untyped-def]
    first = [
        next(
            module for module in make(CARRIED, weights).modules() if isinstance(module, torch.nn.Conv2d)
        ).weight
        for weights in ("imagenet", "imagenet", "none")
    ]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


@ALL
def test_weights_that_cannot_be_downloaded_are_told_with_the_way_out(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^network\.\w+: the ImageNet weights of 'resnet18'.*weights=none"):
        make("resnet18")


@ALL
@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_a_network_that_timm_does_not_know_is_refused_by_name(make, weights: Weights) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"'no_such_net'.*timm\.list_models"):
        make("no_such_net", weights)


@ALL
def test_a_network_that_nobody_published_weights_of_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"^network\.\w+: .*resnet50_mlp.*weights=none"):
        make("resnet50_mlp")
