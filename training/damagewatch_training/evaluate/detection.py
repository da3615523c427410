"""How good a detector is, measured through ONNX Runtime and the service's own code."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo as Decoded
from damagewatch.vision.decode import decode
from damagewatch.vision.embed import to_tensor
from damagewatch.vision.engine import Engine
from damagewatch.vision.manifest import ModelInput
from damagewatch.vision.models import Models
from damagewatch.vision.resample import cut, fitted
from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.data.sources import Photo

GREY = 127
PART, PLACES = 0.5, 5
"""Share of the sides of a photo that its part without damage has, and how many places along each side are tried."""


def detector(folder: Path, photos: list[Photo]) -> dict[str, float]:
    """Measures a folder's detector at its threshold.

    Returns:
        `dice` over the pixels of all photos together; `found_at_iou_0.3`, the share of the labelled damages that a
        reported box overlaps so well; `covered`, the share of them whose centre lies in a reported box;
        `reported_per_photo`, damages; `right`, the share of the reported boxes that touch a labelled damage;
        `false_per_undamaged`, damages reported in a part of a photo that touches no labelled one, seen as a photo of
        its own (`undamaged`), where there is such a part. `right` is left out where nothing is reported.

    Raises:
        DataRefusedError: no damage is labelled.
    """
    if not any(photo.labels for photo in photos):
        raise DataRefusedError("no photo of the split val has a labelled damage: there is nothing to find")
    models = Models.load(folder)
    entry = models.manifest.detector
    size = entry.input.size
    engine = Engine((folder / entry.file).read_bytes(), (3, size, size), ("logits",))
    common = marked = reported = 0
    found, covered, right, false = [], [], [], []
    for photo in track(photos, "detecting"):
        decoded = decode(photo.path.read_bytes())
        truth = _labelled(photo, decoded)
        mask = probability(engine, entry.input, decoded) >= entry.thresholds.damage
        common += int((mask & truth).sum())
        marked += int(mask.sum()) + int(truth.sum())
        boxes = [region.box for region in models.detector.detect(decoded)]
        reported += len(boxes)
        right += [any(box.intersection(label.box) for label in photo.labels) for box in boxes]
        if (part := undamaged(photo, decoded)) is not None:
            false.append(len(models.detector.detect(part)))
        for label in photo.labels:
            found.append(any(label.box.iou(box) >= 0.3 for box in boxes))
            covered.append(any(_holds(box, label.box.centre) for box in boxes))
    figures = {
        "dice": round(2 * common / marked, 4),
        "found_at_iou_0.3": round(float(np.mean(found)), 4),
        "covered": round(float(np.mean(covered)), 4),
        "reported_per_photo": round(reported / len(photos), 2),
    }
    if right:
        figures["right"] = round(float(np.mean(right)), 4)
    if false:
        figures["false_per_undamaged"] = round(float(np.mean(false)), 3)
    return figures


def undamaged(photo: Photo, decoded: Decoded) -> Decoded | None:
    """The part of a photo, `PART` of its width and height, that lies farthest from all labelled damages, as a photo.

    None where each such part touches one. What nobody labelled may be in it.
    """
    width, height = round(PART * decoded.width), round(PART * decoded.height)
    best, farthest = None, 0.0
    for y in np.linspace(0, decoded.height - height, PLACES).round().astype(int).tolist():
        for x in np.linspace(0, decoded.width - width, PLACES).round().astype(int).tolist():
            box = Box(x, y, x + width, y + height)
            away = min((_distance(box, label.box) for label in photo.labels), default=np.inf)
            if away > farthest:
                best, farthest = box, away
    if best is None:
        return None
    return Decoded(cut(decoded, best, width, height), width, height, 1.0)


def _distance(one: Box, other: Box) -> float:
    """Between two boxes, pixels; 0 where they touch."""
    x = max(one.x0 - other.x1, other.x0 - one.x1, 0.0)
    y = max(one.y0 - other.y1, other.y0 - one.y1, 0.0)
    return float(np.hypot(x, y))


def _holds(box: Box, point: tuple[float, float]) -> bool:
    return box.x0 <= point[0] < box.x1 and box.y0 <= point[1] < box.y1


def probability(engine: Engine, wanted: ModelInput, photo: Decoded) -> NDArray[np.float32]:
    """The probability of damage at each pixel of a photo, float32 (H, W), from the letterboxed photo."""
    whole, size = Box(0, 0, photo.width, photo.height), wanted.size
    width, height = fitted(whole, size)
    letterbox = np.full((size, size, 3), GREY, np.uint8)
    letterbox[:height, :width] = cut(photo, whole, width, height)
    (logits,) = engine.run(to_tensor(letterbox, wanted))
    damage = cv2.resize(logits[0, 0], (size, size))[:height, :width]
    damage = cv2.resize(damage, (photo.width, photo.height))
    return np.asarray(1 / (1 + np.exp(-damage)), np.float32)


def _labelled(photo: Photo, decoded: Decoded) -> NDArray[np.bool_]:
    mask = np.zeros((decoded.height, decoded.width), np.uint8)
    for label in photo.labels:
        box = label.box
        corners = np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]])
        for polygon in label.polygons or (corners,):
            cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return mask > 0
