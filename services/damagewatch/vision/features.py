"""Local features of a window by XFeat (Potje et al., CVPR 2024): the network as ONNX, the rest here."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, LocalFeatures
from damagewatch.vision.decode import Photo
from damagewatch.vision.engine import Engine
from damagewatch.vision.manifest import LocalFeaturesModel
from damagewatch.vision.resample import cut, fitted

OUTPUTS = ("descriptors", "keypoints", "reliability")

_CELL = 8
_DETECTION = 0.05
_SUPPRESSION = np.ones((5, 5), np.uint8)


class FeatureExtractor:
    """Finds key points in windows and describes them."""

    def __init__(self, engine: Engine, model: LocalFeaturesModel) -> None:
        self._engine = engine
        self._model = model

    def extract(self, photo: Photo, window: Box, mirror: bool = False) -> LocalFeatures:
        """The strongest local features of a window.

        Args:
            photo: the decoded photo.
            window: in photo pixels.
            mirror: of the mirrored photo instead, with points in its pixels (x counted from the right edge).
        """
        size = self._model.input.size
        width, height = fitted(window, size)
        grey = cv2.cvtColor(cut(photo, window, width, height), cv2.COLOR_BGR2GRAY)
        if mirror:
            grey = cv2.flip(grey, 1)
        # The network normalises by mean and deviation of its whole input: a reflected margin keeps both.
        margins = 0, size - height, 0, size - width
        padded = cv2.copyMakeBorder(grey, *margins, cv2.BORDER_REFLECT)
        image = np.asarray(padded, np.float32)[None, None] / np.float32(255)
        descriptors, logits, reliability = (output[0] for output in self._engine.run(image))
        pixels, found = select(descriptors, logits, reliability[0], (width, height), self._model.keypoints)
        left = photo.width - window.x1 if mirror else window.x0
        points = (pixels + 0.5) * (window.width / width, window.height / height) + (left, window.y0)
        return LocalFeatures(points.astype(np.float32), quantise(found))


def select(
    descriptors: NDArray[np.float32],
    logits: NDArray[np.float32],
    reliability: NDArray[np.float32],
    content: tuple[int, int],
    at_most: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Key points and descriptors from the network's maps, as XFeat's `detectAndCompute` does it.

    Args:
        descriptors: float32 (64, h, w), unit length at each place.
        logits: float32 (65, h, w): one for each of a cell's 8 x 8 pixels, and one for "none".
        reliability: float32 (h, w), 0 to 1.
        content: width and height of the image in the network's input, pixels; the rest is margin.
        at_most: how many key points, the strongest first.

    Returns:
        Pixels float32 (N, 2) as x, y of pixel centres counted from 0, and descriptors float32 (N, 64).
    """
    rows, columns = reliability.shape
    shifted = np.exp(logits - logits.max(axis=0))
    cells = shifted[:64] / shifted.sum(axis=0)
    heat = cells.reshape(_CELL, _CELL, rows, columns).transpose(2, 0, 3, 1)
    heat = np.ascontiguousarray(heat.reshape(rows * _CELL, columns * _CELL))
    peak = (heat == cv2.dilate(heat, _SUPPRESSION)) & (heat > _DETECTION)
    y, x = np.nonzero(peak[: content[1], : content[0]])
    # XFeat samples with align_corners off on positions scaled with it on: kept, the weights were trained so.
    map_x = x * (columns / (columns * _CELL - 1)) - 0.5
    map_y = y * (rows / (rows * _CELL - 1)) - 0.5
    score = heat[y, x] * _bilinear(reliability[None], map_x, map_y)[:, 0]
    best = np.argsort(-score, kind="stable")[:at_most]
    best = best[score[best] > 0]
    found = _bilinear(descriptors, map_x[best], map_y[best])
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return np.stack([x[best], y[best]], axis=1).astype(np.float32), found


def _bilinear(
    maps: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Samples (C, h, w) at N places, zero outside: float32 (N, C)."""
    channels, rows, columns = maps.shape
    padded = np.zeros((rows + 2, columns + 2, channels), np.float32)
    padded[1:-1, 1:-1] = maps.transpose(1, 2, 0)
    x, y = np.clip(x, -1, columns) + 1, np.clip(y, -1, rows) + 1
    x0 = np.minimum(x.astype(np.intp), columns)
    y0 = np.minimum(y.astype(np.intp), rows)
    fx = (x - x0).astype(np.float32)[:, None]
    fy = (y - y0).astype(np.float32)[:, None]
    top = padded[y0, x0] * (1 - fx) + padded[y0, x0 + 1] * fx
    bottom = padded[y0 + 1, x0] * (1 - fx) + padded[y0 + 1, x0 + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, np.float32)


def quantise(descriptors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Unit-length descriptors times 127: a quarter of the bytes, the same matches."""
    return np.clip(np.rint(descriptors * 127), -127, 127).astype(np.int8)
