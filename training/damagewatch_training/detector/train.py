"""Trains the detector.

Few photos are labelled, so the encoder keeps its ImageNet batch statistics, the photos are changed a lot, damages
are cut out and put elsewhere, and photos of which less is known help: outlines of damaged parts say where damage
is somewhere, a grade says how bad the car looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.data.sources import Photo
from damagewatch_training.detector import grade, losses, pictures
from damagewatch_training.detector.examples import Examples, Photos, label_map, letterbox
from damagewatch_training.detector.losses import LossName
from damagewatch_training.detector.network import Detector, Network
from damagewatch_training.evaluate.metrics import dice
from damagewatch_training.experiment import checkpoint, config, launch, record
from damagewatch_training.experiment.schedule import Rate, set_rates

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 240.0
"""Between checkpoints within an epoch."""

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Scale = Annotated[float, Field(ge=0.1, le=10)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Settings:
    """How the detector is trained. `size` is the side that it is run at, `crop` what it is trained on."""

    network: Network = field(default_factory=Network)
    losses: tuple[LossName, ...] = ("dice", "bce")
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=32)] = 512
    crop: Annotated[int, Field(ge=64, le=2048, multiple_of=32)] = 320
    epochs: Positive = 24
    batch: Positive = 8
    scales: tuple[Scale, Scale] = (0.6, 1.6)
    """Least and most of what `size` is multiplied by for a crop."""
    undamaged: Count = 0
    """Parts of photos without a labelled damage in a batch, seen as photos: what is no damage."""
    taught: Count = 0
    """Photos of a batch of which only teachers told the damages: see `teach`."""
    coarse: Count = 2
    """Photos of a batch of which damaged parts are known."""
    graded: Count = 0
    """Photos of a batch of which the severity is known. With or without, the photo's head is fitted to them last."""
    coarse_weight: Weight = 0.2
    graded_weight: Weight = 0.3
    spliced: Share = 0.4
    """Share of the photos that get damages of others."""
    held_out: Share = 0.1
    """Share of the outlined photos that is not trained on: they tell when to stop, and where the thresholds lie."""
    patience: Count = 8
    """Stops after so many epochs whose Dice on the photos held out is below the best; 0: never."""
    pictures_every: Count = 4
    """Draws what is found on fixed photos each so many epochs; 0: never."""
    rate: Rate = 2e-3
    encoder_rate: Rate = 3e-4
    average: Share = 0.99
    workers: Count = 1
    """Processes that prepare each kind of photos."""
    precision: launch.Precision = "auto"
    seed: int = 1


MAY_DIFFER = ("epochs", "patience", "pictures_every", "workers")
"""Settings that a training may go on with changed."""


