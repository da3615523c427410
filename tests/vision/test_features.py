from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.vision.features import quantise, select


def maps(seed: int, rows: int = 4, columns: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(64, rows, columns)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=0)
    logits = rng.normal(0, 3, size=(65, rows, columns)).astype(np.float32)
    reliability = rng.uniform(0.1, 1, size=(rows, columns)).astype(np.float32)
    return descriptors, logits, reliability


def by_the_book(
    descriptors: np.ndarray, logits: np.ndarray, reliability: np.ndarray
) -> list[tuple[float, int, int, np.ndarray]]:
    """XFeat's `detectAndCompute`, pixel by pixel: score, x, y, descriptor; strongest first."""
    _, rows, columns = logits.shape
    heat = np.zeros((rows * 8, columns * 8))
    for row in range(rows):
        for column in range(columns):
            exponentials = np.exp(logits[:, row, column].astype(float))
            heat[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = (
                exponentials[:64] / exponentials.sum()
            ).reshape(8, 8)

    def sample(image: np.ndarray, x: int, y: int) -> np.ndarray:
        # grid_sample(align_corners=False, zeros outside) at 2 x / (W - 1) - 1
        fx, fy = x * columns / (columns * 8 - 1) - 0.5, y * rows / (rows * 8 - 1) - 0.5
        total = np.zeros(len(image))
        for r in (math.floor(fy), math.floor(fy) + 1):
            for c in (math.floor(fx), math.floor(fx) + 1):
                if 0 <= r < rows and 0 <= c < columns:
                    total += image[:, r, c] * (1 - abs(fx - c)) * (1 - abs(fy - r))
        return total

    found = []
    for y in range(rows * 8):
        for x in range(columns * 8):
            around = heat[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            if heat[y, x] > 0.05 and heat[y, x] == around.max():
                descriptor = sample(descriptors, x, y)
                score = heat[y, x] * sample(reliability[None], x, y)[0]
                found.append((score, x, y, descriptor / np.linalg.norm(descriptor)))
    return sorted(found, key=lambda f: -f[0])


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_key_points_are_those_of_xfeat(seed: int) -> None:
    given_maps = maps(seed)
    expected = by_the_book(*given_maps)
    points, descriptors = select(*given_maps, (40, 32), 512)
    assert [tuple(p) for p in points.astype(int)] == [(x, y) for _, x, y, _ in expected]
    for descriptor, (_, _, _, wanted) in zip(descriptors, expected, strict=True):
        assert np.abs(descriptor - wanted).max() < 1e-4


def test_the_strongest_are_kept_and_the_margin_is_left_out() -> None:
    given_maps = maps(3)
    everything, _ = select(*given_maps, (40, 32), 512)
    best, _ = select(*given_maps, (40, 32), 5)
    assert (best == everything[:5]).all()
    inside, _ = select(*given_maps, (17, 32), 512)
    assert (inside == everything[everything[:, 0] < 17]).all()
    nothing, descriptors = select(*given_maps, (0, 0), 512)
    assert nothing.shape == (0, 2)
    assert descriptors.shape == (0, 64)


def test_quantised_descriptors_keep_their_angles() -> None:
    descriptors = maps(1)[0].reshape(64, -1).T
    coarse = quantise(descriptors).astype(np.float32) / 127
    assert np.abs(coarse @ coarse.T - descriptors @ descriptors.T).max() < 0.02
