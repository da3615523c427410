"""Whether the photos of today look to the embedder like those that it was measured on.

Two distances between the embeddings of recent whole photos and a reference, which the models' manifest gives:
of the means, and of the spreads. The first two moments are what the Fréchet distance compares
(https://arxiv.org/abs/1706.08500); the spread here is one number, as 512 x 512 covariances of a thousand
vectors would be noise.
"""

from __future__ import annotations

import math
import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

WINDOW: Final = 1000
"""Photos that are compared."""
LEAST: Final = 200
"""Photos before anything is told: the mean of n lies 1 / sqrt(n) spreads from the truth by chance alone."""


class Drift:
    """Sums over the last `window` embeddings. Thread safe.

    Args:
        mean: of the reference, float, shape (d,).
        spread: of the reference: root of the mean squared distance from its mean.
        window: photos that are compared.
        least: photos before anything is told.
    """

    def __init__(
        self, mean: NDArray[np.float32], spread: float, window: int = WINDOW, least: int = LEAST
    ) -> None:
        self._reference = np.asarray(mean, np.float64)
        self._reference_spread = spread
        self._least = least
        self._recent = np.zeros((window, self._reference.size), np.float32)
        self._seen = 0
        self._lock = threading.Lock()

    def add(self, embedding: NDArray[np.float32]) -> None:
        """Takes in the embedding of one more photo, shape (d,)."""
        with self._lock:
            self._recent[self._seen % len(self._recent)] = embedding
            self._seen += 1

    def mean_shift(self) -> float:
        """Distance of the means in units of the reference's spread; NaN until enough photos were seen."""
        recent = self._copy()
        if recent is None:
            return math.nan
        return float(np.linalg.norm(recent.mean(axis=0) - self._reference)) / self._reference_spread

    def spread(self) -> float:
        """Spread of the recent photos over the reference's; NaN until enough were seen."""
        recent = self._copy()
        return math.nan if recent is None else spread_of(recent) / self._reference_spread

    def _copy(self) -> NDArray[np.float64] | None:
        with self._lock:
            if self._seen < self._least:
                return None
            return self._recent[: self._seen].astype(np.float64)


def spread_of(embeddings: NDArray[np.float64]) -> float:
    """Root of the mean squared distance of the rows from their mean; `embeddings` has the shape (n, d)."""
    return float(np.sqrt(np.square(embeddings - embeddings.mean(axis=0)).sum(axis=1).mean()))
