"""The networks as they are exported: what calibrates each, and what one of its files is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score  # type: ignore[import-untyped]
from torch import nn

from damagewatch.domain import Box
from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision.decode import Photo as Decoded
from damagewatch.vision.embed import to_tensor
from damagewatch.vision.engine import Engine
from damagewatch.vision.features import OUTPUTS as LOCAL_FEATURES
from damagewatch.vision.features import FeatureExtractor
from damagewatch.vision.manifest import LocalFeaturesModel, ModelInput
from damagewatch.vision.regions import window
from damagewatch.vision.resample import cut
from damagewatch_training.data import windows
from damagewatch_training.data.sources import Photo
from damagewatch_training.detector.examples import Examples, label_map, letterbox
from damagewatch_training.detector.network import Detector
from damagewatch_training.evaluate import metrics
from damagewatch_training.export.model import Model

CALIBRATION = 32
"""Photos that show the quantiser which values occur; more brought nothing."""

COLOURS = ((0.5,) * 3, (0.5,) * 3)


def detector(network: Detector, size: int, examples: Examples, val: Examples) -> Model:
    """Worth: Dice over the pixels of all outlined photos together, at probability 0.5; macro F1 of the severity."""
    wanted = ModelInput(size=size, mean=COLOURS[0], std=COLOURS[1])
    outputs = ["logits", "severity"]
    chosen = [
        *examples.outlined[: CALIBRATION // 2],
        *(examples.graded or examples.outlined)[-CALIBRATION // 2 :],
    ]

    def quality(path: Path) -> dict[str, float]:
        engine = Engine(path.read_bytes(), (3, size, size), outputs)
        found, truth = [], []
        for photo in val.outlined:
            image = photo.read()
            logits, _ = engine.run(to_tensor(letterbox(image, size), wanted))
            found.append(np.asarray(cv2.resize(logits[0, 0], (size, size))) > 0)
            truth.append(letterbox(label_map(photo, *image.shape[:2])[..., 0], size, 0) > 127)
        worth = {"Dice": metrics.dice(np.stack(found), np.stack(truth))}
        if val.graded:
            worth["severity, F1"] = _graded(
                [engine.run(to_tensor(letterbox(p.read(), size), wanted))[1] for p in val.graded], val
            )
        return worth

    images = [to_tensor(letterbox(photo.read(), size), wanted) for photo in chosen]
    return Model(network, (3, size, size), outputs, images, quality)


def embedder(network: nn.Module, wanted: ModelInput, examples: Examples, val: Sequence[Photo]) -> Model:
    """Worth: Rank-1 of `val` damages that are photographed again, among all of them."""
    side = wanted.size

    def tensor(photo: Decoded, box: Box) -> NDArray[np.float32]:
        return to_tensor(cut(photo, window(box, photo.width, photo.height), side, side), wanted)

    # Cut out at once: whole photos would not fit into memory.
    asked = [
        (tensor(*first), tensor(*second))
        for first, second in _photographed_again(val, np.random.default_rng(7))
    ]

    def quality(path: Path) -> dict[str, float]:
        engine = Engine(path.read_bytes(), (3, side, side), ["embedding"])
        first, second = (np.concatenate([engine.run(pair[which])[0] for pair in asked]) for which in (0, 1))
        found = metrics.retrieval(second @ first.T, np.eye(len(asked), dtype=bool))
        return {"Rank-1": found.cmc[1], "mAP": found.mean_average_precision}

    images = [tensor(_decoded(photo), photo.labels[0].box) for photo in examples.outlined[:CALIBRATION]]
    return Model(network, (3, side, side), ["embedding"], images, quality, float_outputs=0)


def local_features(network: nn.Module, size: int, examples: Examples, val: Sequence[Photo]) -> Model:
    """Worth: of `val` photos and their rephotographs, the common points a photo, and the share that is right."""
    entry = LocalFeaturesModel(name="x", file="x", sha256="0" * 64, input=ModelInput(size=size))

    def quality(path: Path) -> dict[str, float]:
        return agreement(
            FeatureExtractor(Engine(path.read_bytes(), (1, size, size), LOCAL_FEATURES), entry), val
        )

    images = []
    for photo in examples.outlined[:CALIBRATION]:
        grey = cv2.cvtColor(letterbox(photo.read(), size), cv2.COLOR_BGR2GRAY)
        images.append(np.asarray(grey, np.float32)[None, None] / np.float32(255))
    return Model(network, (1, size, size), list(LOCAL_FEATURES), images, quality)


def severity(network: nn.Module, size: int, examples: Examples, val: Examples) -> Model:
    """Worth: macro F1 of the grades of `val`. Both hold graded photos."""
    wanted = ModelInput(size=size, mean=COLOURS[0], std=COLOURS[1])

    def tensor(photo: Photo) -> NDArray[np.float32]:
        decoded = _decoded(photo)
        return to_tensor(cut(decoded, Box(0, 0, decoded.width, decoded.height), size, size), wanted)

    def quality(path: Path) -> dict[str, float]:
        engine = Engine(path.read_bytes(), (3, size, size), ["severity"])
        return {"macro F1": _graded([engine.run(tensor(photo))[0] for photo in val.graded], val)}

    step = max(1, len(examples.graded) // CALIBRATION)
    images = [tensor(photo) for photo in examples.graded[::step][:CALIBRATION]]
    return Model(network, (3, size, size), ["severity"], images, quality, float_outputs=0)


def _graded(logits: Sequence[NDArray[np.float32]], val: Examples) -> float:
    """Macro F1 of the likeliest grades of the graded photos of `val`."""
    known = [val.severity[photo.name] for photo in val.graded]
    return float(f1_score(known, [int(each.argmax()) for each in logits], average="macro"))


def agreement(extractor: FeatureExtractor, photos: Sequence[Photo], seed: int = 7) -> dict[str, float]:
    """How well local features find a photo's points again in a rephotograph of it.

    Returns:
        `right`, the mean number of mutual nearest neighbours within 3 pixels (of 640) of where they belong;
        `precision`, their share of all mutual nearest neighbours.
    """
    right, matched = [], 0
    for number, photo in enumerate(photos):
        decoded = _decoded(photo)
        again = rephotograph(decoded.image, np.random.default_rng([seed, number]))
        whole = Box(0, 0, decoded.width, decoded.height)
        other = Decoded(again.image, decoded.width, decoded.height, 1.0)
        a, b = extractor.extract(decoded, whole), extractor.extract(other, whole)
        if not len(a.points) or not len(b.points):
            right.append(0)
            continue
        alike = a.descriptors.astype(np.float32) @ b.descriptors.astype(np.float32).T
        nearest = alike.argmax(1)
        mutual = np.flatnonzero(alike.argmax(0)[nearest] == np.arange(len(nearest)))
        expected = cv2.perspectiveTransform(a.points[mutual][None].astype(np.float64), again.homography)[0]
        away = np.linalg.norm(expected - b.points[nearest[mutual]], axis=1)
        right.append(int((away <= 3 * max(decoded.width, decoded.height) / 640).sum()))
        matched += len(mutual)
    return {"right": float(np.mean(right)), "precision": sum(right) / max(matched, 1)}


def _decoded(photo: Photo) -> Decoded:
    image = photo.read()
    return Decoded(image, image.shape[1], image.shape[0], 1.0)


def _photographed_again(
    photos: Sequence[Photo], rng: np.random.Generator
) -> Iterator[tuple[tuple[Decoded, Box], tuple[Decoded, Box]]]:
    """Each damage as it is, and in another photograph with a box as another detection would be."""
    for photo in photos:
        decoded = _decoded(photo)
        again = rephotograph(decoded.image, rng)
        other = Decoded(again.image, decoded.width, decoded.height, 1.0)
        for label in photo.labels[:2]:
            seen = windows.mapped(label.box, again.homography, decoded.width, decoded.height)
            if seen is not None:
                box = windows.jittered(seen, rng, decoded.width, decoded.height)
                yield (decoded, label.box), (other, box)