def loss_of(
    pixels: Tensor, photo: Tensor, labels: Tensor, severities: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss of the outlined and undamaged, taught, coarse and graded photos of a batch, in this order.

    Args:
        pixels: float (N, 7, h, w), logits.
        photo: float (N, 3), logits.
        labels: uint8 (N, 3, k h, k w), as `examples.label_map` makes them.
        severities: int64 (N,), of the graded photos.
        settings: how many there are of each.
    """
    labelled = settings.batch + settings.undamaged
    taught = labelled + settings.taught
    coarse = taught + settings.coarse
    nothing = 0 * photo.sum()  # several processes want to hear of each parameter
    return (
        losses.damage(pixels[:labelled], labels[:labelled], settings.losses),
        losses.damage(pixels[labelled:taught], labels[labelled:taught], settings.losses)
        if settings.taught
        else nothing,
        losses.somewhere(pixels[taught:coarse, :1], labels[taught:coarse, 0]) if settings.coarse else nothing,
        functional.cross_entropy(photo[coarse:], severities[coarse:]) if settings.graded else nothing,
    )


def train(
    examples: Examples,
    folder: Path,
    settings: Settings,
    data_sha256: str = "",
    start: Detector | None = None,
    tell: Callable[[str], None] = print,
) -> Detector:
    """Trains, with a checkpoint in `folder` after each epoch and every few minutes; goes on from there.

    Args:
        examples: what is learned from.
        folder: of the checkpoints, of run.json and of the pictures.
        settings: how.
        data_sha256: of the data, for run.json.
        start: another network, whose weights this one starts from.
        tell: takes a line after each epoch.

    Returns:
        The network with the averaged weights, of the best epoch on the photos held out where there are such.

    Raises:
        OtherExperiment: `folder` holds a training with other settings or on other data.
        DataRefusedError: there are fewer photos than in one batch.
    """
    examples, held_out = examples.split(settings.held_out)
    settings = replace(
        settings,
        taught=settings.taught if examples.taught else 0,
        coarse=settings.coarse if examples.coarse else 0,
        graded=settings.graded if examples.graded else 0,
    )
    record.check(folder, settings, data_sha256, MAY_DIFFER)
    torch.manual_seed(settings.seed)
    fabric = launch.fabric(settings.precision)
    if not _steps(fabric, examples, settings):
        raise DataRefusedError(f"{len(examples.outlined)} outlined photos to train on: less than one batch")
    state = _State(settings)
    # First of all, so that the optimiser's state is loaded to where the weights are.
    model, optimiser = fabric.setup(state.model, state.optimiser)
    state.averaged.to(fabric.device)
    if saved := checkpoint.load(folder / CHECKPOINT):
        state.load(saved)
    elif start is not None:
        state.begin_with(start)
    if not saved and fabric.is_global_zero:
        record.write(
            folder,
            settings,
            data_sha256,
            photos=len(examples.outlined),
            held_out=len(held_out),
            processes=fabric.world_size,
            device=fabric.device.type,
        )
    while state.epoch < settings.epochs and not state.tired:
        started = time.monotonic()
        _epoch(fabric, model, optimiser, state, examples, folder / CHECKPOINT)
        totals = state.totals / state.step
        state.epoch, state.step, state.totals = state.epoch + 1, 0, torch.zeros(4)
        shown = ", ".join(f"{value:.3f}" for value in totals.tolist())
        line = f"epoch {state.epoch} of {settings.epochs}: losses {shown}"
        if held_out:
            state.judge(pixel_dice(state.averaged.module, held_out, settings.size))
            line += f", Dice {state.dice[-1]:.4f} on {len(held_out)} photos held out"
        if not fabric.is_global_zero:
            continue
        checkpoint.save(folder / CHECKPOINT, state.saved())
        if settings.pictures_every and state.epoch % settings.pictures_every == 0:
            fixed = (held_out or examples.outlined)[:8]
            path = folder / "pictures" / f"epoch_{state.epoch:03}.jpg"
            pictures.write(path, state.averaged.module, fixed, settings.size)
        tell(f"{line}, {time.monotonic() - started:.0f} s")
    if fabric.is_global_zero:
        record.add(folder, epochs=state.epoch, dice_held_out=state.dice)
        _grade(folder, examples, settings)
    fabric.barrier()
    return trained(folder)


def _grade(folder: Path, examples: Examples, settings: Settings) -> None:
    """Fits the photo's head to the graded photos, and keeps it in the checkpoint."""
    grades = grade.of(examples.severity, examples.graded)
    if not grade.enough(grades):
        return
    model = trained(folder)
    grade.fit(model, grade.pooled(model, examples.graded, settings.size), grades)
    saved = checkpoint.require(folder / CHECKPOINT)
    checkpoint.save(folder / CHECKPOINT, saved | {"weights": model.state_dict()})


class _State:
    """All of a training that a checkpoint keeps."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = Detector(settings.network).to(memory_format=torch.channels_last)
        self.averaged = AveragedModel(
            self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True
        )
        encoder = [parameter for parameter in self.model.encoder.parameters() if parameter.requires_grad]
        theirs = {id(parameter) for parameter in self.model.encoder.parameters()}
        others = [parameter for parameter in self.model.parameters() if id(parameter) not in theirs]
        self.rates = [settings.encoder_rate, settings.rate]
        self.optimiser = torch.optim.AdamW([{"params": encoder}, {"params": others}], weight_decay=0.02)
        self.epoch = 0
        self.step = 0
        self.totals = torch.zeros(4)
        """Of each loss, over the steps of this epoch."""
        self.dice: list[float] = []
        self.best: dict[str, Tensor] = {}

    @property
    def tired(self) -> bool:
        """Whether the last epochs brought nothing."""
        patience = self.settings.patience
        return bool(patience and self.dice) and int(np.argmax(self.dice[::-1])) >= patience

    def judge(self, value: float) -> None:
        """Keeps the averaged weights where they are the best so far."""
        self.dice.append(value)
        if value >= max(self.dice):
            self.best = {name: tensor.clone() for name, tensor in self.averaged.module.state_dict().items()}

    def begin_with(self, other: Detector) -> None:
        """Starts from another detector's weights.

        Raises:
            ConfigError: it is another network.
        """
        try:
            self.model.load_state_dict(other.state_dict())
        except RuntimeError as error:
            raise config.ConfigError(
                f"--start holds another network than `network` describes: {error}"
            ) from None
        self.averaged.module.load_state_dict(other.state_dict())

    def saved(self) -> dict[str, Any]:
        """What `load` takes."""
        return {
            "settings": config.resolved(self.settings),
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epochs": self.epoch,
            "steps": self.step,
            "totals": self.totals,
            "dice": self.dice,
            "weights": self.best or self.averaged.module.state_dict(),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Goes on where a training was stopped."""
        self.model.load_state_dict(saved["model"])
        self.averaged.load_state_dict(saved["averaged"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.epoch, self.step = int(saved["epochs"]), int(saved["steps"])
        self.totals, self.dice = saved["totals"], list(saved["dice"])
        self.best = saved["weights"] if self.dice else {}


def _epoch(
    fabric: Fabric,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: _State,
    examples: Examples,
    path: Path,
) -> None:
    """One pass over the outlined photos, or what is left of it; leaves checkpoints at `path` on the way."""
    settings = state.settings
    steps = _steps(fabric, examples, settings)
    loaders = _loaders(fabric, examples, settings, state.epoch, state.step)
    saved = time.monotonic()
    weights = (1.0, 1.0, settings.coarse_weight, settings.graded_weight)
    model.train()
    state.model.train()  # keeps frozen statistics, whatever wraps it
    for batches in zip(*loaders, strict=True):
        set_rates(optimiser, state.rates, (state.epoch + state.step / steps) / settings.epochs)
        images, labels, severities = (
            torch.cat(part).to(fabric.device) for part in zip(*batches, strict=True)
        )
        launch.seed(settings.seed, state.epoch, state.step, fabric.global_rank)  # of dropout
        inputs = (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        pixels, photo = model(inputs)
        terms = loss_of(pixels.float(), photo.float(), labels, severities, settings)
        loss = torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum()
        optimiser.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimiser, max_norm=5.0)
        optimiser.step()
        state.averaged.update_parameters(state.model)
        state.totals += torch.stack(terms).detach().cpu()
        state.step += 1
        if time.monotonic() - saved > CHECKPOINT_SECONDS and fabric.is_global_zero:
            checkpoint.save(path, state.saved())
            saved = time.monotonic()


def _steps(fabric: Fabric, examples: Examples, settings: Settings) -> int:
    return len(examples.outlined) // (settings.batch * int(fabric.world_size))


def _loaders(
    fabric: Fabric, examples: Examples, settings: Settings, epoch: int, done: int
) -> list[DataLoader[tuple[Tensor, Tensor, int]]]:
    """One loader for each kind of photo in the batches, equally long; the outlined ones make the epoch.

    Each process takes its own share of the photos. The first `done` batches are left out: they were trained on before
    the training was stopped.
    """
    steps = _steps(fabric, examples, settings)
    kinds = (
        (examples.outlined, settings.batch, False, settings.spliced, False),
        (examples.outlined, settings.undamaged, True, 0.0, True),
        (examples.taught, settings.taught, False, 0.0, False),
        (examples.coarse, settings.coarse, True, 0.0, False),
        (examples.graded, settings.graded, True, 0.0, False),
    )
    loaders = []
    for number, (photos, count, whole, spliced, undamaged) in enumerate(kinds):
        if count == 0:
            continue
        chance = torch.Generator().manual_seed(settings.seed * 1000 + 100 * number + epoch)
        wanted = steps * count * fabric.world_size
        rounds = -(-wanted // len(photos))
        order = torch.cat([torch.randperm(len(photos), generator=chance) for _ in range(rounds)])
        mine = order[:wanted][fabric.global_rank :: fabric.world_size]
        dataset = Photos(
            photos,
            examples.severity,
            examples.maps,
            settings.size,
            settings.crop,
            settings.scales,
            whole=whole,
            spliced=spliced,
            undamaged=undamaged,
            seed=(settings.seed, number, epoch),
        )
        loaders.append(
            DataLoader(
                dataset,
                count,
                sampler=mine[done * count :].tolist(),
                num_workers=settings.workers,
            )
        )
    return loaders


def pixel_dice(model: nn.Module, photos: list[Photo], size: int) -> float:
    """Dice over the pixels of all photos together at probability 0.5, each photo seen whole."""
    found, truth = [], []
    for photo in photos:
        image = photo.read()
        labelled = letterbox(label_map(photo, *image.shape[:2])[..., 0], size, 0)
        truth.append(labelled > 127)
        found.append(pictures.probability(model, image, size) >= 0.5)
    return dice(np.stack(found), np.stack(truth))


def settings_of(folder: Path) -> Settings:
    """The settings of the training in `folder`.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    return config.of(checkpoint.require(folder / CHECKPOINT)["settings"], Settings)


def trained(folder: Path) -> Detector:
    """The network of the last checkpoint in `folder`, with the weights to be used, in eval mode on the CPU.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    saved = checkpoint.require(folder / CHECKPOINT)
    model = Detector(replace(config.of(saved["settings"], Settings).network, weights="none"))
    model.load_state_dict(saved["weights"])
    model.eval()
    return model
