"""A map of embeddings: points in the plane with thumbnails, one HTML file that needs nothing else."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from damagewatch_training.evaluate.page import COLOURS

NEIGHBOURS = 6


@dataclass(frozen=True, slots=True)
class Point:
    """One picture on the map: its name, its group (its colour), a small picture as a data URI."""

    name: str
    group: str
    thumbnail: str


def principal(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The two directions in which the embeddings differ most: (N, D) to (N, 2)."""
    centred = np.asarray(vectors - vectors.mean(0), np.float64)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(vectors), 2))
    flat[:, : len(directions[:2])] = centred @ directions[:2].T
    return flat


def neighbourly(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """t-SNE (van der Maaten and Hinton, 2008) by scikit-learn: who is near stays near. (N, D) to (N, 2).

    Distances between far groups mean nothing. Needs the extra `train`.
    """
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(2.0, (len(vectors) - 1) / 3))
    flat = TSNE(2, perplexity=perplexity, init="pca", metric="cosine", random_state=seed).fit_transform(
        vectors
    )
    return np.asarray(flat, np.float64)


def nearest(vectors: NDArray[np.float32], count: int = NEIGHBOURS) -> NDArray[np.int64]:
    """The indices of each vector's nearest others, by cosine: (N, min(count, N - 1))."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, : min(count, len(vectors) - 1)]


def write(
    path: Path, title: str, points: Sequence[Point], flat: NDArray[np.float64], near: NDArray[np.int64]
) -> None:
    """Writes the map.

    Args:
        path: The file.
        title: Of the page.
        points: N.
        flat: (N, 2), where they lie.
        near: (N, K), which are near each in the embedding itself: shown when it is chosen.

    Raises:
        OSError: The file cannot be written.
    """
    low, high = flat.min(0), flat.max(0)
    placed = (flat - low) / np.maximum(high - low, 1e-9)
    groups = sorted({point.group for point in points})
    content = {
        "title": title,
        "groups": [[group, COLOURS[i % len(COLOURS)]] for i, group in enumerate(groups)],
        "points": [
            [round(x, 4), round(y, 4), groups.index(point.group), point.name, point.thumbnail]
            for point, (x, y) in zip(points, placed.tolist(), strict=True)
        ],
        "near": near.tolist(),
    }
    # Names come from outside: nothing in them may end the script.
    told = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    page = (Path(__file__).with_name("map.html")).read_text(encoding="utf-8").replace("/*CONTENT*/null", told)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        aside.write_text(page, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
