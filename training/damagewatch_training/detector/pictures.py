"""What a detector finds, as pictures: for a person who watches a training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from damagewatch_training.data.sources import Photo
from damagewatch_training.detector.examples import Image, letterbox

SIDE = 320


def probability(model: nn.Module, image: Image, size: int) -> NDArray[np.float32]:
    """The probability of damage at each pixel of the letterboxed photo, float32 (size, size)."""
    pixels = letterbox(image, size)
    inputs = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)))[None]
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        logits, _ = model(inputs.to(device).float() / 127.5 - 1)
    damage = torch.sigmoid(logits[0, 0].float()).cpu().numpy()
    return np.asarray(cv2.resize(damage, (size, size)), np.float32)


def write(path: Path, model: nn.Module, photos: list[Photo], size: int) -> None:
    """Writes a sheet: each photo with its labels outlined, beside it what is found, the redder the surer."""
    rows = []
    for photo in photos:
        image = photo.read()
        damage = probability(model, image, size)
        for label in photo.labels:
            outlines = [np.rint(polygon).astype(np.int32) for polygon in label.polygons]
            cv2.polylines(image, outlines, True, (0, 255, 0), max(1, image.shape[1] // 300))
        left = letterbox(image, size)
        right = (left * 0.5).astype(np.uint8)
        right[..., 2] = np.maximum(right[..., 2], (255 * damage).astype(np.uint8))
        rows.append(np.hstack([cv2.resize(side, (SIDE, SIDE)) for side in (left, right)]))
    if len(rows) % 2:
        rows.append(np.zeros_like(rows[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = np.vstack([np.hstack(rows[i : i + 2]) for i in range(0, len(rows), 2)])
    cv2.imwrite(str(path), sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])
