from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from damagewatch.domain import AlertKind, Box, DamageType, LocalFeatures, Match, Sighting, Signals
from damagewatch.vision.calibration import FEATURES, Calibration, Logistic, Thresholds, features
from damagewatch.vision.distinctness import Distinctness
from damagewatch.vision.looks import at_photos, compared, judge, most_telling
from damagewatch.vision.verify import mirrored

from . import pictures, sightings
from .test_verify import IMAGE, POINTS, homography, seen_from

CALIBRATION = Calibration()
QUERY = sightings.whole(IMAGE, POINTS)
NOTHING = LocalFeatures(np.empty((0, 2), np.float32), np.empty((0, 64), np.int8))


def turned(sighting: Sighting) -> Sighting:
    flip = np.array([[-1.0, 0, sightings.WIDTH], [0, 1, 0], [0, 0, 1]])
    return mirrored(sighting, sightings.moved(sighting.features, flip), 0)


def never(_: Sighting) -> Sighting:
    raise AssertionError("the mirrored query was asked for")


def unlike(sighting: Sighting) -> Sighting:
    """With an embedding at a right angle to the others."""
    embedding = np.zeros(8, np.float32)
    embedding[1] = 1
    return replace(sighting, embedding=embedding)


def test_the_same_bytes_are_a_duplicate_whatever_else() -> None:
    copy = replace(QUERY, features=NOTHING)
    found = judge(QUERY, copy, CALIBRATION, never)
    assert found is not None
    assert (found.kind, found.probability, found.mirrored) == (AlertKind.DUPLICATE_PHOTO, 1.0, False)


def test_a_copy_is_a_duplicate_and_another_standpoint_the_same_damage() -> None:
    for matrix, kind in (
        (np.diag([0.9, 0.9, 1.0]), AlertKind.DUPLICATE_PHOTO),
        (homography(8, 1.1, 10, 5, 0.25), AlertKind.SAME_DAMAGE),
    ):
        again = sightings.whole(seen_from(matrix), sightings.moved(POINTS, matrix, 0.3, 0.2), "b")
        found = judge(QUERY, again, CALIBRATION, never)
        assert found is not None
        assert found.kind is kind
        assert found.probability > CALIBRATION.thresholds.same_damage
        assert len(found.homography) == 9
        assert 0 < len(found.points) <= 200


def test_a_mirrored_copy_is_found_and_speaks_of_the_photo_as_it_is() -> None:
    flip = np.array([[-1.0, 0, sightings.WIDTH], [0, 1, 0], [0, 0, 1]])
    copy = sightings.whole(np.ascontiguousarray(IMAGE[:, ::-1]), sightings.moved(POINTS, flip), "b")
    found = judge(QUERY, copy, CALIBRATION, turned)
    assert found is not None
    assert (found.kind, found.mirrored) == (AlertKind.DUPLICATE_PHOTO, True)
    assert found.query is QUERY
    for x, y, u, v in found.points:
        assert u == pytest.approx(sightings.WIDTH - x, abs=1)
        assert v == pytest.approx(y, abs=1)
    assert judge(QUERY, copy, CALIBRATION) is None
    assert judge(QUERY, unlike(copy), CALIBRATION, never) is None


def test_the_verdict_is_the_same_whichever_photo_came_first() -> None:
    matrix = homography(8, 1.1, 10, 5, 0.25)
    again = sightings.whole(seen_from(matrix), sightings.moved(POINTS, matrix, 0.3, 0.2), "b")
    one, other = judge(QUERY, again, CALIBRATION), judge(again, QUERY, CALIBRATION)
    assert one is not None
    assert other is not None
    assert (one.kind, one.signals, one.probability) == (other.kind, other.signals, other.probability)
    assert one.points == tuple((u, v, x, y) for x, y, u, v in other.points)
    there = np.reshape(one.homography, (3, 3))
    back = np.reshape(other.homography, (3, 3))
    assert there @ back / (there @ back)[2, 2] == pytest.approx(np.eye(3), abs=1e-6)


CREDULOUS = Calibration(intercept=50.0)
"""Finds every pair probable: what it refuses is refused for other reasons."""


def test_one_background_behind_two_cars_is_no_alert() -> None:
    """Hundreds of inliers, all of them on the wall."""
    other = IMAGE.copy()
    other[40:440, 60:580] = pictures.scene(520, 400, seed=5)
    wall = LocalFeatures(
        *(part[_outside(POINTS, (260, 200))] for part in (POINTS.points, POINTS.descriptors))
    )
    again = sightings.whole(other, wall, "b")
    geometry = compared(QUERY, again)
    assert geometry is not None
    assert geometry.inliers > 80
    assert judge(QUERY, again, CREDULOUS) is None


