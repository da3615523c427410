"""Learns which matched features are telling: see `damagewatch.vision.distinctness`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from damagewatch.vision.distinctness import DIMENSION, Distinctness
from damagewatch_training.calibrate.evidence import Candidate

HIDDEN = 64
"""Of 8, 16, 32 and 64 units each told the true matches of other photos from the false ones better (AUC 0.775)."""
NETWORKS = 3
"""Whose odds are averaged: those of one move by a tenth from fit to fit."""
AT_MOST = 40
"""Matches of one registration that are learned from: a copy has hundreds."""
DOUBTFUL = 40
"""Inliers from which a pair that nobody judged may well be the same car: nothing is learned from it."""

_Layers = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]

_SCALE = 4.0
"""Of the inputs, whose values are about an eighth, while the network learns."""


def matches(pairs: Iterable[Candidate], seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Descriptors of matched points, float32 (N, 64), and whether they are of one car, (N,)."""
    rng = np.random.default_rng(seed)
    descriptors, same = [np.empty((0, DIMENSION), np.float32)], [np.empty(0, np.bool_)]
    taken = set()
    for pair in pairs:
        if not pair.same and pair.verdict is None and pair.geometry.inliers >= DOUBTFUL:
            continue
        key = pair.query.photo, pair.match.photo, pair.query.window, pair.match.window, pair.mirrored
        if key in taken:  # damages share windows
            continue
        taken.add(key)
        found = pair.geometry.descriptors
        descriptors.append(found[rng.permutation(len(found))[:AT_MOST]])
        same.append(np.full(len(descriptors[-1]), pair.same))
    return np.concatenate(descriptors), np.concatenate(same)


def learned(pairs: Sequence[Candidate], seed: int) -> Distinctness:
    """Small networks, each on as many matches of one car as of different ones; none where there are too few."""
    x, y = matches(pairs, seed)
    count = int(min(y.sum(), (~y).sum()))
    if count < DIMENSION:
        return Distinctness()
    rng = np.random.default_rng(seed)
    layers = []
    for number in range(NETWORKS):
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(y == side), count, replace=False) for side in (True, False)]
        )
        layers.append(_network(_SCALE * x[chosen], y[chosen], seed + number))
    hidden, hidden_bias, output, bias = (list(parts) for parts in zip(*layers, strict=True))
    # Side by side they are one network, whose output is the mean of theirs.
    return Distinctness.of(
        _SCALE * np.concatenate(hidden, axis=1),
        np.concatenate(hidden_bias),
        np.concatenate(output) / NETWORKS,
        float(np.mean(bias)),
    )


def _network(x: NDArray[np.float32], y: NDArray[np.bool_], seed: int) -> _Layers:
    network = MLPClassifier(
        (HIDDEN,),
        alpha=0.3,
        batch_size=min(512, len(y) // 2),
        learning_rate_init=3e-3,
        max_iter=20,
        tol=0,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many rounds are enough
        network.fit(x, y)
    (hidden, output), (hidden_bias, bias) = network.coefs_, network.intercepts_
    return hidden, hidden_bias, output[:, 0], float(bias[0])
