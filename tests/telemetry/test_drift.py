import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.telemetry.drift import Drift, spread_of

RNG = np.random.default_rng(3)


def photos(count: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.normal(size=(count, 16)) + shift).astype(np.float32)


def drift(window: int = 500, least: int = 50) -> Drift:
    return Drift(np.zeros(16, np.float32), 4.0, window, least)  # of 16 values of spread 1 each


def test_nothing_is_told_of_a_few_photos() -> None:
    seen = drift()
    for photo in photos(49):
        seen.add(photo)
    assert math.isnan(seen.mean_shift())
    assert math.isnan(seen.spread())
    seen.add(photos(1)[0])
    assert not math.isnan(seen.mean_shift())


def test_photos_like_the_reference_do_not_drift() -> None:
    seen = drift()
    for photo in photos(500):
        seen.add(photo)
    assert seen.mean_shift() < 0.1
    assert abs(seen.spread() - 1) < 0.05


def test_others_do_and_the_first_are_forgotten() -> None:
    seen = drift()
    for photo in [*photos(500), *photos(500, shift=2.0, scale=0.5)]:
        seen.add(photo)
    assert abs(seen.mean_shift() - 2.0) < 0.1  # 2 in each of 16 values: 8, over a spread of 4
    assert abs(seen.spread() - 0.5) < 0.05


@given(st.integers(1, 40), st.integers(0, 100))
def test_the_window_holds_the_last_photos(window: int, extra: int) -> None:
    given_ = photos(window + extra)
    seen = Drift(np.zeros(16, np.float32), 1.0, window, least=1)
    for photo in given_:
        seen.add(photo)
    last = given_[-window:].astype(np.float64)
    assert np.isclose(seen.mean_shift(), np.linalg.norm(last.mean(axis=0)))
    assert np.isclose(seen.spread(), spread_of(last))
