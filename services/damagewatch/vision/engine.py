"""One ONNX model, ready to run: an ONNX Runtime session that many threads may share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class Engine:
    """Runs a model of one float32 input `image` with a free batch axis.

    One thread a session and no spinning: with several sessions in a process ONNX Runtime's defaults more than
    double the time a photo takes. Photos are spread over threads outside instead.
    """

    def __init__(
        self,
        model: bytes,
        image_shape: tuple[int, int, int],
        outputs: Sequence[str],
        providers: Sequence[str] = (CPU,),
    ) -> None:
        """Loads and checks a model.

        Args:
            model: the bytes of the ONNX file.
            image_shape: channels, height and width that the input must take.
            outputs: names of the outputs that `run` returns, in this order.
            providers: execution providers by preference; those that are missing are left out with a warning.

        Raises:
            ValueError: the file is no ONNX model, or its input or outputs are others.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=available(providers))
        except Exception as error:  # ONNX Runtime raises a dozen types without a common base
            raise ValueError(f"not a model that ONNX Runtime can load: {error}") from None
        self._outputs = list(outputs)
        self._check(image_shape)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, by preference."""
        return tuple(self._session.get_providers())

    def run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs for a batch: float32 (N, channels, height, width) in, one array an output."""
        return list(self._session.run(self._outputs, {"image": images}))

    def _check(self, image_shape: tuple[int, int, int]) -> None:
        inputs = self._session.get_inputs()
        if [i.name for i in inputs] != ["image"] or inputs[0].type != "tensor(float)":
            raise ValueError(f"wants one float32 input 'image', the model has {[i.name for i in inputs]}")
        batch, *rest = inputs[0].shape
        if isinstance(batch, int) or len(rest) != 3:
            raise ValueError(f"wants an input with a free batch axis and three more, not {inputs[0].shape}")
        if any(isinstance(has, int) and has != wants for has, wants in zip(rest, image_shape, strict=True)):
            raise ValueError(f"wants an input of {image_shape}, the model takes {tuple(rest)}")
        missing = set(self._outputs) - {o.name for o in self._session.get_outputs()}
        if missing:
            raise ValueError(f"lacks the output {', '.join(sorted(missing))}")


def available(providers: Sequence[str]) -> list[str]:
    """Those of `providers` that this ONNX Runtime has, the CPU always last; one warning names the others."""
    if CUDA in providers and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA libraries that pip installed
    present = set(ort.get_available_providers())
    missing = ", ".join(name for name in providers if name not in present)
    if missing:
        _warn_once(missing)
    return [name for name in dict.fromkeys(providers) if name in present and name != CPU] + [CPU]


@cache
def _warn_once(missing: str) -> None:
    """One line a process, however many models are loaded."""
    log.warning("ONNX Runtime lacks %s here; falling back to the CPU", missing)
