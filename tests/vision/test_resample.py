from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo
from damagewatch.vision.resample import cut, fitted

# A picture whose pixels say where they are: red is x, green is y, a grey level being a pixel.
SIDE = 240
_y, _x = np.mgrid[0:SIDE, 0:SIDE]
PLACES = np.stack([np.zeros_like(_x), _y, _x], axis=2).astype(np.uint8)


@given(
    st.floats(0, 140) | st.integers(0, 140), st.floats(0, 140) | st.integers(0, 140),
    st.floats(20, 100) | st.integers(20, 100), st.floats(20, 100) | st.integers(20, 100),
    st.integers(8, 100), st.integers(8, 100), st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_every_pixel_shows_its_place(
    x: float, y: float, wide: float, high: float, width: int, height: int, reduction: int
) -> None:
    reduced = cv2.resize(PLACES, (SIDE // reduction, SIDE // reduction), interpolation=cv2.INTER_AREA)
    photo = Photo(np.asarray(reduced, np.uint8), SIDE, SIDE, 1 / reduction)
    image = cut(photo, Box(x, y, x + wide, y + high), width, height)
    assert image.shape == (height, width, 3)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    # At the edge of a photo the outermost pixels repeat.
    inner = np.s_[2:-2, 2:-2]
    for found, wanted in (
        (image[..., 2], x + columns * wide / width),
        (image[..., 1], y + rows * high / height),
    ):
        off = (found + 0.5 - wanted)[inner]
        assert abs(off.mean()) < 1.1  # half a grey level at each of reducing, halving and warping
        assert np.abs(off).max() < 2 + reduction


def test_fine_stripes_become_grey_instead_of_aliasing() -> None:
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    small = cut(Photo(stripes, 640, 640, 1.0), Box(0, 0, 640, 640), 100, 100)
    assert np.abs(small.astype(int) - 127).max() <= 2


@given(st.floats(1, 5000), st.floats(1, 5000), st.integers(1, 800))
def test_fitted_keeps_the_shape(width: float, height: float, size: int) -> None:
    wide, high = fitted(Box(0, 0, width, height), size)
    assert max(wide, high) == size
    assert min(wide, high) >= 1
    assert abs(wide * height - high * width) <= max(width, height)
