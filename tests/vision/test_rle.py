from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from damagewatch.vision import rle


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_round_trip(mask: np.ndarray) -> None:
    encoded = rle.encode(mask)
    assert encoded["size"] == list(mask.shape)
    assert sum(encoded["counts"]) == mask.size
    assert sum(encoded["counts"][1::2]) == mask.sum()
    assert 0 not in encoded["counts"][1:]
    assert (rle.decode(encoded) == mask).all()


def test_counts_run_down_the_columns_and_begin_with_zeros() -> None:
    mask = np.array([[1, 0], [1, 0], [0, 1]], bool)
    assert rle.encode(mask) == {"size": [3, 2], "counts": [0, 2, 3, 1]}


@given(st.lists(st.integers(0, 9), max_size=8))
def test_runs_that_do_not_fit_are_refused(counts: list[int]) -> None:
    if sum(counts) != 12:
        with pytest.raises(ValueError, match="sum to the size"):
            rle.decode({"size": [3, 4], "counts": counts})


def test_outlines_are_filled() -> None:
    mask = rle.fill([((2, 1), (6, 1), (6, 4), (2, 4))], 10, 8)
    assert mask.shape == (8, 10)
    assert mask[1:4, 2:6].all()
    assert not mask[:, 8:].any()
    assert not mask[6:].any()
