from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import AlertKind, Box, Match, Sighting, Signals
from damagewatch.vision import regions, verify
from damagewatch.vision.calibration import Calibration
from damagewatch.vision.closer import CloserLook, shared
from damagewatch.vision.looks import HOPELESS, HOPELESS_ALIGNMENT, Look, judge
from damagewatch.vision.perceive import Perceived, Perception

from . import pictures, sightings
from .models_folder import shipped
from .test_verify import IMAGE, POINTS, homography

SCENE = pictures.scene(800, 600, seed=4)
PART = Box(200, 150, 600, 450)


def perceive(image: pictures.Image, claim: str) -> Perceived:
    content = pictures.encoded(np.ascontiguousarray(image), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 85)
    return Perception(shipped()).perceive(pictures.claim_image(content, claim))


def crops_of(*photos: Perceived) -> Callable[[Sighting, Box], bytes | None]:
    by_photo = {photo.photo: photo.crops for photo in photos}
    return lambda sighting, window: by_photo[sighting.photo][window]


def close(*photos: Perceived) -> CloserLook:
    return CloserLook(shipped().local_features, crops_of(*photos))


def found_again(points: np.ndarray, others: np.ndarray, within: float = 2.0) -> float:
    """The share of points that have one of the others nearby."""
    distance = np.linalg.norm(points[:, None] - others[None], axis=2)
    return float((distance.min(axis=1) <= within).mean())


def test_features_of_a_part_lie_where_the_photo_has_them() -> None:
    seen = perceive(SCENE, "a")
    again = close(seen)(seen.sightings[0], PART, False)
    assert again is not None
    assert again.window == PART
    assert again.thumbnail.shape == (64, 64)
    points = again.features.points
    assert points.dtype == np.float32
    assert (points >= (PART.x0, PART.y0)).all() and (points <= (PART.x1, PART.y1)).all()
    photo = cv2.cvtColor(SCENE, cv2.COLOR_BGR2GRAY)
    part = cv2.resize(photo[150:450, 200:600], (64, 64), interpolation=cv2.INTER_AREA)
    assert verify.correlation(again.thumbnail, part) > 0.95
    known = seen.sightings[0].features.points
    inside = (known >= (PART.x0, PART.y0)).all(axis=1) & (known < (PART.x1, PART.y1)).all(axis=1)
    assert len(points) > 2 * inside.sum()  # the same number of features for a quarter of the photo
    assert found_again(known[inside], points, 4) > 0.5


def test_a_part_of_a_mirrored_photo_is_that_of_the_photo_that_was_mirrored() -> None:
    seen, flipped = perceive(SCENE, "a"), perceive(SCENE[:, ::-1], "b")
    part = Box(100, 150, 500, 450)
    turned = close(seen)(seen.mirrored(seen.sightings[0]), part, True)
    plain = close(flipped)(flipped.sightings[0], part, False)
    assert turned is not None and plain is not None
    assert turned.window == plain.window
    assert found_again(turned.features.points, plain.features.points) > 0.6
    assert verify.correlation(turned.thumbnail, plain.thumbnail) > 0.98


@pytest.mark.parametrize("crop", [None, b"", b"no picture at all", b"\xff\xd8\xff\xe0 broken"])
def test_a_crop_that_is_gone_or_broken_gives_no_closer_look(crop: bytes | None) -> None:
    sighting = sightings.whole(IMAGE, POINTS)
    assert CloserLook(shipped().local_features, lambda *_: crop)(sighting, PART, False) is None


def strict() -> Calibration:
    """Of which the first look at a close-up leaves the verdict open."""
    calibration = shipped().calibration
    thresholds = calibration.thresholds.model_copy(update={"same_damage": 0.99, "mirrored_cosine": 0.3})
    return calibration.model_copy(update={"thresholds": thresholds})


def test_a_close_up_that_the_first_look_leaves_open_alerts_whichever_came_first() -> None:
    wide, near = perceive(SCENE, "a"), perceive(SCENE[90:390, 120:520], "b")
    found: list[Match | None] = []
    for one, other in ((wide, near), (near, wide)):
        query, match = one.sightings[0], other.sightings[0]
        assert judge(query, match, strict()) is None
        found.append(judge(query, match, strict(), closer=close(wide, near)))
    first, second = found
    assert first is not None and second is not None
    assert first.kind is second.kind is not AlertKind.SIMILAR_DAMAGE
    assert first.probability == pytest.approx(second.probability, abs=1e-6)
    assert first.signals.inliers == second.signals.inliers
    assert first.query is wide.sightings[0]
    for x, y, u, v in first.points:  # in pixels of both photos, not of their parts
        assert (x - 120, y - 90) == pytest.approx((u, v), abs=6)