def test_a_damage_needs_matches_on_it() -> None:
    box = Box(250, 180, 390, 300)
    query = sightings.damaged(QUERY, IMAGE, box)
    other = IMAGE.copy()
    other[130:350, 190:450] = pictures.scene(260, 220, seed=5)
    all_around = sightings.damaged(sightings.whole(other, POINTS, "b"), other, box)
    ring = _outside(all_around.features, (130, 110))
    around = replace(
        all_around,
        features=LocalFeatures(all_around.features.points[ring], all_around.features.descriptors[ring]),
    )
    assert ring.sum() > 50
    assert judge(query, around, CREDULOUS) is None
    found = judge(query, all_around, CREDULOUS)
    assert found is not None
    assert found.kind is AlertKind.SAME_DAMAGE


NEVER_PROBABLE = Calibration(intercept=-50.0, whole=Logistic(intercept=-50.0))
FOUND_IN_BOTH = Calibration(intercept=50.0, whole=Logistic(intercept=-50.0))
"""Finds each pair of damages probable, and no pair with a whole photo."""


def test_a_damage_that_was_found_in_one_photo_alone_is_known_again_in_the_other() -> None:
    matrix = homography(8, 1.1, 10, 5, 0.25)
    image, points = seen_from(matrix), sightings.moved(POINTS, matrix, 0.3, 0.2)
    found = sightings.damaged(QUERY, IMAGE, Box(250, 180, 390, 300))
    overlooked = sightings.whole(image, points, "b")
    there, back = judge(found, overlooked, FOUND_IN_BOTH), judge(overlooked, found, FOUND_IN_BOTH)
    assert there is not None
    assert back is not None
    assert there.kind is back.kind is AlertKind.SAME_DAMAGE
    assert (there.query, there.match) == (found, overlooked) == (back.match, back.query)
    assert there.signals == back.signals
    assert not there.signals.whole
    assert judge(QUERY, overlooked, FOUND_IN_BOTH) is None  # found in neither


@pytest.mark.parametrize("instead", ["another damage", "nothing in it"])
def test_a_damage_that_is_not_at_its_place_in_the_other_photo_is_no_alert(instead: str) -> None:
    box = Box(250, 180, 390, 300)
    found = sightings.damaged(QUERY, IMAGE, box)
    if instead == "another damage":
        other = IMAGE.copy()
        other[150:330, 220:420] = pictures.scene(200, 180, seed=5)
        elsewhere = sightings.whole(other, POINTS, "b")
    else:  # the photo ends left of it
        width = 270
        inside = POINTS.points[:, 0] < width
        left = LocalFeatures(POINTS.points[inside], POINTS.descriptors[inside])
        elsewhere = sightings.whole(np.ascontiguousarray(IMAGE[:, :width]), left, "b")
    assert compared(found, elsewhere) is not None
    assert judge(found, elsewhere, FOUND_IN_BOTH) is None
    assert judge(elsewhere, found, FOUND_IN_BOTH) is None


def test_a_damage_found_in_one_photo_alone_is_not_looked_for_in_a_mirrored_one() -> None:
    """The other side of a car is much like its mirror image."""
    flip = np.array([[-1.0, 0, sightings.WIDTH], [0, 1, 0], [0, 0, 1]])
    found = sightings.damaged(QUERY, IMAGE, Box(280, 200, 360, 260))
    overlooked = sightings.whole(np.ascontiguousarray(IMAGE[:, ::-1]), sightings.moved(POINTS, flip), "b")
    assert judge(overlooked, found, CREDULOUS, turned) is not None
    assert judge(overlooked, found, FOUND_IN_BOTH, turned) is None


def test_which_damages_are_compared_does_not_depend_on_what_comes_of_others() -> None:
    """A damage whose window is the photo must not profit from that of the whole photo, compared before it."""
    matrix = homography(8, 1.1, 10, 5, 0.25)
    image, points = seen_from(matrix), sightings.moved(POINTS, matrix, 0.3, 0.2)
    other = sightings.whole(image, points, "b")
    large = unlike(replace(sightings.damaged(QUERY, IMAGE, Box(20, 20, 620, 460)), window=QUERY.window))
    small = replace(sightings.damaged(other, image, Box(300, 220, 360, 280)), embedding=-large.embedding)
    compared_pairs = {
        tuple(sighting.damage.type for sighting in look.shown)
        for look in at_photos(
            [(QUERY, other)], (QUERY, large), lambda: (other, small), NEVER_PROBABLE, least_cosine=0.5
        )
    }
    whole, dent = DamageType.WHOLE, DamageType.DENT
    assert compared_pairs == {(whole, whole), (whole, dent), (dent, whole)}


