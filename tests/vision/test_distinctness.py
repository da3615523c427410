from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from damagewatch.vision.calibration import Calibration
from damagewatch.vision.distinctness import DIMENSION, Distinctness


def network(
    hidden: int, seed: int = 0, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(seed)
    layers = (rng.normal(size=(DIMENSION, hidden)), rng.normal(size=hidden), rng.normal(size=hidden))
    first, bias, output = (scale * layer for layer in layers)
    return first, bias, output, scale * 0.25


@given(st.integers(1, 8), st.integers(0, 100), st.integers(1, 20))
def test_it_is_the_textbook_network(hidden: int, seed: int, matches: int) -> None:
    first, bias, output, last = network(hidden, seed)
    descriptors = np.random.default_rng(seed).normal(size=(matches, DIMENSION)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    expected = []
    for descriptor in descriptors:
        units = [max(0.0, descriptor @ first[:, unit] + bias[unit]) for unit in range(hidden)]
        expected.append(1 / (1 + np.exp(-(np.dot(units, output) + last))))
    made = Distinctness.of(first, bias, output, last)
    # The weights are kept in half precision.
    assert made.each(descriptors) == pytest.approx(np.array(expected), abs=0.02)
    assert made.mean(descriptors) == pytest.approx(np.mean(expected), abs=0.02)


def test_without_a_network_every_match_is_as_telling() -> None:
    assert Distinctness().mean(np.zeros((7, DIMENSION), np.float32)) == 0.5


def test_nothing_matched_tells_nothing() -> None:
    nothing = np.empty((0, DIMENSION), np.float32)
    assert Distinctness().mean(nothing) == Distinctness.of(*network(4)).mean(nothing) == 0.0


def test_wild_weights_still_give_shares() -> None:
    wild = Distinctness.of(*network(16, scale=1000))
    found = wild.each(np.random.default_rng(1).normal(size=(50, DIMENSION)).astype(np.float32))
    assert ((found >= 0) & (found <= 1)).all()


def test_it_survives_the_manifest_and_is_part_of_the_version() -> None:
    calibration = Calibration(distinctness=Distinctness.of(*network(4)))
    again = Calibration.model_validate_json(calibration.model_dump_json())
    assert again == calibration
    assert again.version == calibration.version != Calibration().version


@pytest.mark.parametrize(
    "weights",
    [
        "",
        "no base64!",
        base64.b64encode(bytes(10)).decode(),
        base64.b64encode(np.full(DIMENSION * 2 + 5, np.nan, "<f2").tobytes()).decode(),
    ],
    ids=["none", "garbage", "too few", "not finite"],
)
def test_weights_that_cannot_be_meant_are_refused(weights: str) -> None:
    with pytest.raises(ValidationError, match="weights"):
        Distinctness(hidden=2, weights=weights)
