"""Trains the embedder: by a teacher, by views that show one damage, or by both.

No weights of OSNet install from a package index, so it starts from noise: a teacher's embeddings (SSCD, centred; see
`embedder.teacher`) bring it far within an hour, and views that belong together bring it on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from damagewatch_training.embedder import whitening
from damagewatch_training.embedder.augment import PLAIN, Augment
from damagewatch_training.embedder.examples import Examples
from damagewatch_training.embedder.losses import WITH_MEMORY, Metric, MetricLoss, distillation
from damagewatch_training.embedder.network import Embedder, Network
from damagewatch_training.evaluate.metrics import Retrieval, retrieval
from damagewatch_training.experiment import checkpoint, config, launch, record
from damagewatch_training.experiment.imagenet import MEAN, STD
from damagewatch_training.experiment.schedule import Rate, set_rates
from damagewatch_training.export.onnx import to_onnx

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 180.0
"""Between checkpoints within an epoch."""
FILE = "embedder.onnx"

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Side = Annotated[int, Field(ge=32, le=1024)]


@dataclass(frozen=True, slots=True)
class Teacher:
    """Distillation; `weight` 0 trains without a teacher."""

    weight: Weight = 1.0
    temperature: Annotated[float, Field(gt=0)] = 0.05
    relational: Weight = 5.0
    alike: float = 0.5
    """Windows of which the teacher's cosine is higher are not told apart."""


@dataclass(frozen=True, slots=True)
class Belonging:
    """The loss over views that show one damage; needs two views an identity."""

    name: MetricLoss = "supcon"
    weight: Weight = 0.5
    memory: Count = 0
    """Embeddings of earlier batches that are compared with, too."""


@dataclass(frozen=True, slots=True)
class Whiten:
    """What is fitted behind the network when it is trained."""

    name: Literal["none", "principal", "learned"] = "none"
    dimension: Positive = 256
    power: Annotated[float, Field(ge=0, le=1)] = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """How the embedder is trained.

    `sizes` says until which share of the training at how many pixels, the last being the size that it is used at:
    beginning small costs less.
    """

    network: Network = field(default_factory=Network)
    teacher: Teacher = field(default_factory=Teacher)
    metric: Belonging = field(default_factory=Belonging)
    whiten: Whiten = field(default_factory=Whiten)
    augment: Augment = field(default_factory=Augment)
    sizes: tuple[tuple[float, Side], ...] = ((0.46, 64), (1.0, 96))
    epochs: Positive = 12
    identities: Annotated[int, Field(ge=2)] = 32
    """Of a batch, all processes together."""
    views: Positive = 2
    """Of each identity in a batch."""
    rate: Rate = 1e-3
    weight_decay: Weight = 0.02
    average: Share = 0.998
    """Decay of a running mean of the weights. The mean is what is judged and kept: while the rate is high it is far
    better than the weights of one moment (Rank-1 0.957, when those were at 0.88). 0: the weights of the moment."""
    held_out: Share = 0.05
    """Share of the identities that is not trained on: they tell which epoch is the best, and when to stop."""
    patience: Count = 4
    """Stops after so many epochs whose mAP on the identities held out is below the best; 0: never."""
    precision: launch.Precision = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        shares = [share for share, _ in self.sizes]
        if not shares or shares != sorted(shares) or shares[0] <= 0 or shares[-1] != 1:
            raise ValueError("sizes: shares of the training must rise and end with 1.0")
        if self.whiten.name != "none" and self.whiten.dimension > self.network.dimension:
            raise ValueError("whiten.dimension cannot be more than network.dimension")
        if self.metric.memory and self.metric.name not in WITH_MEMORY:
            raise ValueError(f"metric.memory: {', '.join(WITH_MEMORY)} use one, not {self.metric.name}")
        if 0 < self.metric.memory < self.identities * self.views:
            raise ValueError(f"metric.memory: less than one batch, which is {self.identities * self.views}")

    @property
    def size(self) -> int:
        """Pixels of the window that the network is used at."""
        return self.sizes[-1][1]


MAY_DIFFER = ("epochs", "patience")
"""Settings that a training may go on with changed."""


def centred(teacher: NDArray[np.float32]) -> Tensor:
    """Teacher embeddings (I, D) without what all photos of cars share, of unit length."""
    embeddings = torch.from_numpy(np.array(teacher, np.float32))
    return functional.normalize(embeddings - embeddings.mean(0), dim=1)


