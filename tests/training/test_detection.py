"""What a detector reports where nothing is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo as Decoded
from damagewatch_training.data.sources import Label, Photo
from damagewatch_training.evaluate.detection import PART, undamaged

WIDTH, HEIGHT = 160, 120


def labelled(*boxes: Box) -> tuple[Photo, Decoded]:
    """A photo that is white on its damages and black elsewhere."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for box in boxes:
        image[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = 255
    photo = Photo("none", Path("none.jpg"), tuple(Label((), box) for box in boxes))
    return photo, Decoded(image, WIDTH, HEIGHT, 1.0)


@given(st.lists(st.tuples(st.integers(0, 139), st.integers(0, 99), st.integers(1, 20)), max_size=4))
def test_no_labelled_damage_is_in_the_part_without_damage(places: list[tuple[int, int, int]]) -> None:
    part = undamaged(*labelled(*(Box(x, y, x + size, y + size) for x, y, size in places)))
    if part is not None:
        assert (part.width, part.height) == (PART * WIDTH, PART * HEIGHT)
        assert not part.image.any()


def test_a_photo_that_is_damaged_all_over_has_no_such_part() -> None:
    assert undamaged(*labelled(Box(70, 50, 90, 70))) is None
    assert undamaged(*labelled(Box(0, 0, 20, 20))) is not None
