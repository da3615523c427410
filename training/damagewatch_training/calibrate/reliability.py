"""Whether a probability means what it says, on pairs weighted to the share of true ones in the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from damagewatch_training.evaluate import page

EDGES = (0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the bins: narrow where nearly all pairs are."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The pairs whose probability lies in one range: how many, their share of all weight, what was said and is."""

    least: float
    most: float
    pairs: int
    share: float
    said: float
    true: float


def bins(probability: NDArray[np.float64], same: NDArray[np.bool_], weight: NDArray[np.float64]) -> list[Bin]:
    """The bins that hold any pair, by rising probability. All arrays are (N,)."""
    place = np.clip(np.searchsorted(EDGES, probability, side="right") - 1, 0, len(EDGES) - 2)
    found = []
    for number, (least, most) in enumerate(pairwise(EDGES)):
        chosen = place == number
        total = weight[chosen].sum()
        if total > 0:
            said = float(probability[chosen] @ weight[chosen] / total)
            true = float(same[chosen] @ weight[chosen] / total)
            found.append(Bin(least, most, int(chosen.sum()), float(total / weight.sum()), said, true))
    return found


def expected_calibration_error(found: Sequence[Bin]) -> float:
    """The mean distance of what is said from what is true (ECE; Guo et al., ICML 2017), bins by their weight."""
    return round(sum(one.share * abs(one.said - one.true) for one in found), 5)


def scores(
    probability: NDArray[np.float64], same: NDArray[np.bool_], weight: NDArray[np.float64]
) -> dict[str, float]:
    """Brier score and log loss, weighted; lower is better."""
    share = weight / weight.sum()
    bounded = np.clip(probability, 1e-12, 1 - 1e-12)
    losses = np.where(same, -np.log(bounded), -np.log1p(-bounded))
    return {
        "brier": round(float(share @ (probability - same) ** 2), 6),
        "log_loss": round(float(share @ losses), 5),
    }


def recall_at_precision(
    probability: NDArray[np.float64], same: NDArray[np.bool_], weight: NDArray[np.float64], precision: float
) -> float:
    """The greatest share of the true pairs above a threshold at which so much of what is above it is true."""
    order = np.argsort(-probability, kind="stable")
    true, all_ = np.cumsum((weight * same)[order]), np.cumsum(weight[order])
    last = np.append(np.diff(probability[order]) != 0, True)  # a threshold takes all of equal probability
    enough = last & (true >= precision * all_)
    return round(float(true[enough].max(initial=0) / max(true[-1], 1e-12)), 4) if len(true) else 0.0


def write(
    path: Path, found: Sequence[Bin], quality: Mapping[str, float], base_rate: float, threshold: float
) -> None:
    """The reliability plot and its figures as one HTML page without scripts.

    Raises:
        OSError: The page cannot be written.
    """
    said, true = [one.said for one in found], [one.true for one in found]
    page.write(
        path,
        "Does the probability mean what it says?",
        [
            page.paragraph(
                "Pairs of damages held back from the fit, weighted so that the share of true ones is that of the"
                f" field, {base_rate:.2%} of the pairs on which the probability decides. An alert is raised from"
                f" {threshold:.3f} on."
            ),
            page.plot(
                {"ideal": ([0, 1], [0, 1]), "held back": (said, true)}, "probability said", "share true"
            ),
            page.heading("Bins"),
            page.table(
                ("probability", "pairs", "share of all", "said", "true"),
                [(f"{b.least:g} to {b.most:g}", b.pairs, b.share, b.said, b.true) for b in found],
            ),
            page.heading("Figures"),
            page.table(("figure", "value"), list(quality.items())),
        ],
    )
