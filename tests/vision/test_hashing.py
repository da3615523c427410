from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.vision.decode import decode
from damagewatch.vision.hashing import distance, perceptual_hashes

from . import pictures


def test_survives_encoding_and_scaling_and_tells_photos_apart() -> None:
    hashes = {}
    for seed in range(8):
        image = pictures.scene(seed=seed)
        hashes[seed], _ = perceptual_hashes(image)
        again = decode(pictures.encoded(cv2.resize(image, (500, 375)), ".jpg", 1, 60)).image
        assert distance(hashes[seed], perceptual_hashes(again)[0]) <= 3
    apart = [distance(hashes[a], hashes[b]) for a in hashes for b in range(a)]
    assert min(apart) > 10


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(40, 700), st.integers(40, 700))
def test_mirrored_hash_is_that_of_the_mirrored_photo(seed: int, width: int, height: int) -> None:
    # Sizes that stay even while they are halved: an odd last column would be dropped on one side only.
    image = pictures.scene(width // 32 * 32, height // 32 * 32, seed)
    plain, mirrored = perceptual_hashes(image)
    flipped, back = perceptual_hashes(np.ascontiguousarray(image[:, ::-1]))
    assert distance(mirrored, flipped) <= 2
    assert distance(plain, back) <= 2
    assert 0 <= plain < 2**64


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_distance_is_a_metric(one: int, other: int) -> None:
    assert distance(one, one) == 0
    assert distance(one, other) == distance(other, one) <= 64
    assert distance(one, other) + distance(other, 0) >= distance(one, 0)
