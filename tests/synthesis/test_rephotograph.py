import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.synthesis.rephotograph import LEAST_IN_VIEW, rephotograph, share_in_view, standpoint

SEEDS = st.integers(0, 2**32 - 1)


def scene(width: int, height: int) -> np.ndarray:
    """Smooth colours without sharp detail, so that markers stand out."""
    small = np.random.default_rng(7).integers(90, 150, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@settings(max_examples=25)
@given(seed=SEEDS, mirror=st.booleans(), strength=st.floats(0, 1))
def test_homography_says_where_every_marker_went(seed: int, mirror: bool, strength: float) -> None:
    width, height = 320, 240
    plain = scene(width, height)
    for x, y in ((120.0, 90.0), (200.0, 150.0)):
        marked = plain.copy()
        # shift=4: sixteenths of a pixel, counted from the centre of the first one.
        cv2.circle(
            marked,
            (round((x - 0.5) * 16), round((y - 0.5) * 16)),
            5 * 16,
            (255, 255, 255),
            -1,
            cv2.LINE_AA,
            4,
        )
        before = rephotograph(plain, np.random.default_rng(seed), strength, mirror=mirror)
        after = rephotograph(marked, np.random.default_rng(seed), strength, mirror=mirror)
        expected = cv2.perspectiveTransform(np.array([[[x, y]]]), after.homography)[0, 0]
        if not (12 < expected[0] < width - 12 and 12 < expected[1] < height - 12):
            continue
        change = np.abs(after.image.astype(float) - before.image.astype(float)).sum(axis=2)
        # Only near the expected place: the border may show the marker again, reflected.
        rows, columns = np.mgrid[0.5:height, 0.5:width]
        near = np.hypot(columns - expected[0], rows - expected[1]) < 16
        weight = np.where(near & (change > 0.3 * change.max()), change, 0)
        found = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        assert np.hypot(found[0] - expected[0], found[1] - expected[1]) < 0.8


@settings(max_examples=20)
@given(seed=SEEDS, width=st.integers(1, 200), height=st.integers(1, 200), mirror=st.booleans())
def test_any_size_gives_the_same_size_without_black_borders(
    seed: int, width: int, height: int, mirror: bool
) -> None:
    photo = np.full((height, width, 3), 160, np.uint8)
    result = rephotograph(photo, np.random.default_rng(seed), mirror=mirror)
    assert result.image.shape == photo.shape
    assert result.image.dtype == np.uint8
    assert result.image.mean(axis=2).min() > 10
    assert 20 <= result.jpeg_quality <= 95
    assert np.isfinite(result.homography).all()
    assert np.sign(np.linalg.det(result.homography[:2, :2])) == (-1 if mirror else 1)


@given(seed=SEEDS, width=st.integers(50, 5000), height=st.integers(50, 5000))
@settings(max_examples=50)
def test_most_of_the_photo_stays_in_view(seed: int, width: int, height: int) -> None:
    homography = standpoint(width, height, np.random.default_rng(seed), 1.0).homography
    assert share_in_view(homography, width, height) >= LEAST_IN_VIEW


def test_share_in_view_of_known_frames() -> None:
    assert share_in_view(np.eye(3), 200, 100) == pytest.approx(1)
    assert share_in_view(np.array([[1.0, 0, 100], [0, 1, 0], [0, 0, 1]]), 200, 100) == pytest.approx(0.5)
    assert share_in_view(np.diag([2.0, 2.0, 1.0]), 200, 100) == pytest.approx(0.25)


def test_same_seed_same_photograph_other_seed_another() -> None:
    photo = scene(160, 120)
    first, again, other = (rephotograph(photo, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.homography, again.homography)
    assert first.encoded() == again.encoded()
    assert not np.array_equal(first.image, other.image)


def test_strength_zero_leaves_the_photo_as_it_is() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    result = rephotograph(photo, np.random.default_rng(1), 0.0)
    assert np.array_equal(result.image, photo)
    assert np.array_equal(result.homography, np.eye(3))
    assert result.jpeg_quality == 95


def test_stronger_is_further_from_the_photo() -> None:
    photo = scene(160, 120)
    weak, strong = (
        np.mean(
            [
                np.abs(rephotograph(photo, np.random.default_rng(s), k).image.astype(int) - photo).mean()
                for s in range(12)
            ]
        )
        for k in (0.2, 1.0)
    )
    assert weak < strong


def test_mirror_without_strength_is_the_photo_flipped() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (90, 121, 3), dtype=np.uint8)
    result = rephotograph(photo, np.random.default_rng(1), 0.0, mirror=True)
    assert np.array_equal(result.image, photo[:, ::-1])


def test_the_photo_given_is_not_changed() -> None:
    photo = scene(80, 60)
    kept = photo.copy()
    for strength in (0.0, 1.0):
        rephotograph(photo, np.random.default_rng(0), strength).image[:] = 0
    assert np.array_equal(photo, kept)


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_not_a_photo_is_refused(photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a photo is uint8"):
        rephotograph(photo, np.random.default_rng(0))


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_strength_that_makes_no_sense_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        rephotograph(scene(8, 8), np.random.default_rng(0), strength)