class Learner(nn.Module):
    """The network with its losses: images and what they show to one number."""

    def __init__(self, settings: Settings, identities: int, teacher: Tensor | None) -> None:
        super().__init__()
        self.settings = settings
        self.embedder = Embedder(settings.network)
        dimension = settings.network.dimension
        self.register_buffer("teacher", teacher, persistent=False)
        self.metric = None
        if settings.metric.name != "none" and settings.metric.weight:
            self.metric = Metric(settings.metric.name, identities, dimension, settings.metric.memory)
        if settings.teacher.weight and teacher is None:
            raise config.ConfigError(
                "no teacher's embeddings here: set teacher.weight to 0, or write them first"
            )
        if teacher is not None and teacher.shape[1] != dimension:
            raise config.ConfigError(
                f"the teacher has {teacher.shape[1]} dimensions, network.dimension is {dimension}"
            )
        if self.metric is None and teacher is None:
            raise config.ConfigError("neither a teacher nor a metric loss: nothing to learn by")

    def forward(self, images: Tensor, identity: Tensor, fabric: Fabric) -> Tensor:
        """The loss of a batch, over the parts of all processes."""
        embeddings = self.embedder(images)
        if fabric.world_size > 1:
            embeddings = fabric.all_gather(embeddings, sync_grads=True).flatten(0, 1)
            identity = fabric.all_gather(identity).flatten()
        with torch.autocast(images.device.type, enabled=False):
            embeddings = embeddings.float()
            loss = embeddings.sum() * 0
            if self.teacher is not None:
                how = self.settings.teacher
                loss = loss + how.weight * distillation(
                    embeddings,
                    identity,
                    self.teacher,
                    temperature=how.temperature,
                    relational=how.relational,
                    alike=how.alike,
                )
            if self.metric is not None:
                loss = loss + self.settings.metric.weight * self.metric(embeddings, identity)
        return loss


def train(
    examples: Examples,
    folder: Path,
    settings: Settings,
    start: Path | None = None,
    tell: Callable[[str], None] = print,
) -> Embedder:
    """Trains, with a checkpoint in `folder` after each epoch and every few minutes; goes on from there.

    Going on gives the very weights that training without a stop would have given, on the same machine.

    Args:
        examples: what is learned from.
        folder: of the checkpoints, of run.json and of embedder.onnx (which takes RGB from 0 to 1).
        settings: how.
        start: the folder of another training, whose weights this one starts from.
        tell: takes a line after each epoch.

    Returns:
        The network of the best epoch on the identities held out, whitened where that was asked for.

    Raises:
        OtherExperiment: `folder` holds a training with other settings or on other data.
        ConfigError: there is nothing to learn by, less than one batch to learn from, or `start` is of another
            network.
        FileNotFoundError: `start` holds no training.
    """
    record.check(folder, settings, examples.sha256, MAY_DIFFER)
    fabric = launch.fabric(settings.precision)
    if settings.identities % fabric.world_size:
        raise config.ConfigError(
            f"identities: {settings.identities} cannot be shared out evenly to {fabric.world_size} processes"
        )
    torch.manual_seed(settings.seed)
    known, held_out = examples.split(settings.held_out, settings.seed)
    if len(known) < settings.identities:
        raise config.ConfigError(
            f"{len(known)} damages to train on do not make one batch of {settings.identities}"
        )
    teacher = None
    if examples.teacher is not None and settings.teacher.weight:
        teacher = centred(examples.teacher)
    state = _State(settings, len(examples.views), teacher)
    learner, optimiser = fabric.setup(state.learner, state.optimiser)
    state.mean.to(fabric.device)
    if saved := checkpoint.load(folder / CHECKPOINT):
        state.load(saved)
    elif start is not None:
        state.begin_with(checkpoint.require(start / CHECKPOINT)["weights"])
    if saved is None and fabric.is_global_zero:
        record.write(
            folder,
            settings,
            examples.sha256,
            identities=len(known),
            held_out=len(held_out),
            processes=fabric.world_size,
            device=str(fabric.device),
        )
    while state.epoch < settings.epochs and not state.tired:
        started = time.monotonic()
        loss = _epoch(fabric, learner, optimiser, state, examples, known, folder)
        line = f"epoch {state.epoch} of {settings.epochs}: loss {loss:.4f}"
        if len(held_out):
            found = judged(state.mean.module, examples, held_out, settings.size)
            state.judge(found.mean_average_precision)
            line += f", Rank-1 {found.cmc[1]:.4f}, mAP {found.mean_average_precision:.4f} held out"
        if fabric.is_global_zero:
            checkpoint.save(folder / CHECKPOINT, state.saved())
            tell(f"{line}, {time.monotonic() - started:.0f} s")
    if fabric.is_global_zero:
        _finish(state, examples, known, folder)
    fabric.barrier()
    return trained(folder)


