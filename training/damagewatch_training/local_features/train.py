"""Fine-tunes XFeat (Potje et al., CVPR 2024) on rephotographs, whose correspondences are exact.

The descriptors of one place in both photographs are drawn together and away from all others of the photo (the
paper's dual softmax), and the reliability learns where that worked. The key-point head sees the raw pixels and
stays as it is. The result is used only where it finds more points again on photos that were not trained on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision.engine import Engine
from damagewatch.vision.features import OUTPUTS, FeatureExtractor
from damagewatch.vision.manifest import LocalFeaturesModel, ModelInput
from damagewatch_training.data.sources import Photo
from damagewatch_training.experiment import checkpoint, record
from damagewatch_training.experiment.schedule import Rate, set_rates
from damagewatch_training.export import local_features
from damagewatch_training.export.subjects import agreement

CHECKPOINT = local_features.CHECKPOINT
CELL = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """How XFeat is fine-tuned. `size`: of the square cut out of a photo; `points`: how many of it are compared."""

    steps: Annotated[int, Field(ge=1)] = 400
    batch: Annotated[int, Field(ge=1)] = 4
    size: Annotated[int, Field(ge=64, le=1024, multiple_of=32)] = 320
    points: Annotated[int, Field(ge=16)] = 512
    temperature: Annotated[float, Field(gt=0)] = 0.05
    reliability_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    rate: Rate = 1e-4
    checkpoint_every: Annotated[int, Field(ge=1)] = 50
    seed: int = 1


def dual_softmax(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The paper's loss of matched descriptors, and how sure each match is.

    Args:
        first: float (P, D), unit length.
        second: float (P, D), row i of it shows what row i of `first` does.
        temperature: of both softmaxes.

    Returns:
        The loss, and for each of the P points the probability of its match in both directions, 0 to 1.
    """
    alike = first @ second.T / temperature
    forward, backward = alike.log_softmax(1).diagonal(), alike.log_softmax(0).diagonal()
    return -(forward + backward).mean(), (forward + backward).detach().exp()


def loss_of(
    network: local_features.LocalFeatures,
    pair: tuple[Tensor, Tensor],
    homographies: NDArray[np.float64],
    settings: Settings,
) -> Tensor:
    """Of a batch of pairs, float (N, 1, S, S) each, and the (N, 3, 3) from the first's pixels to the second's."""
    first, _, reliable = network(pair[0])
    second = network(pair[1])[0]
    side, cells = pair[0].shape[-1], first.shape[-1]
    grid = (np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2) + 0.5) * CELL
    total = first.new_zeros(())
    for n, homography in enumerate(homographies):
        there = cv2.perspectiveTransform(grid[None].astype(np.float64), homography)[0]
        inside = np.flatnonzero(((there > CELL) & (there < side - CELL)).all(1))
        if len(inside) < 2:
            continue
        chosen = inside[np.linspace(0, len(inside) - 1, min(settings.points, len(inside))).astype(int)]
        ours = functional.normalize(first[n].flatten(1).T[torch.from_numpy(chosen)], dim=1)
        at = torch.from_numpy(there[chosen] / side * 2 - 1).to(first)
        sampled = functional.grid_sample(second[n : n + 1], at[None, None], align_corners=False)[0, :, 0].T
        matched, sure = dual_softmax(ours, functional.normalize(sampled, dim=1), settings.temperature)
        said = reliable[n, 0].flatten()[torch.from_numpy(chosen)]
        total = total + matched + settings.reliability_weight * (said - sure).abs().mean()
    return total / len(homographies)


def train(
    photos: Sequence[Photo],
    held_out: Sequence[Photo],
    folder: Path,
    settings: Settings,
    data_sha256: str = "",
    tell: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Fine-tunes, with checkpoints in `folder`, and goes on from there.

    Args:
        photos: what is photographed again.
        held_out: photos that tell whether it helped.
        folder: of checkpoints and run.json, which says whether the result is `better`.
        settings: how.
        data_sha256: of the data, for run.json.
        tell: takes a line now and then.

    Returns:
        The figures on `held_out` of the `published` weights and of the `tuned` ones: see `export.subjects.agreement`.

    Raises:
        OtherExperiment: `folder` holds a training with other settings or on other data.
    """
    record.check(folder, settings, data_sha256, ("steps", "checkpoint_every"))
    torch.manual_seed(settings.seed)
    network = local_features.LocalFeatures()
    network.keypoint_head.requires_grad_(False)
    network.eval()  # batch statistics stay those of the paper's data
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], weight_decay=0.0)
    first = 0
    if saved := checkpoint.load(folder / CHECKPOINT):
        network.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["steps"])
    else:
        record.write(folder, settings, data_sha256, photos=len(photos), held_out=len(held_out))
    started, total = time.monotonic(), 0.0
    for step in range(first, settings.steps):
        set_rates(optimiser, [settings.rate], step / settings.steps)
        rng = np.random.default_rng([settings.seed, step])
        chosen = [photos[i] for i in rng.integers(0, len(photos), settings.batch)]
        before, after, homographies = zip(
            *(_pair(photo, settings.size, rng) for photo in chosen), strict=True
        )
        pair = torch.from_numpy(np.stack(before)), torch.from_numpy(np.stack(after))
        loss = loss_of(network, pair, np.stack(homographies), settings)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += float(loss.detach())
        done = step + 1
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            state = {"model": network.state_dict(), "optimiser": optimiser.state_dict(), "steps": done}
            checkpoint.save(folder / CHECKPOINT, state)
            count = done - first if done - first < settings.checkpoint_every else settings.checkpoint_every
            tell(
                f"step {done} of {settings.steps}: loss {total / count:.4f}, {time.monotonic() - started:.0f} s"
            )
            total = 0.0
    figures = {
        "published": _figures(local_features.LocalFeatures(), held_out),
        "tuned": _figures(network, held_out),
    }
    better = all(figures["tuned"][key] >= figures["published"][key] for key in figures["tuned"])
    record.add(folder, figures=figures, better=better)
    return figures


def _pair(
    photo: Photo, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """A square of a photo and of a rephotograph of it, grey (1, S, S), and the homography between them."""
    image = photo.read()
    scale = max(size / min(image.shape[:2]), rng.uniform(0.6, 1.0))
    image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    y, x = (int(rng.integers(0, length - size + 1)) for length in image.shape[:2])
    part = np.ascontiguousarray(image[y : y + size, x : x + size])
    again = rephotograph(part, rng, strength=rng.uniform(0.5, 1.3))
    return _grey(part), _grey(again.image), again.homography


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.float32)[None] / np.float32(255)


def _figures(network: local_features.LocalFeatures, photos: Sequence[Photo]) -> dict[str, float]:
    """Through the service's own code."""
    size = local_features.SIZE
    entry = LocalFeaturesModel(name="x", file="x", sha256="0" * 64, input=ModelInput(size=size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "xfeat.onnx"
        local_features.export(path, network)
        return agreement(FeatureExtractor(Engine(path.read_bytes(), (1, size, size), OUTPUTS), entry), photos)