def test_a_mirrored_close_up_is_looked_at_closer_too() -> None:
    scene = pictures.scene(800, 600, seed=1)
    wide, near = perceive(scene, "a"), perceive(scene[90:360, 120:480][:, ::-1], "b")
    query, match = near.sightings[0], wide.sightings[0]
    assert judge(query, match, strict(), near.mirrored) is None
    found = judge(query, match, strict(), near.mirrored, closer=close(wide, near))
    assert found is not None
    assert found.mirrored
    for x, y, u, v in found.points:
        assert (360 - x + 120, y + 90) == pytest.approx((u, v), abs=6)


def test_nobody_looks_closer_where_the_first_look_decides_or_finds_nothing() -> None:
    def never(_sighting: Sighting, _part: Box, _mirrored: bool) -> Sighting:
        raise AssertionError("looked closer")

    seen, other = perceive(SCENE, "a"), perceive(pictures.scene(800, 600, seed=11), "b")
    copy = perceive(cv2.resize(SCENE, (640, 480)), "c")
    calibration = shipped().calibration
    assert judge(seen.sightings[0], copy.sightings[0], calibration, closer=never) is not None
    assert judge(seen.sightings[0], other.sightings[0], calibration, closer=never) is None


def test_what_is_promising() -> None:
    seen = sightings.whole(IMAGE, POINTS)
    nothing = verify.Geometry(
        np.eye(3), np.empty((0, 4), np.float32), POINTS.descriptors[:0], 0, 0, 0, 0, 0, 0
    )

    def promising(alignment: float, probability: float, geometry: verify.Geometry | None = nothing) -> bool:
        signals = Signals(0.5, 10, 0, 0.1, alignment, 0.5, 30)
        return Look(seen, seen, (seen, seen), False, geometry, signals, probability, None).promising

    assert promising(0.0, HOPELESS)
    assert promising(HOPELESS_ALIGNMENT, 0.0)
    assert not promising(HOPELESS_ALIGNMENT - 0.01, HOPELESS - 0.001)
    assert not promising(1.0, 1.0, None)


@given(
    st.floats(-30, 30), st.floats(0.3, 3), st.floats(-300, 300), st.floats(-300, 300), st.floats(-0.3, 0.3)
)
def test_what_both_show_lies_in_both_and_on_each_other(
    angle: float, scale: float, x: float, y: float, tilt: float
) -> None:
    matrix = homography(angle, scale, x, y, tilt)
    query, match = sightings.whole(IMAGE, POINTS), sightings.whole(IMAGE, POINTS, "b")
    geometry = verify.Geometry(matrix, np.empty((0, 4), np.float32), POINTS.descriptors[:0], 0, 0, 0, 0, 0, 0)
    parts = shared(query, match, geometry)
    if parts is None:
        return
    for part, sighting in zip(parts, (query, match), strict=True):
        assert part.intersection(sighting.window) == part
        assert max(part.width, part.height) >= max(sighting.window.width, sighting.window.height) / 8
    moved = verify.bounds(matrix, parts[0])
    assert moved is not None
    common = moved.intersection(match.window)
    assert common is not None
    edges = zip(
        (common.x0, common.y0, common.x1, common.y1),
        (parts[1].x0, parts[1].y0, parts[1].x1, parts[1].y1),
        strict=True,
    )
    assert all(abs(one - other) <= 1.01 for one, other in edges)


def test_windows_that_show_the_same_are_not_looked_at_again() -> None:
    query, match = sightings.whole(IMAGE, POINTS), sightings.whole(IMAGE, POINTS, "b")
    geometry = verify.Geometry(
        np.eye(3), np.empty((0, 4), np.float32), POINTS.descriptors[:0], 0, 0, 0, 0, 0, 0
    )
    assert shared(query, match, geometry) is None
    half = replace(query, window=Box(0, 0, 320, 240))
    assert shared(half, match, geometry) == (half.window, half.window)


def test_a_box_that_reaches_behind_the_camera_has_no_bounds() -> None:
    tilted = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    assert verify.bounds(tilted, Box(0, 0, 200, 100)) is None
    assert verify.bounds(np.eye(3), Box(1, 2, 3, 4)) == Box(1, 2, 3, 4)
    assert regions.mirrored(Box(1, 2, 3, 4), 10) == Box(7, 2, 9, 4)


@pytest.mark.parametrize("part", [Box(0, 0, 1092, 819), Box(500, 100, 1092, 819), Box(0, 400, 600, 819)])
def test_a_part_at_the_edge_of_a_mirrored_photo_that_was_made_smaller(part: Box) -> None:
    """1092 pixels become 768: their edge is 768 and a hair."""
    scene = pictures.scene(1092, 819, seed=4)
    seen, flipped = perceive(scene, "a"), perceive(scene[:, ::-1], "b")
    turned = close(seen)(seen.mirrored(seen.sightings[0]), part, True)
    plain = close(flipped)(flipped.sightings[0], part, False)
    assert turned is not None and plain is not None
    assert verify.correlation(turned.thumbnail, plain.thumbnail) > 0.95
    assert found_again(turned.features.points, plain.features.points) > 0.5
