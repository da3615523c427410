"""What a retrieval, a classifier of pairs and a segmentation are worth. Plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Figures of a ranking, each the mean over the queries that have something to be found."""

    cmc: dict[int, float]
    """At k: the share of queries with any right gallery item among the first k (Market-1501's any-hit curve)."""
    mean_average_precision: float
    """Not interpolated, over the whole ranking."""
    queries: int


def retrieval(
    similarity: NDArray[np.floating], relevant: NDArray[np.bool_], ks: tuple[int, ...] = (1, 5, 10, 50)
) -> Retrieval:
    """CMC and mAP.

    Args:
        similarity: (Q, G), larger is more alike; of equals the earlier gallery item comes first.
        relevant: (Q, G), which gallery items are right. Queries without any are left out.
        ks: Where the CMC is read.

    Raises:
        ValueError: No query has anything to be found.
    """
    valid = relevant.any(axis=1)
    if not valid.any():
        raise ValueError("no query has a right item in the gallery")
    order = np.argsort(-similarity[valid], axis=1, kind="stable")
    hits = np.take_along_axis(relevant[valid], order, axis=1)
    first = hits.argmax(axis=1)
    found = hits.cumsum(axis=1)
    precision = found / np.arange(1, hits.shape[1] + 1)
    average = (precision * hits).sum(axis=1) / found[:, -1]
    return Retrieval({k: float((first < k).mean()) for k in ks}, float(average.mean()), int(valid.sum()))


def recall_at_precision(scores: NDArray[np.floating], right: NDArray[np.bool_], precision: float) -> float:
    """The best recall over all thresholds at which the pairs above them are right in at least `precision`.

    Pairs of equal score lie on one side of any threshold. 0 where no threshold is good enough.

    Args:
        scores: (N,), larger is more surely right.
        right: (N,).
        precision: 0 to 1.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], right[order].cumsum()
    ends = np.append(ranked[1:] != ranked[:-1], True)
    good = ends & (hits / np.arange(1, len(ranked) + 1) >= precision)
    return float(hits[good].max() / right.sum()) if good.any() and right.any() else 0.0


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|) over all pixels together; 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0
