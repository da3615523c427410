"""The damage detector: an FPN (Lin et al., CVPR 2017) on EfficientNet-Lite0 for pixels, type and severity.

Seven channels at a quarter of the input: damage (sigmoid), scratch, dent, broken (softmax), minor, moderate,
severe (softmax). Few photos are labelled, so the encoder keeps its ImageNet batch statistics, and the photos are
changed a lot.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from damagewatch_training.data.sources import Photo
from damagewatch_training.experiment import checkpoint, imagenet
from damagewatch_training.experiment.schedule import set_rates
from damagewatch_training.export.onnx import to_onnx

SIZE = 384
GREY = 127
STRIDE = 4
UNLABELLED = 255

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Settings:
    """How the detector is trained. `crop` are pixels at the scale of a letterboxed photo."""

    epochs: int = 32
    batch: int = 8
    crop: int = 256
    last_epochs_whole: int = 1
    rate: float = 2e-3
    encoder_rate: float = 3e-4
    average: float = 0.99
    seed: int = 1


def build() -> nn.Module:
    """The network with ImageNet weights in its encoder."""
    model = smp.FPN(
        "tu-tf_efficientnet_lite0",
        encoder_weights=None,
        decoder_pyramid_channels=64,
        decoder_segmentation_channels=32,
        decoder_dropout=0.1,
        classes=7,
        upsampling=1,
    )
    model.encoder.load_state_dict(imagenet.weights_for(model.encoder))
    # Batch norm folds into the convolutions of the exported file; group norm costs time there.
    for parent in list(model.decoder.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, nn.BatchNorm2d(child.num_channels))
    return model


def label_map(photo: Photo, height: int, width: int) -> Image:
    """uint8 (H, W, 3): damaged (255 or 0), type and severity (UNLABELLED where there is none)."""
    labels = np.zeros((height, width, 3), np.uint8)
    labels[..., 1:] = UNLABELLED
    # The largest first, so that a scratch on a dented door is not lost.
    for label in sorted(photo.labels, key=lambda label: -label.box.area):
        polygons = [np.rint(polygon).astype(np.int32) for polygon in label.polygons]
        kinds = (UNLABELLED if kind is None else kind for kind in (label.type, label.severity))
        cv2.fillPoly(labels, polygons, (255, *kinds))
    return labels


class Photos(Dataset[tuple[Tensor, Tensor]]):
    """Labelled photos, changed anew in each epoch. Items: uint8 (3, S, S) RGB, uint8 (3, S, S) label map."""

    def __init__(self, photos: list[Photo], seed: int) -> None:
        self.photos = [photo.read() for photo in photos]
        self.labels = [
            label_map(photo, *image.shape[:2]) for photo, image in zip(photos, self.photos, strict=True)
        ]
        self.seed = seed
        self.epoch = 0
        self.crop = SIZE

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        photo, labels = self.photos[index], self.labels[index]
        matrix = _placement(labels[..., 0], self.crop, rng)
        size = (self.crop, self.crop)
        image = cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(GREY,) * 3)
        nothing = (0, UNLABELLED, UNLABELLED)
        placed = cv2.warpAffine(labels, matrix, size, flags=cv2.INTER_NEAREST, borderValue=nothing)
        image = _other_camera(np.asarray(image, np.uint8), rng)
        pixels = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
        return torch.from_numpy(pixels), torch.from_numpy(np.ascontiguousarray(placed.transpose(2, 0, 1)))


def _placement(damaged: Image, crop: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Photo to crop: scaled, turned, mirrored, and mostly put where a damage is."""
    height, width = damaged.shape
    scale = SIZE / max(height, width) * np.exp(rng.uniform(np.log(0.6), np.log(1.6)))
    aspect = np.exp(rng.normal(0, 0.1))
    angle = np.deg2rad(rng.normal(0, 6))
    flip = rng.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([flip * scale * aspect, scale / aspect])
    rows, columns = np.nonzero(damaged[::4, ::4])
    if len(rows) and rng.random() < 0.75:
        pick = rng.integers(len(rows))
        focus = np.array([columns[pick] * 4.0, rows[pick] * 4.0])
    else:
        focus = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    if crop >= SIZE:
        focus = np.array([width / 2, height / 2]) + 0.25 * (focus - np.array([width / 2, height / 2]))
    at = crop / 2 + rng.uniform(-0.3, 0.3, 2) * crop
    return np.column_stack([linear, at - linear @ focus])


