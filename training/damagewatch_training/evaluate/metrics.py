"""What a retrieval, a classifier of pairs and a segmentation are worth. Plain numpy.

Words. A *query* asks, the *gallery* answers with a ranking. *Right* items show what the query shows. *Junk* items are
neither right nor wrong and are taken out of the ranking before anything is counted, as in Market-1501 (Zheng et al.,
ICCV 2015): here other damages on the query's own photo, or the query itself. Of equally similar items the wrong
ones come first, so that a method gains nothing by not telling items apart. A query without any right item takes no
part in a mean over queries; its pairs count among the pooled ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KS = (1, 5, 10, 20)
"""Where curves over the rank are read."""
PRECISIONS = (0.99, 0.95, 0.9, 0.5)
"""At which recall is read."""
CANDIDATES = 50


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """Where the right items of each query stand: `of[q]` are their ranks from 1, ascending, never empty."""

    of: tuple[NDArray[np.int64], ...]

    @property
    def right(self) -> Floats:
        """(Q,), how many right items each query has: n."""
        return np.array([len(ranks) for ranks in self.of], np.float64)

    def within(self, k: int) -> Floats:
        """(Q,), how many of them are among the first k."""
        return np.array([np.searchsorted(ranks, k, "right") for ranks in self.of], np.float64)

    def any_hit(self, k: int) -> Floats:
        """(Q,), CMC of any hit: 1 where a right item is among the first k (Market-1501's curve)."""
        return (self.within(k) > 0).astype(np.float64)

    def all_hits(self, k: int) -> Floats:
        """(Q,), CMC of all hits: 1 where the first k hold as many right items as they can, min(k, n).

        For k <= n all of the first k are right; for k >= n all right items are among them.
        """
        return np.asarray(self.within(k) == np.minimum(k, self.right), np.float64)

    def recall(self, k: int) -> Floats:
        """(Q,), the share of the right items that are among the first k."""
        return np.asarray(self.within(k) / self.right)

    def feasible_recall(self, k: int) -> Floats:
        """(Q,), what a perfect ranking reaches: min(k, n) / n."""
        return np.asarray(np.minimum(k, self.right) / self.right)

    def f1(self, k: int) -> Floats:
        """(Q,), the harmonic mean of `recall` and of the precision of the first k (of k, found or not)."""
        return np.asarray(2 * self.within(k) / (k + self.right))

    def feasible_f1(self, k: int) -> Floats:
        """(Q,), what a perfect ranking reaches: 2 min(k, n) / (k + n)."""
        return np.asarray(2 * np.minimum(k, self.right) / (k + self.right))

    def average_precision(self) -> Floats:
        """(Q,), the mean over right items of the precision at their rank: not interpolated, nothing cut off."""
        return np.array([(np.arange(1, len(ranks) + 1) / ranks).mean() for ranks in self.of])


def rank(
    similarity: NDArray[np.floating], relevant: NDArray[np.bool_], junk: NDArray[np.bool_] | None = None
) -> tuple[Ranks, NDArray[np.int64]]:
    """Ranks the gallery for each query.

    Args:
        similarity: (Q, G), larger is more alike; finite.
        relevant: (Q, G), which gallery items are right.
        junk: (Q, G), which are left out. An item that is right is never junk.

    Returns:
        The ranks, and which queries they are of: indices of those that have a right item.

    Raises:
        ValueError: No query has anything to be found, or a similarity is no finite number.
    """
    if not np.isfinite(similarity).all():
        raise ValueError("a similarity is not a finite number")
    valid = np.flatnonzero(relevant.any(axis=1))
    if not len(valid):
        raise ValueError("no query has a right item in the gallery")
    found = []
    for query in valid:
        kept = relevant[query] if junk is None else relevant[query] | ~junk[query]
        kept = np.ones_like(kept) if junk is None else kept
        scores, right = similarity[query][kept], relevant[query][kept]
        ahead = np.sort(scores[~right])
        mine = np.sort(scores[right])[::-1]
        wrong_ahead = len(ahead) - np.searchsorted(ahead, mine, "left")
        found.append(wrong_ahead + np.arange(1, len(mine) + 1))
    return Ranks(tuple(found)), valid


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """All pairs of a query and a gallery item in one list, as under one threshold for all queries.

    A threshold is best put at the score of a right pair, P of them. `above_right` and `above_wrong`, (P, C), count
    the pairs that score as much or more, by the cluster of their query; `cluster`, (P,), is that of the right pair
    itself. Kept by cluster so that a bootstrap over clusters costs a product of matrices, and is exact.
    """

    cluster: NDArray[np.int64]
    above_right: Floats
    above_wrong: Floats

    def precision(self, weights: Floats) -> Floats:
        """(B, P), the precision at each threshold, where cluster c counts `weights[b, c]` times."""
        right, wrong = weights @ self.above_right.T, weights @ self.above_wrong.T
        return np.asarray(np.divide(right, right + wrong, out=np.zeros_like(right), where=right > 0))

    def recall(self, weights: Floats) -> Floats:
        """(B, P), the recall at each threshold."""
        total = weights[:, self.cluster].sum(axis=1, keepdims=True)
        return np.asarray(weights @ self.above_right.T / np.maximum(total, 1))

    def average_precision(self, weights: Floats) -> Floats:
        """(B,), micro-averaged: the mean over right pairs of the precision at their score (sklearn's, with ties)."""
        own = weights[:, self.cluster]
        return np.asarray((own * self.precision(weights)).sum(axis=1) / np.maximum(own.sum(axis=1), 1))

    def recall_at(self, precision: float, weights: Floats) -> Floats:
        """(B,), the best recall of all thresholds that reach a precision, 0 where none does."""
        good = self.precision(weights) >= precision
        return np.asarray(np.where(good, self.recall(weights), 0.0).max(axis=1))


def pool(
    similarity: NDArray[np.floating],
    relevant: NDArray[np.bool_],
    junk: NDArray[np.bool_] | None,
    clusters: NDArray[np.int64],
) -> Pooled:
    """Pools all pairs but junk.

    Args:
        similarity: (Q, G), larger is more alike; finite.
        relevant: (Q, G).
        junk: (Q, G), or None.
        clusters: (Q,), from 0: queries that are drawn together by a bootstrap, being of one damage.
    """
    thresholds = similarity[relevant]
    owner, count = clusters[np.nonzero(relevant)[0]], int(clusters.max()) + 1
    above = np.zeros((2, len(thresholds), count))
    for query, cluster in enumerate(clusters):
        kept = np.ones_like(relevant[query]) if junk is None else relevant[query] | ~junk[query]
        for kind, chosen in enumerate((relevant[query], kept & ~relevant[query])):
            scores = np.sort(similarity[query][chosen])
            above[kind, :, cluster] += len(scores) - np.searchsorted(scores, thresholds, "left")
    return Pooled(owner, above[0], above[1])


def resamples(clusters: int, count: int, seed: int) -> Floats:
    """(1 + count, clusters): how often each cluster is drawn; first the sample itself, each once.

    The bootstrap draws damages, not pairs nor queries: those of one damage succeed and fail together.
    """
    draws = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), size=count)
    return np.vstack([np.ones((1, clusters)), draws]).astype(np.float64)


