from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from damagewatch.domain import Box, LocalFeatures
from damagewatch.vision.verify import (
    MIN_INLIERS,
    correlation,
    focus,
    mirrored,
    mutual_neighbours,
    verify,
)

from . import pictures, sightings

IMAGE = pictures.scene(sightings.WIDTH, sightings.HEIGHT)
POINTS = sightings.features(300)


def homography(angle: float, scale: float, x: float, y: float, tilt: float) -> np.ndarray:
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((sightings.WIDTH / 2, sightings.HEIGHT / 2), angle, scale)
    turn[:2, 2] += x, y
    lean = np.eye(3)
    lean[2, 0] = tilt / sightings.WIDTH
    return turn @ lean


def seen_from(matrix: np.ndarray) -> pictures.Image:
    size = sightings.WIDTH, sightings.HEIGHT
    return np.asarray(cv2.warpPerspective(IMAGE, matrix, size, borderMode=cv2.BORDER_REFLECT), np.uint8)


@settings(max_examples=40)
@given(st.floats(-30, 30), st.floats(0.6, 1.6), st.floats(-60, 60), st.floats(-60, 60), st.floats(-0.2, 0.2))
def test_another_standpoint_is_found(angle: float, scale: float, x: float, y: float, tilt: float) -> None:
    matrix = homography(angle, scale, x, y, tilt)
    query = sightings.whole(IMAGE, POINTS)
    match = sightings.whole(seen_from(matrix), sightings.moved(POINTS, matrix, 0.7, 0.4), "b")
    found = verify(query, match)
    assert found is not None
    assert 0.5 * len(POINTS) <= found.inliers <= 0.7 * len(POINTS)
    assert found.inlier_ratio == pytest.approx(found.inliers / len(POINTS))
    corners = np.array([[[100, 100], [540, 100], [540, 380], [100, 380]]], float)
    error = cv2.perspectiveTransform(corners, found.homography) - cv2.perspectiveTransform(corners, matrix)
    assert np.abs(error).max() < 4
    assert found.alignment > 0.75
    # Each pair of points does what the homography says.
    mapped = cv2.perspectiveTransform(found.points[None, :, :2].astype(float), found.homography)[0]
    assert np.abs(mapped - found.points[:, 2:]).max() < 20


def test_the_same_pair_always_gives_the_same_answer() -> None:
    matrix = homography(10, 1.1, 5, 5, 0.1)
    query = sightings.whole(IMAGE, POINTS)
    match = sightings.whole(seen_from(matrix), sightings.moved(POINTS, matrix, 1, 0.6), "b")
    first, second = verify(query, match), verify(query, match)
    assert first is not None
    assert second is not None
    assert (first.homography == second.homography).all()
    assert (first.points == second.points).all()


@given(st.integers(0, 1000))
@settings(max_examples=40)
def test_strangers_are_not_found(seed: int) -> None:
    """Mutual neighbours at random places agree with no sane homography."""
    stray = sightings.moved(POINTS, np.eye(3), outliers=1.0, seed=seed)
    found = verify(sightings.whole(IMAGE, POINTS), sightings.whole(IMAGE, stray, "b"))
    assert found is None or found.inliers < 20


def test_too_few_or_no_features_say_nothing() -> None:
    for count in (0, 1, 5, MIN_INLIERS - 1):
        few = LocalFeatures(POINTS.points[:count], POINTS.descriptors[:count])
        assert verify(sightings.whole(IMAGE, few), sightings.whole(IMAGE, POINTS, "b")) is None
        assert verify(sightings.whole(IMAGE, POINTS), sightings.whole(IMAGE, few, "b")) is None


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((300, 2)),
        np.stack([np.linspace(0, 600, 300), np.linspace(0, 400, 300)], axis=1),
        np.full((300, 2), np.float32(1e30)),
    ],
    ids=["one place", "one line", "far away"],
)
def test_degenerate_points_do_no_harm(points: np.ndarray) -> None:
    odd = LocalFeatures(points.astype(np.float32), POINTS.descriptors)
    for one, other in ((odd, POINTS), (POINTS, odd), (odd, odd)):
        verify(sightings.whole(IMAGE, one), sightings.whole(IMAGE, other, "b"))


def test_a_mirrored_copy_is_found_by_the_mirrored_query_only() -> None:
    flip = np.array([[-1.0, 0, sightings.WIDTH], [0, 1, 0], [0, 0, 1]])
    query = sightings.whole(IMAGE, POINTS)
    turned = np.ascontiguousarray(IMAGE[:, ::-1])
    match = sightings.whole(turned, sightings.moved(POINTS, flip), "b")
    assert verify(query, match) is None
    found = verify(mirrored(query, sightings.moved(POINTS, flip), match.photo_hash), match)
    assert found is not None
    assert np.abs(found.homography - np.eye(3)).max() < 1e-3
    assert found.alignment > 0.95
    assert found.overlap > 0.95
    assert found.perspective < 1e-3


