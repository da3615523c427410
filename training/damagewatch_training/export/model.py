"""What is exported: a network with what its files are calibrated and judged on; and the exporting itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from damagewatch_training.export import comparison, precision
from damagewatch_training.export.onnx import to_onnx

FIGURES = "export.json"

Tensor = NDArray[np.float32]
Quality = Callable[[Path], dict[str, float]]
"""Measures an ONNX file on photos that were not trained on."""


@dataclass(frozen=True, slots=True)
class Model:
    """One network, ready to be exported."""

    network: nn.Module
    shape: tuple[int, int, int]
    """Channels, height and width of the input."""
    outputs: list[str]
    calibration: Sequence[Tensor]
    """float32 (1, C, H, W) each: photos that were trained on, as the service gives them."""
    quality: Quality
    float_outputs: int = 1
    """Convolutions before each output that stay float in int8."""


def export(
    model: Model, folder: Path, precisions: Sequence[comparison.Precision]
) -> Iterator[comparison.Measured]:
    """Writes `folder`/{fp32,fp16,int8}.onnx and their figures to export.json.

    Yields:
        The figures of each precision when it is measured.

    Raises:
        ValueError: the fp32 file is not what torch computes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}
    to_onnx(model.network, torch.rand(1, *model.shape), model.outputs, files["fp32"])
    images = model.calibration[:8]
    with torch.inference_mode():
        answers = [model.network(torch.from_numpy(image)) for image in images]
    wanted = [
        [part.numpy() for part in (answer if isinstance(answer, tuple) else (answer,))] for answer in answers
    ]
    measured = []
    for name in precisions:
        if name == "fp16":
            precision.half(files["fp32"], files[name])
        elif name == "int8":
            precision.integer(files["fp32"], files[name], model.calibration, model.float_outputs)
        cosines = comparison.cosines(files[name], images, wanted)
        measured.append(
            comparison.Measured(
                precision=name,
                megabytes=round(files[name].stat().st_size / 1e6, 2),
                cosine=float(np.mean(cosines)),
                worst_cosine=min(cosines),
                quality=model.quality(files[name]),
                milliseconds={n: comparison.milliseconds(files[name], images[0], n) for n in (1, 2)},
            )
        )
        (folder / FIGURES).write_text(json.dumps([asdict(one) for one in measured], indent=2) + "\n")
        yield measured[-1]
