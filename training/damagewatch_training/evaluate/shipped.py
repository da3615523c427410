"""How good the shipped models are, measured through ONNX Runtime and the service's own code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from damagewatch.domain import Box
from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision.decide import judge
from damagewatch.vision.decode import Photo as Decoded
from damagewatch.vision.decode import decode
from damagewatch.vision.embed import to_tensor
from damagewatch.vision.engine import Engine
from damagewatch.vision.manifest import ModelInput
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perception
from damagewatch.vision.regions import window
from damagewatch.vision.resample import cut, fitted
from damagewatch_training.calibrate.fit import candidates, closest, perceive
from damagewatch_training.data import windows
from damagewatch_training.data.sources import Pair, Photo
from damagewatch_training.detector.train import GREY, SIZE, label_map
from damagewatch_training.evaluate import metrics
from damagewatch_training.experiment import imagenet

Embed = Callable[[Decoded, Box], NDArray[np.float32]]


def detector(folder: Path, photos: list[Photo]) -> dict[str, float]:
    """Measures a folder's detector at its threshold.

    Returns:
        `dice` over the pixels of all photos together; `found_at_iou_0.3`, the share of the labelled damages that a
        reported box overlaps so well; `covered`, the share of them whose centre lies in a reported box;
        `reported_per_photo`, damages; `right`, the share of the reported boxes that touch a labelled damage.
    """
    models = Models.load(folder)
    entry = models.manifest.detector
    engine = Engine((folder / entry.file).read_bytes(), (3, SIZE, SIZE), ("logits",))
    common = marked = reported = 0
    found, covered, right = [], [], []
    for photo in track(photos, "detecting"):
        decoded = decode(photo.path.read_bytes())
        truth = label_map(photo, decoded.height, decoded.width)[..., 0] > 0
        mask = probability(engine, entry.input, decoded) >= entry.thresholds.damage
        common += int((mask & truth).sum())
        marked += int(mask.sum()) + int(truth.sum())
        boxes = [region.box for region in models.detector.detect(decoded)]
        reported += len(boxes)
        right += [any(box.intersection(label.box) for label in photo.labels) for box in boxes]
        for label in photo.labels:
            found.append(any(label.box.iou(box) >= 0.3 for box in boxes))
            covered.append(any(_holds(box, label.box.centre) for box in boxes))
    return {
        "dice": round(2 * common / marked, 4),
        "found_at_iou_0.3": round(float(np.mean(found)), 4),
        "covered": round(float(np.mean(covered)), 4),
        "reported_per_photo": round(reported / len(photos), 2),
        "right": round(float(np.mean(right)), 4),
    }


def _holds(box: Box, point: tuple[float, float]) -> bool:
    return box.x0 <= point[0] < box.x1 and box.y0 <= point[1] < box.y1


def probability(engine: Engine, wanted: ModelInput, photo: Decoded) -> NDArray[np.float32]:
    """The probability of damage at each pixel of a photo, float32 (H, W), from the letterboxed photo."""
    whole = Box(0, 0, photo.width, photo.height)
    width, height = fitted(whole, SIZE)
    letterbox = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    letterbox[:height, :width] = cut(photo, whole, width, height)
    (logits,) = engine.run(to_tensor(letterbox, wanted))
    damage = cv2.resize(logits[0, 0], (SIZE, SIZE))[:height, :width]
    damage = cv2.resize(damage, (photo.width, photo.height))
    return np.asarray(1 / (1 + np.exp(-damage)), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Rephotographed:
    """A retrieval task: damages as windows of val photos, and of two rephotographs of each."""

    gallery: list[tuple[Decoded, Box]]
    queries: list[tuple[Decoded, Box]]
    answer: NDArray[np.int64]
    """(Q,), which gallery item each query shows."""


def rephotographed(photos: list[Photo], views: int, seed: int) -> Rephotographed:
    """Each damage of each photo once in the gallery, and `views` times taken again.

    The box of a query is moved a little, as another detection would be. Where a damage leaves the frame, another
    photograph is taken.
    """
    gallery, queries, answer = [], [], []
    for number, photo in enumerate(track(photos, "photographing again")):
        image = photo.read()
        height, width = image.shape[:2]
        rng = np.random.default_rng([seed, number])
        for label in photo.labels:
            gallery.append((Decoded(image, width, height, 1.0), window(label.box, width, height)))
            taken = 0
            while taken < views:
                again = rephotograph(image, rng)
                seen = windows.mapped(label.box, again.homography, width, height)
                if seen is not None:
                    box = windows.jittered(seen, rng, width, height)
                    queries.append((decode(again.encoded()), window(box, width, height)))
                    answer.append(len(gallery) - 1)
                    taken += 1
    return Rephotographed(gallery, queries, np.array(answer))


def embedder(embed: Embed, task: Rephotographed) -> dict[str, float]:
    """CMC and mAP of an embedding on the task."""
    gallery = np.stack([embed(photo, box) for photo, box in track(task.gallery, "gallery")])
    queries = np.stack([embed(photo, box) for photo, box in track(task.queries, "queries")])
    found = metrics.retrieval(queries @ gallery.T, task.answer[:, None] == np.arange(len(gallery)))
    ranks = {f"rank_{k}": round(share, 4) for k, share in found.cmc.items()}
    return ranks | {
        "mean_average_precision": round(found.mean_average_precision, 4),
        "queries": found.queries,
        "gallery": len(gallery),
    }


def pairs(folder: Path, root: Path, known: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """What the service says of pairs judged by eye.

    Returns:
        By verdict the number of `pairs` and the share `alerted`.
    """
    models = Models.load(folder)
    perception = Perception(models)
    names = sorted({name for pair in known for name in (pair.a, pair.b)})
    seen = {name: perceive(perception, name, (root / name).read_bytes()) for name in track(names, "looking")}
    alerted = defaultdict(list)
    for pair in track(known, "judging"):
        a, b = seen[pair.a], seen[pair.b]
        judged = (judge(q, m, models.calibration, a.mirrored) for q, m in closest(a, b))
        alerted[pair.verdict].append(any(match is not None for match in judged))
    return {
        verdict: {"pairs": len(said), "alerted": round(float(np.mean(said)), 4)}
        for verdict, said in sorted(alerted.items())
    }


def returns(
    folder: Path, photos: list[Photo], known: Sequence[Pair], again: int, seed: int
) -> dict[str, int]:
    """What the service alerts when some of `photos` come again: as `calibrate.candidates`, with the calibration.

    Returns:
        `again`, the photos photographed again, and how many were `alerted`; `photos`, those that asked for each
        other, and how many `alerted_falsely`.
    """
    models = Models.load(folder)
    evidence = candidates(photos, known, models, again, seed)
    alerts = [
        pair for pair in evidence.pairs if judge(pair.query, pair.match, models.calibration) is not None
    ]
    true = {pair.query.photo.photo_id for pair in alerts if pair.same} & set(evidence.again)
    false = {pair.query.photo.photo_id for pair in alerts if not pair.same}
    return {
        "again": len(evidence.again),
        "alerted": len(true),
        "photos": evidence.photos,
        "alerted_falsely": len(false),
    }


def imagenet_embedder() -> Embed:
    """The baseline: pooled features of EfficientNet-Lite0, trained on ImageNet alone, at 224 pixels."""
    model = imagenet.pooled_features()
    wanted = ModelInput(size=224, mean=imagenet.MEAN, std=imagenet.STD)

    def embed(photo: Decoded, box: Box) -> NDArray[np.float32]:
        with torch.inference_mode():
            features = model(torch.from_numpy(to_tensor(cut(photo, box, wanted.size, wanted.size), wanted)))[
                0
            ]
        return np.asarray(features / features.norm(), np.float32)

    return embed
