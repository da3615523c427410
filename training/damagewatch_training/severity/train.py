"""Trains the network that grades whole photos; goes on from the last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Subset

from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.data.sources import SEVERITIES
from damagewatch_training.detector.examples import Examples
from damagewatch_training.embedder.augment import Augment
from damagewatch_training.experiment import checkpoint, config, imagenet, launch, record
from damagewatch_training.experiment.schedule import Rate, set_rates
from damagewatch_training.severity.network import Grader, Network

CHECKPOINT = "checkpoint.pt"

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, slots=True)
class Settings:
    """How the grades are learned. Photos are stretched to squares of `size`, as the service does."""

    network: Network = field(default_factory=Network)
    augment: Augment = field(default_factory=Augment)
    size: Annotated[int, Field(ge=64, le=1024, multiple_of=32)] = 192
    epochs: Positive = 12
    batch: Positive = 16
    mixup: Annotated[float, Field(ge=0)] = 0.2
    """Of Zhang et al., ICLR 2018: two photos are blended, their shares are of Beta(mixup, mixup); 0: none are."""
    smoothing: Share = 0.1
    """Of the labels: neighbouring grades are hard to tell apart, and people differ."""
    rate: Rate = 1e-3
    backbone_rate: Rate = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    average: Share = 0.99
    """Of the running mean of the weights, which is what comes out."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare photos; 0: the training itself does."""
    precision: launch.Precision = "32-true"
    seed: int = 1


MAY_DIFFER = ("epochs", "workers")
"""Settings that a training may go on with changed."""


class Photos(Dataset[tuple[Tensor, int]]):
    """uint8 (3, S, S) RGB and the grade; changed anew in each epoch."""

    def __init__(self, examples: Examples, settings: Settings, epoch: int) -> None:
        self.photos = examples.graded
        self.grades = [examples.severity[photo.name] for photo in examples.graded]
        self.settings = settings
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        rng = np.random.default_rng([self.settings.seed, self.epoch, index])
        image = np.ascontiguousarray(self.photos[index].read()[..., ::-1])
        view = self.settings.augment(image, self.settings.size, rng)
        return torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1))), self.grades[index]


def train(
    examples: Examples,
    folder: Path,
    settings: Settings,
    data_sha256: str = "",
    tell: Callable[[str], None] = print,
) -> Grader:
    """Trains, with a checkpoint in `folder` after each epoch; goes on from there.

    Args:
        examples: its graded photos are learned from.
        folder: of the checkpoint and of run.json.
        settings: how.
        data_sha256: of the data, for run.json.
        tell: takes a line after each epoch.

    Returns:
        The network with the averaged weights.

    Raises:
        OtherExperiment: `folder` holds a training with other settings or on other data.
        DataRefusedError: a grade is missing, or there are fewer photos than in one batch of all processes.
        ConfigError: the backbone does not take photos of `size`.
    """
    record.check(folder, settings, data_sha256, MAY_DIFFER)
    counts = np.bincount([examples.severity[p.name] for p in examples.graded], minlength=len(SEVERITIES))
    torch.manual_seed(settings.seed)
    fabric = launch.fabric(settings.precision)
    batch = settings.batch * fabric.world_size
    steps = int(counts.sum()) // batch
    if not counts.all() or not steps:
        told = ", ".join(f"{count} {name}" for name, count in zip(SEVERITIES, counts, strict=True))
        raise DataRefusedError(f"graded photos: {told}; wanted are some of each, {batch} at least")
    network = Grader(settings.network).to(memory_format=torch.channels_last)
    with imagenet.making(settings.network.backbone, "network.backbone"), torch.inference_mode():
        network.eval()(torch.zeros(1, 3, settings.size, settings.size))
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True)
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in network.backbone.parameters() if p.requires_grad]},
            {"params": list(network.head.parameters())},
        ],
        weight_decay=settings.weight_decay,
    )
    # First of all, so that the optimiser's state is loaded to where the weights are.
    model, optimiser = fabric.setup(network, optimiser)
    averaged.to(fabric.device)
    done = 0
    if saved := checkpoint.load(folder / CHECKPOINT):
        network.load_state_dict(saved["model"])
        averaged.load_state_dict(saved["averaged"])
        optimiser.load_state_dict(saved["optimiser"])
        done = int(saved["epochs"])
    elif fabric.is_global_zero:
        photos = dict(zip(SEVERITIES, counts.tolist(), strict=True))
        record.write(folder, settings, data_sha256, photos=photos, processes=fabric.world_size)
    weights = torch.from_numpy(counts.sum() / (len(counts) * counts)).float().to(fabric.device)
    for epoch in range(done, settings.epochs):
        started = time.monotonic()
        launch.seed(settings.seed, epoch, fabric.global_rank)
        rng = np.random.default_rng([settings.seed, epoch, fabric.global_rank])
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(examples.graded))
        mine = order[: steps * batch][fabric.global_rank :: fabric.world_size]
        loader = fabric.setup_dataloaders(
            DataLoader(
                Subset(Photos(examples, settings, epoch), mine.tolist()),
                settings.batch,
                num_workers=settings.workers,
            ),
            use_distributed_sampler=False,
        )
        model.train()
        total = 0.0
        for step, (images, grades) in enumerate(loader):
            progress = (epoch + step / len(loader)) / settings.epochs
            set_rates(optimiser, [settings.backbone_rate, settings.rate], progress)
            loss = _loss(model, images.float() / 127.5 - 1, grades, weights, settings, rng)
            optimiser.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(model, optimiser, max_norm=5.0)
            optimiser.step()
            averaged.update_parameters(network)
            total += float(loss.detach())
        if fabric.is_global_zero:
            state = {
                "settings": config.resolved(settings),
                "model": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(),
                "epochs": epoch + 1,
            }
            checkpoint.save(folder / CHECKPOINT, state)
            tell(
                f"epoch {epoch + 1} of {settings.epochs}: loss {total / len(loader):.4f},"
                f" {time.monotonic() - started:.0f} s"
            )
    fabric.barrier()
    return trained(folder)


def _loss(
    model: nn.Module,
    images: Tensor,
    grades: Tensor,
    weights: Tensor,
    settings: Settings,
    rng: np.random.Generator,
) -> Tensor:
    """Cross entropy of a batch, float (N, 3, S, S) and int (N,), each photo blended with another one."""
    share = float(rng.beta(settings.mixup, settings.mixup)) if settings.mixup else 1.0
    others = torch.flip(torch.arange(len(images), device=images.device), (0,))
    images = share * images + (1 - share) * images[others]
    logits = model(images.contiguous(memory_format=torch.channels_last)).float()

    def entropy(wanted: Tensor) -> Tensor:
        return functional.cross_entropy(logits, wanted, weights, label_smoothing=settings.smoothing)

    return share * entropy(grades) + (1 - share) * entropy(grades[others])


def settings_of(folder: Path) -> Settings:
    """The settings of the training in `folder`.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    return config.of(checkpoint.require(folder / CHECKPOINT)["settings"], Settings)


def trained(folder: Path) -> Grader:
    """The network of the last checkpoint in `folder`, its weights averaged, in eval mode on the CPU.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    saved = checkpoint.require(folder / CHECKPOINT)
    network = Grader(replace(config.of(saved["settings"], Settings).network, weights="none"))
    averaged = AveragedModel(network, use_buffers=True)
    averaged.load_state_dict(saved["averaged"])
    network.load_state_dict(averaged.module.state_dict())
    network.eval()
    return network