def test_focus_counts_what_lies_on_both_damages() -> None:
    query = sightings.whole(IMAGE, POINTS)
    box = Box(200, 150, 420, 330)
    here = sightings.damaged(query, IMAGE, box)
    same = verify(here, sightings.damaged(replace(query), IMAGE, box))
    assert same is not None
    around = focus(here)
    x, y = POINTS.points.T
    inside = (x >= around.x0) & (x < around.x1) & (y >= around.y0) & (y < around.y1)
    assert same.focus_inliers == inside.sum() < same.inliers
    apart = verify(here, sightings.damaged(query, IMAGE, Box(10, 10, 90, 80)))
    assert apart is None or apart.focus_inliers < 5


def test_alignment_is_of_the_damage_not_of_its_surroundings() -> None:
    """The same wall behind another car: all agrees but what lies in the focus."""
    box = Box(240, 180, 400, 300)
    other = IMAGE.copy()
    other[150:330, 210:430] = pictures.scene(220, 180, seed=9)
    query = sightings.damaged(sightings.whole(IMAGE, POINTS), IMAGE, box)
    true = verify(query, sightings.damaged(sightings.whole(IMAGE, POINTS, "b"), IMAGE, box))
    false = verify(query, sightings.damaged(sightings.whole(other, POINTS, "b"), other, box))
    assert true is not None
    assert false is not None
    assert true.alignment > 0.99
    assert false.alignment < 0.5


def test_a_cut_out_before_another_background_is_the_same_picture_within() -> None:
    """Of whole photos what the matched points enclose is compared; where that is a speck, all that both show."""
    inside = np.zeros(IMAGE.shape[:2], bool)
    inside[60:420, 80:560] = True
    other = np.asarray(cv2.flip(cv2.GaussianBlur(IMAGE, (0, 0), 3), -1), np.uint8)
    cut_out = np.where(inside[..., None], IMAGE, other)
    x, y = POINTS.points.astype(int).T

    def alignment(kept: np.ndarray) -> float:
        seen = LocalFeatures(POINTS.points[kept], POINTS.descriptors[kept])
        found = verify(sightings.whole(cut_out, seen, "b"), sightings.whole(IMAGE, POINTS))
        assert found is not None
        return found.alignment

    assert alignment(inside[y, x]) > 0.98
    assert alignment(np.hypot(x - 320, y - 240) < 90) < 0.9


def test_alignment_is_the_same_from_the_closer_and_from_the_wider_photo() -> None:
    """A window of less of the car holds detail that the other cannot have."""
    fine = np.asarray(
        cv2.resize(pictures.scene(2 * sightings.WIDTH, 2 * sightings.HEIGHT, seed=4), (1280, 960)), np.uint8
    )
    wider = np.asarray(
        cv2.resize(fine, (sightings.WIDTH, sightings.HEIGHT), interpolation=cv2.INTER_AREA), np.uint8
    )
    closer = fine[240:720, 320:960]
    matrix = np.array([[2.0, 0, -320], [0, 2, -240], [0, 0, 1]])
    inside = (np.abs(POINTS.points - (320, 240)) < (155, 115)).all(axis=1)
    near = LocalFeatures(POINTS.points[inside], POINTS.descriptors[inside])
    query, match = sightings.whole(wider, near), sightings.whole(closer, sightings.moved(near, matrix), "b")
    one, other = verify(query, match), verify(match, query)
    assert one is not None
    assert other is not None
    assert one.alignment == pytest.approx(other.alignment, abs=0.01)
    assert one.alignment > 0.97


def test_a_crop_covers_part_of_the_original() -> None:
    part = np.ascontiguousarray(IMAGE[120:360, 160:480])
    shift = np.array([[1.0, 0, -160], [0, 1, -120], [0, 0, 1]])
    query, crop = sightings.whole(IMAGE, POINTS), sightings.whole(part, sightings.moved(POINTS, shift), "b")
    found = verify(query, crop)
    assert found is not None
    assert found.overlap == pytest.approx(0.25, abs=0.03)
    assert found.alignment > 0.7
    assert found.perspective < 0.01


@given(st.integers(0, 500))
@settings(max_examples=30)
def test_mutual_neighbours_are_those_of_a_plain_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = sightings.features(40, seed), sightings.features(30, seed + 1)
    shared = rng.permutation(30)[:12]
    other.descriptors[shared] = one.descriptors[rng.permutation(40)[:12]]
    cosine = one.descriptors.astype(float) @ other.descriptors.T.astype(float) / 127**2
    expected = {
        (i, int(j))
        for i, j in enumerate(cosine.argmax(1))
        if cosine[:, j].argmax() == i and cosine[i, j] >= 0.82
    }
    found = mutual_neighbours(one, other)
    assert set(zip(*(index.tolist() for index in found), strict=True)) == expected
    assert (np.diff(cosine[found]) <= 1e-6).all()


@given(arrays.arrays(np.uint8, (2, 50)))
def test_correlation_is_bounded_and_blind_to_gain(values: np.ndarray) -> None:
    one, other = values
    assert -1 <= correlation(one, other) <= 1
    assert correlation(one, other) == pytest.approx(correlation(other, one))
    brighter = one.astype(float) * 3 + 17
    assert correlation(one, brighter) == pytest.approx(1.0 if one.std() > 0 else 0.0)