def test_two_photos_are_looked_at_closer_only_where_none_of_their_damages_is_an_alert() -> None:
    matrix = homography(8, 1.1, 10, 5, 0.25)
    image, points = seen_from(matrix), sightings.moved(POINTS, matrix, 0.3, 0.2)
    other = sightings.whole(image, points, "b")
    damages = [sightings.damaged(QUERY, IMAGE, Box(250, 180, 390, 300))]
    theirs = [sightings.damaged(other, image, Box(240, 170, 400, 310))]
    asked = []

    def closer(sighting: Sighting, part: Box, mirrored: bool) -> None:
        asked.append((sighting, part, mirrored))

    def alerts(calibration: Calibration) -> list[bool]:
        pairs = [(QUERY, other)]
        queries, matches = (QUERY, *damages), (other, *theirs)
        looks = at_photos(pairs, queries, lambda: matches, calibration, 0.5, closer=closer)
        return [look.alerts for look in looks]

    assert any(alerts(FOUND_IN_BOTH))
    assert not asked
    hopeful = Calibration(intercept=0.0, coefficients=(0.0,) * 8, whole=Logistic(intercept=-50.0))
    thresholds = hopeful.thresholds.model_copy(update={"same_damage": 0.9})
    assert not any(alerts(hopeful.model_copy(update={"thresholds": thresholds})))
    assert asked


def test_matches_in_one_speck_are_no_evidence() -> None:
    box = Box(300, 225, 340, 255)

    def seen(scale: float, claim: str) -> Sighting:
        points = (POINTS.points - (320, 240)) * np.float32(scale) + (320, 240)
        features = LocalFeatures(points.astype(np.float32), POINTS.descriptors)
        return sightings.damaged(sightings.whole(IMAGE, features, claim), IMAGE, box)

    speck = judge(seen(0.05, "a"), seen(0.05, "b"), CREDULOUS)
    spread = judge(seen(0.4, "a"), seen(0.4, "b"), CREDULOUS)
    assert speck is None
    assert spread is not None
    assert spread.kind is AlertKind.SAME_DAMAGE


def test_a_whole_photo_must_be_more_probable_than_a_damage() -> None:
    matrix = homography(8, 1.1, 10, 5, 0.25)
    again = sightings.whole(seen_from(matrix), sightings.moved(POINTS, matrix, 0.3, 0.2), "b")
    for probability, alerted in ((0.8, True), (0.7, False)):
        logit = float(np.log(probability / (1 - probability)))
        whole = Logistic(coefficients=(0.0,) * len(FEATURES), intercept=logit)
        found = judge(QUERY, again, Calibration(whole=whole))
        assert (found is not None) is alerted


def test_whole_photos_must_agree_in_more_than_like_cars_do() -> None:
    """Matches of the common kind, as of wheels and backgrounds: then the pixels must agree, or most matches."""

    def verdict(matrix: np.ndarray, odds: float, strays: float, spoilt: bool = True) -> Match | None:
        distinctness = Distinctness.of(np.zeros((64, 1)), np.zeros(1), np.zeros(1), odds)
        image = seen_from(matrix)
        if spoilt:
            image[200:280, 280:360] = 255 - image[200:280, 280:360]
        again = sightings.whole(image, sightings.moved(POINTS, matrix, 0.3, strays), "b")
        return judge(QUERY, again, CREDULOUS.model_copy(update={"distinctness": distinctness}))

    standpoint, copy = homography(8, 1.1, 10, 5, 0.25), np.eye(3)
    assert verdict(standpoint, odds=-1.0, strays=0.5) is None
    assert verdict(standpoint, odds=1.0, strays=0.5) is not None
    assert verdict(standpoint, odds=-1.0, strays=0.2) is not None
    assert verdict(copy, odds=-1.0, strays=0.5, spoilt=False) is not None


@pytest.mark.parametrize(("shift", "alerted"), [(0, False), (8, False), (40, True)])
def test_what_is_printed_over_two_photos_is_no_evidence(shift: int, alerted: bool) -> None:
    box = Box(220, 160, 420, 320)
    query = sightings.damaged(QUERY, IMAGE, box)
    moved = np.array([[1.0, 0, shift], [0, 1, 0], [0, 0, 1]])
    stranger = sightings.whole(pictures.scene(640, 480, seed=5), sightings.moved(POINTS, moved), "b")
    match = sightings.damaged(stranger, pictures.scene(640, 480, seed=5), box)
    geometry = compared(query, match)
    assert geometry is not None
    assert geometry.alignment < 0.5
    assert (judge(query, match, CREDULOUS) is not None) is alerted