def _other_camera(image: Image, rng: np.random.Generator) -> Image:
    """Exposure, contrast, saturation, hue, blur, noise and JPEG of some other camera."""
    out = image.astype(np.float32)
    if rng.random() < 0.8:
        out = (out - 127) * np.exp(rng.normal(0, 0.2)) + 127 + rng.normal(0, 20)
        grey = out.mean(2, keepdims=True)
        out = grey + (out - grey) * np.exp(rng.normal(0, 0.3))
        out *= np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    if rng.random() < 0.1:
        out = np.repeat(out.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.3:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.5)), np.float32)
    if rng.random() < 0.3:
        out += rng.normal(0, rng.uniform(2, 12), out.shape).astype(np.float32)
    changed = np.clip(out, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        changed = np.ascontiguousarray(changed[..., rng.permutation(3)])  # another paint
    if rng.random() < 0.4:
        _, stored = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])
        changed = np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8)
    return changed


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Dice over the batch + binary cross entropy of damage, + cross entropy of type and severity on damages.

    Args:
        logits: float (N, 7, h, w).
        labels: uint8 (N, 3, STRIDE * h, STRIDE * w), as `label_map` makes them.
    """
    damaged = functional.avg_pool2d(labels[:, :1].float() / 255, STRIDE)
    logit = logits[:, :1]
    probability = torch.sigmoid(logit)
    dice = 1 - (2 * (probability * damaged).sum() + 1) / (probability.sum() + damaged.sum() + 1)
    loss = dice + functional.binary_cross_entropy_with_logits(logit, damaged)
    middle = slice(STRIDE // 2, None, STRIDE)
    for channel, kinds in ((1, logits[:, 1:4]), (2, logits[:, 4:7])):
        target = labels[:, channel, middle, middle].long()
        if bool((target != UNLABELLED).any()):
            loss = loss + 0.2 * functional.cross_entropy(kinds, target, ignore_index=UNLABELLED)
    return loss


def train(photos: list[Photo], folder: Path, settings: Settings) -> nn.Module:
    """Trains, with a checkpoint after each epoch in `folder`; goes on from there. Returns the averaged network."""
    torch.manual_seed(settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=2))
    model = build().to(memory_format=torch.channels_last)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True)
    encoder = list(model.encoder.parameters())
    others = [*model.decoder.parameters(), *model.segmentation_head.parameters()]
    optimiser = torch.optim.AdamW(
        [{"params": encoder, "lr": settings.encoder_rate}, {"params": others, "lr": settings.rate}],
        weight_decay=0.02,
    )
    dataset = Photos(photos, settings.seed)
    steps = settings.epochs * (len(dataset) // settings.batch)
    parts = {"model": model, "averaged": averaged, "optimiser": optimiser}
    first = 0
    if saved := checkpoint.load(folder / "checkpoint.pt"):
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first = int(saved["epochs"])
    for epoch in range(first, settings.epochs):
        dataset.epoch = epoch
        dataset.crop = SIZE if epoch >= settings.epochs - settings.last_epochs_whole else settings.crop
        order = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
        loader = DataLoader(
            dataset, settings.batch, shuffle=True, drop_last=True, generator=order, num_workers=1
        )
        model.train()
        model.encoder.eval()  # the batches are too small to learn batch statistics from
        started, total = time.monotonic(), 0.0
        for step, (images, labels) in enumerate(loader, epoch * len(loader)):
            set_rates(optimiser, [settings.encoder_rate, settings.rate], step / steps)
            pixels = (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(pixels)
            loss = loss_of(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            averaged.update_parameters(model)
            total += float(loss.detach())
        checkpoint.save(
            folder / "checkpoint.pt",
            {name: part.state_dict() for name, part in parts.items()} | {"epochs": epoch + 1},
        )
        mean = total / len(loader)
        print(f"epoch {epoch + 1} loss {mean:.4f} {time.monotonic() - started:.0f} s", flush=True)
    return averaged.module


def trained(folder: Path) -> nn.Module:
    """The averaged network of the last checkpoint in `folder`."""
    saved = checkpoint.load(folder / "checkpoint.pt")
    if saved is None:
        raise FileNotFoundError(f"no checkpoint in {folder}")
    model = build()
    averaged = AveragedModel(model, use_buffers=True)
    averaged.load_state_dict(saved["averaged"])
    return averaged.module


def export(model: nn.Module, path: Path) -> float:
    """Writes the network to `path` and returns the least cosine between ONNX Runtime and torch."""
    return to_onnx(model, torch.rand(1, 3, SIZE, SIZE), ["logits"], path)
