"""Trains OSNet x1_0 by distillation: it learns to see in photos taken again what a teacher sees in the clean ones.

No weights of OSNet install from a package index, so it starts from noise. The teacher's embeddings (SSCD, centred)
are written once (`damagewatch_training.embedder.teacher`), and the student's views are rendered once
(`damagewatch_training.embedder.views`).
After Budnik and Avrithis (arXiv 2103.13680, regression and teacher-anchored contrast) and Park et al. (CVPR 2019,
relations).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from damagewatch_training.embedder.osnet import OSNet
from damagewatch_training.experiment import checkpoint
from damagewatch_training.experiment.schedule import set_rates
from damagewatch_training.export.onnx import to_onnx

SIZE = 96
MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the embedder is trained.

    `sizes`: until which share of the steps at how many pixels. It begins small: a quarter of the pixels cost a
    quarter of the time.
    """

    steps: int = 1750
    batch: int = 64
    sizes: tuple[tuple[float, int], ...] = ((0.46, 64), (1.0, SIZE))
    rate: float = 2e-3
    weight_decay: float = 0.02
    temperature: float = 0.05
    relational: float = 5.0
    alike: float = 0.5
    seed: int = 1
    checkpoint_seconds: float = 180.0


def centred(teacher: NDArray[np.float32]) -> Tensor:
    """Teacher embeddings (W, D) without what all photos of cars share, of unit length."""
    embeddings = torch.from_numpy(teacher)
    return functional.normalize(embeddings - embeddings.mean(0), dim=1)


def loss_of(student: Tensor, window: Tensor, teacher: Tensor, settings: Settings) -> Tensor:
    """Regression + contrast against all windows + relations within the batch.

    Args:
        student: float (B, D), of unit length.
        window: int64 (B,), which window each is a view of.
        teacher: float (W, D), of unit length. Windows that the teacher finds as alike as `settings.alike` are no
            negatives of each other: they overlap or show one car.
        settings: The weights of the terms.
    """
    target = teacher[window]
    regression = (1 - (student * target).sum(1)).mean()
    alike = target @ teacher.T > settings.alike
    alike[torch.arange(len(window)), window] = False
    scores = (student @ teacher.T / settings.temperature).masked_fill(alike, -torch.inf)
    contrast = functional.cross_entropy(scores, window)
    relational = functional.mse_loss(student @ student.T, target @ target.T)
    return regression + 0.5 * contrast + settings.relational * relational


def changed(views: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Tensor:
    """A batch for the network: uint8 (B, S, S, 3) RGB to float (B, 3, size, size).

    Mirrored, grey, in another paint, or with a part hidden, each now and then. Mirrored views are positives: the
    teacher cannot tell them apart, and it is the verifier that does.
    """
    batch = views.astype(np.float32)
    for image in batch:
        if rng.random() < 0.3:
            image[:] = image[:, ::-1].copy()
        if rng.random() < 0.1:
            image[:] = image.mean(2, keepdims=True)
        elif rng.random() < 0.1:
            image[:] = image[..., rng.permutation(3)]
        if rng.random() < 0.25:
            h, w = rng.integers(image.shape[0] // 10, image.shape[0] // 3, 2)
            y, x = rng.integers(0, image.shape[0] - h), rng.integers(0, image.shape[1] - w)
            image[y : y + h, x : x + w] = rng.uniform(0, 255, 3)
    pixels = torch.from_numpy(batch).permute(0, 3, 1, 2) / 127.5 - 1
    if size != pixels.shape[-1]:
        pixels = functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)


def train(run: Path, folder: Path, settings: Settings) -> nn.Module:
    """Trains on `run`/views.npy and `run`/teacher.npy, with checkpoints in `folder`. Returns the network."""
    torch.manual_seed(settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=2))
    views = np.load(run / "views.npy", mmap_mode="r")
    teacher = centred(np.load(run / "teacher.npy"))
    model = OSNet().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), settings.rate, weight_decay=settings.weight_decay)
    parts = {"model": model, "optimiser": optimiser}
    first = 0
    if saved := checkpoint.load(folder / "checkpoint.pt"):
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first = int(saved["steps"])
    model.train()
    saved_at, told_at, recent = time.monotonic(), time.monotonic(), []
    for step in range(first, settings.steps):
        progress = step / settings.steps
        set_rates(optimiser, [settings.rate], progress)
        window, view, rng = _batch(step, len(views), views.shape[1], settings)
        size = next(size for until, size in settings.sizes if progress < until)
        pixels = changed(views[window, view], size, rng)
        with torch.autocast("cpu", torch.bfloat16):
            student = model(pixels)
        loss = loss_of(student.float(), torch.from_numpy(window), teacher, settings)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        recent.append(float(loss.detach()))
        last = step + 1 == settings.steps
        if step % 50 == 49 or last:
            now = time.monotonic()
            speed = len(recent) * settings.batch / (now - told_at)
            print(f"step {step + 1} loss {np.mean(recent):.4f} {speed:.0f} views/s", flush=True)
            told_at, recent = now, []
        if time.monotonic() - saved_at > settings.checkpoint_seconds or last:
            checkpoint.save(
                folder / "checkpoint.pt",
                {name: part.state_dict() for name, part in parts.items()} | {"steps": step + 1},
            )
            saved_at = time.monotonic()
    return model


def _batch(
    step: int, count: int, views: int, settings: Settings
) -> tuple[NDArray[np.int64], NDArray[np.int64], np.random.Generator]:
    """Windows and views of a step: each window once an epoch, in an order that depends on the seed alone."""
    epoch, position = divmod(step, count // settings.batch)
    order = np.random.default_rng([settings.seed, 0, epoch]).permutation(count)
    window = order[position * settings.batch : (position + 1) * settings.batch]
    rng = np.random.default_rng([settings.seed, 1, step])
    return window, rng.integers(0, views, len(window)), rng


def trained(folder: Path) -> nn.Module:
    """The network of the last checkpoint in `folder`."""
    saved = checkpoint.load(folder / "checkpoint.pt")
    if saved is None:
        raise FileNotFoundError(f"no checkpoint in {folder}")
    model = OSNet()
    model.load_state_dict(saved["model"])
    return model


def export(model: nn.Module, path: Path) -> float:
    """Writes the network to `path` and returns the least cosine between ONNX Runtime and torch."""
    return to_onnx(model, torch.rand(1, 3, SIZE, SIZE), ["embedding"], path)
