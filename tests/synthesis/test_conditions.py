import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.synthesis.conditions import (
    STEP,
    Condition,
    Movement,
    Relief,
    dirt,
    looked_up,
    messenger,
    occlusion,
    reflection,
    rephotograph_under,
)
from damagewatch.synthesis.rephotograph import rephotograph, standpoint

SEEDS = st.integers(0, 2**32 - 1)
MOVING = st.sets(st.sampled_from([Condition.CURVED, Condition.SCREEN]))
SOME = st.sets(st.sampled_from(Condition))


def scene(width: int, height: int) -> np.ndarray:
    small = np.random.default_rng(7).integers(90, 150, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def marked(photo: np.ndarray, x: float, y: float) -> np.ndarray:
    drawn = photo.copy()
    # shift=4: sixteenths of a pixel, counted from the centre of the first one.
    centre = round((x - 0.5) * 16), round((y - 0.5) * 16)
    cv2.circle(drawn, centre, 5 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return drawn


@settings(max_examples=25)
@given(seed=SEEDS, mirror=st.booleans(), conditions=MOVING, strength=st.floats(0, 1))
def test_a_marker_moves_where_the_map_says(
    seed: int, mirror: bool, conditions: set[Condition], strength: float
) -> None:
    width, height = 320, 240
    plain, (x, y) = scene(width, height), (130.0, 100.0)
    before, after = (
        rephotograph_under(photo, np.random.default_rng(seed), conditions, strength, mirror=mirror)
        for photo in (plain, marked(plain, x, y))
    )
    expected = after.movement.forward(np.array([[x, y]]))[0]
    if not (14 < expected[0] < width - 14 and 14 < expected[1] < height - 14):
        return
    change = np.abs(after.image.astype(float) - before.image.astype(float)).sum(axis=2)
    rows, columns = np.mgrid[0.5:height, 0.5:width]
    near = np.hypot(columns - expected[0], rows - expected[1]) < 16
    weight = np.where(near & (change > 0.3 * change[near].max()), change, 0)
    found = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
    assert np.hypot(found[0] - expected[0], found[1] - expected[1]) < 1.0


@settings(max_examples=50)
@given(seed=SEEDS, mirror=st.booleans(), conditions=MOVING, points=st.integers(1, 20))
def test_there_and_back_is_where_it_was(
    seed: int, mirror: bool, conditions: set[Condition], points: int
) -> None:
    rng = np.random.default_rng(seed)
    movement = rephotograph_under(scene(96, 128), rng, conditions, mirror=mirror).movement
    at = rng.uniform((0, 0), (96, 128), (points, 2))
    assert np.abs(movement.forward(movement.backward(at)) - at).max() < 1e-3


@settings(max_examples=30)
@given(seed=SEEDS, conditions=MOVING)
def test_the_stored_map_is_the_movement_between_its_points_too(seed: int, conditions: set[Condition]) -> None:
    movement = rephotograph_under(scene(320, 240), np.random.default_rng(seed), conditions).movement
    at = np.random.default_rng(seed).uniform((0, 0), (319, 239), (50, 2))
    grid = movement.grid()
    assert grid.shape == (240 // STEP + 1, 320 // STEP + 1, 2)
    assert np.abs(looked_up(grid, at) - movement.forward(at)).max() < 0.1


def test_a_flat_panel_is_moved_by_its_homography_and_a_curved_one_by_none() -> None:
    seen = standpoint(320, 240, np.random.default_rng(1), 1.0)
    flat, curved = Movement(seen, mirror=True), Movement(seen, Relief(0.3, (1e-3, 0.0)))
    at = np.array([[10.0, 20.0], [300.0, 200.0]])
    assert flat.homography is not None
    assert np.allclose(cv2.perspectiveTransform(at[None], flat.homography)[0], flat.forward(at))
    assert curved.homography is None
    assert np.allclose(
        curved.forward(np.array([[160.0, 120.0]])), Movement(seen).forward(np.array([[160.0, 120.0]]))
    )
    assert np.abs(curved.forward(at) - Movement(seen).forward(at)).max() > 1


def test_without_conditions_it_stands_where_rephotograph_stands() -> None:
    photo = scene(160, 120)
    view = rephotograph_under(photo, np.random.default_rng(5))
    assert np.allclose(view.movement.homography, rephotograph(photo, np.random.default_rng(5)).homography)


@settings(max_examples=20)
@given(seed=SEEDS, width=st.integers(1, 120), height=st.integers(1, 120), conditions=SOME)
def test_any_photo_under_any_conditions_stays_a_photo(
    seed: int, width: int, height: int, conditions: set[Condition]
) -> None:
    photo = np.full((height, width, 3), 160, np.uint8)
    view, again = (rephotograph_under(photo, np.random.default_rng(seed), conditions) for _ in range(2))
    assert view.image.shape == photo.shape
    assert view.image.dtype == np.uint8
    assert view.visible.shape == (height, width)
    assert set(np.unique(view.visible)) <= {0, 255}
    assert 20 <= view.jpeg_quality <= 95
    assert np.array_equal(view.image, again.image)
    assert (photo == 160).all()


def test_what_is_hidden_or_was_outside_is_not_visible() -> None:
    photo = scene(200, 160)
    view = rephotograph_under(photo, np.random.default_rng(3))
    rows, columns = np.mgrid[0.5:160, 0.5:200]
    came_from = view.movement.backward(np.column_stack([columns.ravel(), rows.ravel()]))
    inside = ((came_from >= 0) & (came_from < (200, 160))).all(axis=1).reshape(160, 200)
    assert ((view.visible > 0) == inside).mean() > 0.99
    _, hidden = occlusion(photo, np.random.default_rng(3))
    covered = rephotograph_under(photo, np.random.default_rng(3), {Condition.OCCLUSION})
    assert 0 < (hidden > 0).mean() < 0.5
    assert (covered.visible > 0).mean() < (view.visible > 0).mean()


@pytest.mark.parametrize("change", [dirt, reflection, messenger])
def test_each_change_shows_and_leaves_the_photo_given_alone(change) -> None:  # type: ignore[no-untyped-def]
    photo = np.random.default_rng(0).integers(60, 200, (90, 121, 3), dtype=np.uint8)
    kept = photo.copy()
    changed = change(photo, np.random.default_rng(1))
    assert changed.shape == photo.shape
    assert np.abs(changed.astype(int) - photo).mean() > 1
    assert np.array_equal(photo, kept)