def figures(
    ranks: Ranks,
    pooled: Pooled,
    clusters: NDArray[np.int64],
    weights: Floats,
    ks: Sequence[int] = KS,
    precisions: Sequence[float] = PRECISIONS,
) -> Mapping[str, Floats]:
    """Every figure by name, (B,) each: one value for each row of `weights`.

    Args:
        ranks: Of the queries that have something to be found.
        pooled: Of all queries.
        clusters: (Q,), of those that `ranks` are of.
        weights: (B, C), as of `resamples`.
        ks: Where curves over the rank are read.
        precisions: At which recall is read.
    """
    drawn = weights[:, clusters]
    total = np.maximum(drawn.sum(axis=1), 1)

    def mean(values: Floats) -> Floats:
        return np.asarray(drawn @ values / total)

    found = {f"any_hit_at_{k}": mean(ranks.any_hit(k)) for k in ks}
    found |= {f"all_hits_at_{k}": mean(ranks.all_hits(k)) for k in ks}
    found["map"] = mean(ranks.average_precision())
    found[f"candidate_recall_at_{CANDIDATES}"] = mean(ranks.any_hit(CANDIDATES))
    found["pooled_ap"] = pooled.average_precision(weights)
    found |= {
        f"recall_at_precision_{round(100 * wanted)}": pooled.recall_at(wanted, weights)
        for wanted in precisions
    }
    for k in ks:
        found[f"recall_at_{k}"] = mean(ranks.recall(k))
        found[f"feasible_recall_at_{k}"] = mean(ranks.feasible_recall(k))
        found[f"f1_at_{k}"] = mean(ranks.f1(k))
        found[f"feasible_f1_at_{k}"] = mean(ranks.feasible_f1(k))
    return found


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Figures of a ranking, each the mean over the queries that have something to be found."""

    cmc: dict[int, float]
    """At k: the share of queries with any right gallery item among the first k (Market-1501's any-hit curve)."""
    mean_average_precision: float
    """Not interpolated, over the whole ranking."""
    queries: int


def retrieval(
    similarity: NDArray[np.floating],
    relevant: NDArray[np.bool_],
    junk: NDArray[np.bool_] | None = None,
    ks: tuple[int, ...] = (1, 5, 10, 50),
) -> Retrieval:
    """CMC and mAP alone: quick, for watching a training.

    Args:
        similarity: (Q, G), larger is more alike.
        relevant: (Q, G), which gallery items are right. Queries without any are left out.
        junk: (Q, G), which are left out.
        ks: Where the CMC is read.

    Raises:
        ValueError: No query has anything to be found.
    """
    ranks, valid = rank(similarity, relevant, junk)
    cmc = {k: float(ranks.any_hit(k).mean()) for k in ks}
    return Retrieval(cmc, float(ranks.average_precision().mean()), len(valid))


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|) over all pixels together; 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0