def test_whole_photos_have_a_regression_of_their_own() -> None:
    signals = Signals(0.5, 20, 10, 0.4, 0.6, 0.8, 16, 0.7)
    calibration = Calibration(intercept=-50, whole=Logistic(intercept=50))
    assert calibration.probability(signals) < 0.01
    assert calibration.probability(replace(signals, whole=True)) > 0.99
    assert Calibration().probability(signals) == Calibration().probability(replace(signals, whole=True))


def _outside(features: LocalFeatures, half: tuple[int, int]) -> np.ndarray:
    return np.asarray((np.abs(features.points - (320, 240)) >= half).any(axis=1))


def test_of_two_photos_the_kind_tells_more_than_the_probability() -> None:
    photo = sightings.whole(IMAGE, sightings.features(0))
    signals = Signals(0.0, 0, 0, 0.0, 0.0, 0.0, 0)
    copy, likely, unlikely = (
        Match(photo, photo, kind, False, probability, signals)
        for kind, probability in (
            (AlertKind.DUPLICATE_PHOTO, 0.7),
            (AlertKind.SAME_DAMAGE, 0.99),
            (AlertKind.SAME_DAMAGE, 0.8),
        )
    )
    assert most_telling([unlikely, likely]) is likely
    assert most_telling([unlikely, copy, likely]) is copy
    assert most_telling([]) is None


def test_similar_damages_only_on_request() -> None:
    match = replace(sightings.whole(pictures.scene(seed=3), NOTHING, "b"))
    assert judge(QUERY, match, CALIBRATION) is None
    wanted = CALIBRATION.model_copy(update={"thresholds": Thresholds(similar_damage=0.9)})
    found = judge(QUERY, match, wanted)
    assert found is not None
    assert (found.kind, found.homography, found.points) == (AlertKind.SIMILAR_DAMAGE, (), ())
    assert judge(QUERY, unlike(match), wanted) is None


SIGNALS = st.builds(
    Signals,
    cosine=st.floats(-1, 1),
    inliers=st.integers(0, 512),
    focus_inliers=st.integers(0, 512),
    inlier_ratio=st.floats(0, 1),
    alignment=st.floats(-1, 1),
    overlap=st.floats(0, 1),
    hash_distance=st.integers(0, 64),
    distinctness=st.floats(0, 1),
    whole=st.booleans(),
)


@given(
    SIGNALS,
    st.lists(st.floats(-1e4, 1e4), min_size=len(FEATURES), max_size=len(FEATURES)),
    st.floats(-1e4, 1e4),
)
def test_probability_is_one_for_any_coefficients(
    signals: Signals, coefficients: list[float], intercept: float
) -> None:
    calibration = Calibration(coefficients=tuple(coefficients), intercept=intercept)
    assert 0 <= calibration.probability(signals) <= 1


@given(SIGNALS, st.sampled_from(["inliers", "focus_inliers", "inlier_ratio", "alignment"]))
def test_more_evidence_is_never_less_probable(signals: Signals, name: str) -> None:
    most: dict[str, Callable[[Signals], Signals]] = {
        "inliers": lambda s: replace(s, inliers=512),
        "focus_inliers": lambda s: replace(s, focus_inliers=512),
        "inlier_ratio": lambda s: replace(s, inlier_ratio=1.0),
        "alignment": lambda s: replace(s, alignment=1.0),
    }
    assert CALIBRATION.probability(most[name](signals)) >= CALIBRATION.probability(signals)


def test_logistic_is_the_textbook_one() -> None:
    signals = Signals(0.5, 20, 10, 0.4, 0.6, 0.8, 16, 0.7)
    calibration = Calibration(
        mean=(0.1,) * 8, scale=(2.0,) * 8, coefficients=(1, 2, 3, 4, 5, 6, 7, 8), intercept=-3, base_rate=0.1
    )
    logit = -3 + sum(c * (x - 0.1) / 2 for c, x in zip(range(1, 9), features(signals), strict=True))
    assert calibration.probability(signals) == pytest.approx(1 / (1 + np.exp(-logit)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": FEATURES[::-1]},
        {"coefficients": (1.0,) * 7},
        {"scale": (0.0,) * 7},
        {"intercept": float("nan")},
        {"base_rate": 0},
    ],
)
def test_calibrations_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(wrong)


def test_other_numbers_are_another_version() -> None:
    assert Calibration().version == Calibration().version != Calibration(intercept=-1).version