def judged(model: Embedder, examples: Examples, identities: NDArray[np.int64], size: int) -> Retrieval:
    """The second view of each identity looks for the first among those of all."""
    rng = np.random.default_rng(0)
    asked, gallery = (
        embedded(model, [PLAIN(examples.views[i][which], size, rng) for i in identities]) for which in (1, 0)
    )
    return retrieval(asked @ gallery.T, np.eye(len(identities), dtype=bool))


def embedded(model: Embedder, views: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Embeddings of views, uint8 (S, S, 3) RGB each, as float32 (N, D)."""
    device = next(model.parameters()).device
    before = model.training
    model.eval()
    with torch.inference_mode():
        parts = [model(tensor(views[i : i + 64]).to(device)).float().cpu() for i in range(0, len(views), 64)]
    model.train(before)
    return np.concatenate([part.numpy() for part in parts])


def tensor(views: list[NDArray[np.uint8]]) -> Tensor:
    """Views of one size, uint8 (S, S, 3) RGB, as the network takes them."""
    pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


class _State:
    """All of a training that a checkpoint keeps."""

    def __init__(self, settings: Settings, identities: int, teacher: Tensor | None) -> None:
        self.settings = settings
        self.learner = Learner(settings, identities, teacher).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(
            self.learner.parameters(), settings.rate, weight_decay=settings.weight_decay
        )
        self.mean = AveragedModel(
            self.learner.embedder, multi_avg_fn=partial(_running_mean, settings.average), use_buffers=True
        )
        self.epoch = 0
        self.step = 0
        self.losses: list[float] = []
        """Of the steps of this epoch."""
        self.figures: list[float] = []
        """mAP after each epoch."""
        self.best: dict[str, Tensor] = {}

    @property
    def tired(self) -> bool:
        """Whether the last epochs brought nothing."""
        patience = self.settings.patience
        return bool(patience and self.figures) and int(np.argmax(self.figures[::-1])) >= patience

    def judge(self, value: float) -> None:
        """Keeps the weights where they are the best so far."""
        self.figures.append(value)
        if value >= max(self.figures):
            self.best = {
                name: tensor.detach().cpu().clone() for name, tensor in self.mean.module.state_dict().items()
            }

    def begin_with(self, weights: dict[str, Tensor]) -> None:
        """Starts from another training's weights, before its whitening.

        Raises:
            ConfigError: they are of another network.
        """
        try:
            self.learner.embedder.load_state_dict(weights)
        except RuntimeError as error:
            raise config.ConfigError(
                f"--start holds another network than `network` describes: {error}"
            ) from None

    def saved(self) -> dict[str, Any]:
        """What `load` takes."""
        memory = None if self.learner.metric is None else self.learner.metric.memory
        return {
            "settings": config.resolved(self.settings),
            "learner": self.learner.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "memory": None if memory is None else [memory.queue_idx, memory.has_been_filled],
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "figures": self.figures,
            "weights": self.best or self.mean.module.state_dict(),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Goes on where a training was stopped."""
        self.learner.load_state_dict(saved["learner"])
        self.mean.load_state_dict(saved["mean"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.learner.metric is not None and self.learner.metric.memory is not None:
            memory = self.learner.metric.memory
            memory.queue_idx, memory.has_been_filled = saved["memory"]
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.losses, self.figures = list(saved["losses"]), list(saved["figures"])
        self.best = saved["weights"] if self.figures else {}


def _running_mean(decay: float, means: Sequence[Tensor], now: Sequence[Tensor], updates: Tensor) -> None:
    """An exponential average; a young one is of the last tenth of its steps: the random start is soon forgotten."""
    share = max(1 - decay, 9 / (float(updates) + 10))  # once for all of a type: a GPU is waited for
    for mean, value in zip(means, now, strict=True):
        mean.copy_(mean + (value - mean) * share)


def _epoch(
    fabric: Fabric,
    learner: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: _State,
    examples: Examples,
    known: NDArray[np.int64],
    folder: Path,
) -> float:
    """One pass over the identities, or what is left of it. Returns the mean loss."""
    settings = state.settings
    steps = len(known) // settings.identities
    order = np.random.default_rng([settings.seed, 0, state.epoch]).permutation(known)
    saved = time.monotonic()
    learner.train()
    while state.step < steps:
        progress = (state.epoch + state.step / steps) / settings.epochs
        set_rates(optimiser, [settings.rate], progress)
        chosen = order[state.step * settings.identities :][: settings.identities]
        mine = np.repeat(chosen[fabric.global_rank :: fabric.world_size], settings.views)
        rng = np.random.default_rng([settings.seed, 1, state.epoch, state.step, fabric.global_rank])
        images = tensor(_views(examples, mine, settings, progress, rng)).to(fabric.device)
        launch.seed(settings.seed, state.epoch, state.step, fabric.global_rank)  # of dropped paths
        loss = learner(images, torch.from_numpy(mine).to(fabric.device), fabric)
        optimiser.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(learner, optimiser, max_norm=5.0)
        optimiser.step()
        state.mean.update_parameters(state.learner.embedder)
        state.losses.append(float(loss.detach()))
        state.step += 1
        if time.monotonic() - saved > CHECKPOINT_SECONDS and fabric.is_global_zero:
            checkpoint.save(folder / CHECKPOINT, state.saved())
            saved = time.monotonic()
    mean = float(np.mean(state.losses))
    state.epoch, state.step, state.losses = state.epoch + 1, 0, []
    return mean


def _views(
    examples: Examples,
    identities: NDArray[np.int64],
    settings: Settings,
    progress: float,
    rng: np.random.Generator,
) -> list[NDArray[np.uint8]]:
    """A view of each: other views for an identity that comes twice, as far as it has them; changed."""
    size = next(size for until, size in settings.sizes if progress < until)
    drawn: dict[int, list[int]] = {}
    views = []
    for identity in identities.tolist():
        if not drawn.get(identity):
            drawn[identity] = rng.permutation(len(examples.views[identity])).tolist()
        view = np.asarray(examples.views[identity][drawn[identity].pop()])
        views.append(settings.augment(view, size, rng))
    return views


def _finish(state: _State, examples: Examples, known: NDArray[np.int64], folder: Path) -> None:
    """Whitens where asked, writes the model, and says in run.json what came out."""
    settings = state.settings
    saved = state.saved()
    model = Embedder(replace(settings.network, weights="none"))
    model.load_state_dict(saved["weights"])
    if settings.whiten.name != "none":
        rng = np.random.default_rng([settings.seed, 2])
        chosen = np.repeat(rng.permutation(known)[:1500], 2)
        found = embedded(model, _views(examples, chosen, settings, 0.999, rng))
        how = settings.whiten
        fitted = (
            whitening.principal(found, how.dimension, how.power)
            if how.name == "principal"
            else whitening.learned(found, chosen, how.dimension, how.power)
        )
        saved["whitening"] = [torch.from_numpy(fitted.mean), torch.from_numpy(fitted.projection)]
        model.whitened(fitted)
    checkpoint.save(folder / CHECKPOINT, saved)
    cosine = to_onnx(
        _Scaled(model), torch.rand(1, 3, settings.size, settings.size), ["embedding"], folder / FILE
    )
    record.add(folder, epochs=state.epoch, map_held_out=state.figures, onnx_cosine=cosine)


class _Scaled(nn.Module):
    """Takes RGB from 0 to 1, as tools expect that know of no manifest."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings."""
        embeddings: Tensor = self.model((images - MEAN[0]) / STD[0])
        return embeddings


def settings_of(folder: Path) -> Settings:
    """What the training in `folder` was started with.

    Raises:
        FileNotFoundError: there is none.
    """
    return config.of(checkpoint.require(folder / CHECKPOINT)["settings"], Settings)


def trained(folder: Path) -> Embedder:
    """The best network so far of the training in `folder`, with its whitening.

    Raises:
        FileNotFoundError: there is none.
    """
    saved = checkpoint.require(folder / CHECKPOINT)
    model = Embedder(replace(config.of(saved["settings"], Settings).network, weights="none"))
    model.load_state_dict(saved["weights"])
    if fitted := saved.get("whitening"):
        model.whitened(whitening.Whitening(*(part.numpy() for part in fitted)))
    model.eval()
    return model
