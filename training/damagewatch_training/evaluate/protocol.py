"""How a method is measured on a task, and when one is better than another: the same for all.

Figures are those of `evaluate.metrics`; intervals hold 95 % of a bootstrap over damages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from damagewatch_training.evaluate import metrics
from damagewatch_training.evaluate.task import Task

RESAMPLES = 1000
SEED = 20
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A method on a task.

    `figures` are by name, first the figure, then those of the resamples. `similarity` is (Q, G);
    `ranks` are of the queries that have something to be found. `recall` and
    `precision` are the pooled curve, by falling threshold.
    """

    method: str
    figures: Mapping[str, NDArray[np.float64]]
    similarity: NDArray[np.float32]
    ranks: metrics.Ranks
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]

    def value(self, name: str) -> float:
        """A figure."""
        return float(self.figures[name][0])

    def interval(self, name: str) -> tuple[float, float]:
        """Where 95 % of its resamples lie."""
        low, high = np.quantile(self.figures[name][1:], INTERVAL)
        return float(low), float(high)


def measure(method: str, features: NDArray[np.float32], task: Task, resamples: int = RESAMPLES) -> Measured:
    """Measures a method.

    Args:
        method: Its name.
        features: float32 (Q + G, D) of unit length, in the order of `task.items`.
        task: What is to be found.
        resamples: Of the bootstrap. All methods are measured on the same ones.
    """
    count = len(task.queries)
    similarity = features[:count] @ features[count:].T
    ranks, valid = metrics.rank(similarity, task.relevant, task.junk)
    pooled = metrics.pool(similarity, task.relevant, task.junk, task.clusters)
    weights = metrics.resamples(int(task.clusters.max()) + 1, resamples, SEED)
    found = metrics.figures(ranks, pooled, task.clusters[valid], weights)
    once = weights[:1]
    order = np.argsort(pooled.recall(once)[0], kind="stable")
    return Measured(
        method, found, similarity, ranks, pooled.recall(once)[0][order], pooled.precision(once)[0][order]
    )


def difference(one: Measured, other: Measured, name: str) -> tuple[float, float, float]:
    """By how much `one` is above `other` in a figure, and the interval of that over the same resamples.

    Paired: both are measured on the damages that were drawn, so that what makes a damage hard for both cancels out.
    """
    gain = one.figures[name] - other.figures[name]
    low, high = np.quantile(gain[1:], INTERVAL)
    return float(gain[0]), float(low), float(high)


def beyond_noise(one: Measured, other: Measured, name: str) -> bool:
    """Whether `one` is better than `other` in a figure by more than chance explains."""
    return difference(one, other, name)[1] > 0
