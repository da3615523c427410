"""Torch modules to ONNX files: fixed height and width, dynamic batch, checked against torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

OPSET = 17
PARITY = 0.9999
"""The least cosine between an output of ONNX Runtime and of torch that an export may have."""


def to_onnx(model: nn.Module, example: Tensor, outputs: list[str], path: Path) -> float:
    """Writes `model` to `path`, with one input `image` and the named outputs.

    Args:
        model: In any mode; exported in eval mode, in float32.
        example: float32 (1, C, H, W): C, H and W become fixed, the batch stays dynamic.
        outputs: Names, in the order in which `model` returns them.
        path: The ONNX file.

    Returns:
        The least cosine between torch and ONNX Runtime over all outputs, at batch sizes 1 and 3.

    Raises:
        ValueError: That cosine is below `PARITY`.
    """
    model = model.float().eval().to(memory_format=torch.contiguous_format)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # XFeat's and OSNet-AIN's instance norms keep no statistics: they are the same in training and in use.
        warnings.filterwarnings(
            "ignore", "ONNX export mode is set to TrainingMode.EVAL, but operator 'instance_norm'"
        )
        torch.onnx.export(
            model,
            (example,),
            str(path),
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ["image", *outputs]},
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(str(path))
    cosine = float(np.min([parity(model, path, tuple(example.shape[1:]), batch) for batch in (1, 3)]))
    if not cosine >= PARITY:  # what is no number, of weights that are none, does not do either
        raise ValueError(f"{path.name}: ONNX Runtime differs from torch, cosine {cosine:.6f} < {PARITY}")
    return cosine


def parity(model: nn.Module, path: Path, shape: tuple[int, ...], batch: int) -> float:
    """The least cosine, over outputs and images, between `model` and the ONNX file at `path` on noise."""
    images = np.random.default_rng(batch).random((batch, *shape), dtype=np.float32)
    with torch.inference_mode():
        ours = model(torch.from_numpy(images))
    ours = ours if isinstance(ours, tuple) else (ours,)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"image": images})
    return float(np.min([_cosine(a.numpy(), np.asarray(b)) for a, b in zip(ours, theirs, strict=True)]))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())
