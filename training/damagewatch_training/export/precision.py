"""One ONNX model in other precisions. Inputs and outputs stay float32, so the service takes any of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]
from onnxruntime.transformers.float16 import convert_float_to_float16  # type: ignore[import-untyped]
from onnxruntime.transformers.onnx_model import OnnxModel  # type: ignore[import-untyped]

FLOAT_CONVOLUTIONS = 6
"""So many convolutions next to the input stay float: on car photos pooled features then found the same nearest
neighbour in 92% instead of 82%, and nothing was slower."""

_QUANTISED = ["Conv", "Add", "Mul", "Concat", "Resize", "MaxPool", "Relu", "Clip"]


def half(source: Path, target: Path) -> None:
    """Weights and sums in float16: half the size; fast on a GPU, no faster on most CPUs."""
    model = OnnxModel(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True))
    model.topological_sort()  # the converter puts its casts last
    onnx.checker.check_model(model.model)
    onnx.save(model.model, str(target))


def integer(
    source: Path, target: Path, images: Iterable[NDArray[np.float32]], float_outputs: int = 1
) -> None:
    """Static int8 with QDQ nodes: unsigned activations, signed weights for each channel.

    Signed activations would run no faster than float on x86, where the fast kernels take unsigned ones.
    Ranges are the 99.99th percentile of what the images give. Pooling, normalising and whatever else turns maps
    into vectors stays float: there int8 does the harm.

    Args:
        source: fp32.
        target: where int8 goes.
        images: float32 (1, C, H, W) each, as the service gives them: 32 to 64 of the training data.
        float_outputs: so many convolutions before each output stay float.
    """
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        # Preparing keeps the names of convolutions, not their order; what reckons with shapes it simplifies.
        kept = _ends(onnx.load(str(source)).graph, float_outputs) | _shapes(onnx.load(str(prepared)).graph)
        logging.getLogger().setLevel(logging.ERROR)  # the quantiser gives its advice to the root logger
        with redirect_stdout(StringIO()):  # and tells of its histograms
            quantize_static(
                str(prepared),
                str(target),
                _Images(images),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=_QUANTISED,
                nodes_to_exclude=sorted(kept),
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": 99.99, "CalibMaxIntermediateOutputs": 4},
            )
    onnx.checker.check_model(str(target))


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Iterable[NDArray[np.float32]]) -> None:
        self._images: Iterator[NDArray[np.float32]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def _ends(graph: onnx.GraphProto, float_outputs: int) -> set[str]:
    """The nodes that stay float: the first convolutions, and what follows the last ones before each output."""
    kept = {node.name for node in [n for n in graph.node if n.op_type == "Conv"][:FLOAT_CONVOLUTIONS]}
    maker = {output: node for node in graph.node for output in node.output}
    for output in graph.output:
        waiting = [(output.name, float_outputs)]
        while waiting:
            name, left = waiting.pop()
            node = maker.get(name)
            if node is None or node.name in kept:
                continue
            if node.op_type == "Conv":
                if left == 0:
                    continue
                left -= 1
            kept.add(node.name)
            waiting += [(name, left) for name in node.input]
    return kept


def _shapes(graph: onnx.GraphProto) -> set[str]:
    """The nodes that only reckon with shapes, such as how far an image is padded: they must stay exact."""
    maker = {output: node for node in graph.node for output in node.output}
    waiting = [
        name
        for node in graph.node
        if node.op_type in {"Pad", "Resize", "Reshape", "Slice", "Expand", "ConstantOfShape"}
        for name in node.input[0 if node.op_type == "ConstantOfShape" else 1 :]
    ]
    found: set[str] = set()
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in found and node.op_type != "Shape":
            found.add(node.name)
            waiting += node.input
    return found
