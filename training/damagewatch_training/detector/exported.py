"""The network of an exported detector, to learn from or to train on: models are shipped, checkpoints are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from damagewatch.vision.manifest import FILE, read_manifest
from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.detector import pictures
from damagewatch_training.detector.examples import Image
from damagewatch_training.detector.network import Detector, Network

SHOWN = 24
"""Photos are enough to tell the statistics of a norm."""
_LEAST_VARIANCE = 1e-4


def is_exported(folder: Path) -> bool:
    """Whether a folder holds models, not a training."""
    return (folder / FILE).exists()


def sha256(folder: Path) -> str:
    """Of the file that holds a folder's detector, as its manifest says.

    Raises:
        ModelRefusedError: There is no manifest that can be read.
    """
    return read_manifest(folder).detector.sha256


def detector(folder: Path, settings: Network, images: Sequence[Image]) -> Detector:
    """The detector of a folder of models as a network that answers alike, in eval mode.

    An export folds the batch norms into the convolutions. The decoder's are unfolded again by the statistics of
    `images`, so that the network also answers alike while it trains; the encoder's, which training leaves alone,
    become the identity.

    Args:
        folder: With its manifest.
        settings: What the network is made of; its norm is frozen, since an export holds no statistics.
        images: Photos, uint8 (H, W, 3) BGR.

    Raises:
        ModelRefusedError: There is no manifest that can be read.
        DataRefusedError: The file is of another network, or `settings` are.
    """
    if settings.norm != "frozen":
        raise DataRefusedError(
            f"{folder}: an exported detector goes with network.norm=frozen, not {settings.norm}"
        )
    entry = read_manifest(folder).detector
    path = folder / entry.file
    model = Detector(replace(settings, weights="none"))
    graph = onnx.load(str(path)).graph
    tensors = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer
    }
    given = [
        [tensors[name] for name in node.input if name in tensors]
        for node in graph.node
        if node.op_type in {"Conv", "Gemm", "LayerNormalization"}
    ]
    layers = list(_layers(model))
    given = [tensors for tensors in given if tensors]  # else other kinds of weights: too few layers
    if [tuple(layer.weight.shape) for layer, _ in layers] != [tuple(weight.shape) for weight, *_ in given]:
        raise DataRefusedError(
            f"{path}: not the detector that `network` describes: its layers have other shapes"
        )
    with torch.no_grad():
        for (layer, norm), (weight, *bias) in zip(layers, given, strict=True):
            layer.weight.copy_(weight)
            if norm is not None:
                _identity(norm)
            shift = layer.bias if norm is None else norm.bias
            if shift is not None:
                shift.copy_(bias[0] if bias else torch.zeros_like(shift))
    model.eval()
    _unfold(model, images, entry.input.size)
    return model


def _layers(model: Detector) -> Iterator[tuple[nn.Module, nn.BatchNorm2d | None]]:
    """The layers with weights in the order in which they are exported, each with the norm that was folded into it."""
    modules = [
        module
        for part in (model.pixels, model.photo)
        for module in part.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.LayerNorm | nn.Linear)
    ]
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if not isinstance(module, nn.BatchNorm2d):
            yield module, following if isinstance(following, nn.BatchNorm2d) else None


def _identity(norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)


def _unfold(model: Detector, images: Sequence[Image], size: int) -> None:
    """Gives the decoder's norms the statistics of what comes in, and weights that undo them."""
    norms = [module for module in model.pixels.decoder.modules() if isinstance(module, nn.BatchNorm2d)]  # type: ignore[union-attr]
    seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def listen(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[norm].append(inputs[0].transpose(0, 1).flatten(1))

    hooks = [norm.register_forward_pre_hook(listen) for norm in norms]
    for image in images:
        pictures.probability(model, image, size)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for norm, inputs in seen.items():
            values = torch.cat(inputs, 1)
            mean, variance = values.mean(1), values.var(1).clamp_min(_LEAST_VARIANCE)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.bias.add_(mean)
            norm.weight.copy_(torch.sqrt(variance + norm.eps))
