from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import Box
from damagewatch.vision.regions import CONTEXT, LEAST, mirrored, window


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, int, int]:
    width, height = draw(st.integers(1, 6000)), draw(st.integers(1, 6000))
    x = sorted(draw(st.tuples(*[st.floats(0, width)] * 2)))
    y = sorted(draw(st.tuples(*[st.floats(0, height)] * 2)))
    return Box(x[0], y[0], x[1], y[1]), width, height


@given(boxes())
def test_window_lies_in_the_photo_and_around_the_box(case: tuple[Box, int, int]) -> None:
    box, width, height = case
    found = window(box, width, height)
    assert found.x0 >= 0
    assert found.y0 >= 0
    assert found.x1 <= width
    assert found.y1 <= height
    assert found.width >= 1
    assert found.height >= 1
    assert found.x0 <= box.x0
    assert found.y0 <= box.y0
    assert found.x1 >= box.x1
    assert found.y1 >= box.y1
    assert all(float(v).is_integer() for v in (found.x0, found.y0, found.x1, found.y1))


@given(st.floats(1, 2000), st.floats(1, 2000))
def test_window_away_from_the_border_has_context_and_shape(wide: float, high: float) -> None:
    box = Box(5000 - wide / 2, 5000 - high / 2, 5000 + wide / 2, 5000 + high / 2)
    found = window(box, 10_000, 10_000)
    least = LEAST * 10_000
    rounding = 1e-6  # of the box's own corners, which lie far from the origin
    assert found.width >= max(CONTEXT * wide, least) - rounding
    assert found.height >= max(CONTEXT * high, least) - rounding
    assert min(found.width, found.height) >= max(found.width, found.height) / 2 - 2
    assert max(found.width, found.height) <= max(CONTEXT * max(wide, high), least) + 2
    assert abs(found.centre[0] - 5000) <= 1
    assert abs(found.centre[1] - 5000) <= 1


def test_a_window_of_nearly_the_whole_photo_is_the_whole_photo() -> None:
    assert window(Box(250, 250, 500, 500), 800, 800) == Box(0, 0, 800, 800)
    assert window(Box(0, 0, 100, 100), 800, 800) == Box(0, 0, 250, 250)


@given(boxes())
def test_mirroring_twice_changes_nothing(case: tuple[Box, int, int]) -> None:
    box, width, _ = case
    again = mirrored(mirrored(box, width), width)
    assert abs(again.x0 - box.x0) < 1e-6
    assert abs(again.x1 - box.x1) < 1e-6
    assert (again.y0, again.y1) == (box.y0, box.y1)
