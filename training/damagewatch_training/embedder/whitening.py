"""Whitening: embeddings turned and scaled so that no few directions decide their likeness. Plain numpy.

By principal components, or learned from what belongs together (Mikolajczyk and Matas, ICCV 2007; Radenovic et al.,
arXiv 1711.02512).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHRINK = 0.01
"""Share of the mean variance that each direction gets on top: few pairs leave some directions without any."""


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """`mean` float64 (D,), `projection` float64 (d, D): x becomes `projection` (x - `mean`), of unit length."""

    mean: NDArray[np.float64]
    projection: NDArray[np.float64]

    def __call__(self, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, D) to (N, d), of unit length."""
        turned = (np.asarray(embeddings, np.float64) - self.mean) @ self.projection.T
        lengths = np.linalg.norm(turned, axis=1, keepdims=True)
        return np.asarray(turned / np.maximum(lengths, 1e-12), np.float32)


def principal(embeddings: NDArray[np.floating], dimension: int, power: float = 0.5) -> Whitening:
    """By principal components.

    Args:
        embeddings: (N, D).
        dimension: d, of the strongest components that are kept.
        power: of the variances that the components are divided by: 0.5 makes all variances equal, 0.25 goes half
            the way, 0 only turns.

    Raises:
        ValueError: `dimension` is not 1 to D, or there are fewer than two embeddings.
    """
    x = _checked(embeddings, dimension)
    mean = x.mean(0)
    values, vectors = _spectrum((x - mean).T @ (x - mean) / len(x))
    return Whitening(mean, _scaled(values, vectors, power)[:dimension])


def learned(
    embeddings: NDArray[np.floating], identity: NDArray[np.integer], dimension: int, power: float = 0.5
) -> Whitening:
    """By how embeddings of one identity differ: directions in which they do so much are made to count less.

    Args:
        embeddings: (N, D).
        identity: (N,), equal for what belongs together.
        dimension: d, of the directions that spread all embeddings most after that.
        power: of the variances within identities: 0.5 whitens them, 0.25 goes half the way.

    Raises:
        ValueError: `dimension` is not 1 to D, or no identity has two embeddings.
    """
    x = _checked(embeddings, dimension)
    mean = x.mean(0)
    _, which, counts = np.unique(identity, return_inverse=True, return_counts=True)
    several = counts[which] > 1
    if not several.any():
        raise ValueError("no identity has two embeddings to learn from")
    centres = np.zeros((len(counts), x.shape[1]))
    np.add.at(centres, which, x)
    apart = (x - centres[which] / counts[which][:, None])[several]
    values, vectors = _spectrum(apart.T @ apart / len(apart))
    within = vectors @ _scaled(values, vectors, power)  # symmetric: turned back
    turned = (x - mean) @ within.T
    _, directions = _spectrum(turned.T @ turned / len(x))
    return Whitening(mean, directions.T[:dimension] @ within)


def _checked(embeddings: NDArray[np.floating], dimension: int) -> NDArray[np.float64]:
    x = np.asarray(embeddings, np.float64)
    if len(x) < 2:
        raise ValueError(f"{len(x)} embeddings are too few to whiten by")
    if not 1 <= dimension <= x.shape[1]:
        raise ValueError(f"{dimension} dimensions of {x.shape[1]} cannot be kept")
    return x


def _spectrum(scatter: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, the largest first and none near zero, and their vectors as columns."""
    values, vectors = np.linalg.eigh(scatter)
    floor = SHRINK * max(float(values.mean()), 1e-12)
    return np.maximum(values[::-1], 0) + floor, vectors[:, ::-1]


def _scaled(values: NDArray[np.float64], vectors: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    return np.asarray((vectors * values**-power).T, np.float64)
