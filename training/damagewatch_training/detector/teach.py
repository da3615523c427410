"""Self-training: what trained detectors see in photos that nobody outlined, for another one to learn.

A student that is shown changed photos, and the mean of several teachers, sizes and mirror images for a label, becomes
better than each of its teachers (Xie et al., CVPR 2020; data distillation, Radosavovic et al., CVPR 2018).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from damagewatch_training.data.dataset import write_whole
from damagewatch_training.data.sources import Photo
from damagewatch_training.detector import pictures
from damagewatch_training.detector.examples import Image

SIZES = (256, 320, 384)
"""Sides in pixels that a teacher sees a photo at: large damages are told best by the small one."""
EVEN = 0.58
"""Mean probability that becomes 0.5: where teachers disagree, they mark too much."""
_FAINT = 8


def probability(teachers: Sequence[nn.Module], image: Image) -> NDArray[np.float32]:
    """The teachers' mean probability of damage at each pixel of a photo, float32 (H, W), 0 to 1, moved by `EVEN`."""
    height, width = image.shape[:2]
    total = np.zeros((height, width), np.float32)
    for seen, turn in ((image, False), (np.ascontiguousarray(image[:, ::-1]), True)):
        for size in SIZES:
            scale = size / max(height, width)
            wide, high = max(1, round(width * scale)), max(1, round(height * scale))
            for teacher in teachers:
                part = pictures.probability(teacher, seen, size)[:high, :wide]
                part = np.ascontiguousarray(part[:, ::-1]) if turn else part
                total += cv2.resize(part, (width, height))
    mean = np.clip(total / (2 * len(SIZES) * len(teachers)), 1e-4, 1 - 1e-4)
    odds = mean / (1 - mean) * (1 - EVEN) / EVEN
    return np.asarray(odds / (1 + odds), np.float32)


def fingerprint(teacher: nn.Module) -> str:
    """SHA-256 of a trained network's weights: other teachers see other things."""
    told = hashlib.sha256()
    for name, tensor in sorted(teacher.state_dict().items()):
        told.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return told.hexdigest()


def write(teachers: Sequence[nn.Module], photos: Iterable[Photo], folder: Path) -> Iterator[tuple[str, Path]]:
    """Writes a grey PNG for each photo, 255 where damage is certain; those that are there are kept.

    Yields:
        The photo's name and the file, one after the other: this takes half a second for each photo.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for photo in photos:
        path = folder / f"{photo.name.replace('/', '__')}.png"
        if not path.exists():
            damage = (255 * probability(teachers, photo.read())).round().astype(np.uint8)
            damage[damage < _FAINT] = 0
            _, stored = cv2.imencode(".png", damage)
            write_whole(path, stored.tobytes())  # each of several processes comes here
        yield photo.name, path
