from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from damagewatch.domain import AlertKind, Box, DamageType, Origin, Reason, Refused
from damagewatch.vision.calibration import Calibration
from damagewatch.vision.decode import decode
from damagewatch.vision.draw import MATCH_HEIGHT, draw_damages, draw_match
from damagewatch.vision.formats import Limits
from damagewatch.vision.looks import judge
from damagewatch.vision.perceive import CROP_SIDE, Perceived, Perception
from damagewatch.vision.regions import window

from . import pictures
from .models_folder import shipped

SCENE = pictures.scene(800, 600, seed=4)


def perceive(image: pictures.Image, claim: str = "claim-1", quality: int = 85) -> Perceived:
    content = pictures.encoded(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)
    return Perception(shipped()).perceive(pictures.claim_image(content, claim))


def test_everything_that_is_remembered_of_a_photo() -> None:
    stages: dict[str, float] = {}
    perception = Perception(shipped(), observe=lambda stage, seconds: stages.update({stage: seconds}))
    origin = Origin("topic", 3, 14)
    seen = perception.perceive(pictures.claim_image(pictures.encoded(SCENE)), origin)
    assert (seen.width, seen.height) == (800, 600)
    assert set(stages) == {"decode", "detect", "severity", "embed", "features", "crop"}
    assert all(seconds > 0 for seconds in stages.values())
    whole, *damages = seen.sightings
    assert whole.damage.type is DamageType.WHOLE
    assert whole.window == Box(0, 0, 800, 600)
    assert tuple(s.damage for s in damages) == seen.damages
    for number, sighting in enumerate(seen.sightings):
        assert sighting.damage.damage_id == seen.photo.damage_id(number)
        assert sighting.origin == origin
        assert sighting.window == window(sighting.damage.box, 800, 600)
        assert sighting.embedding.shape == (512,)
        assert np.linalg.norm(sighting.embedding) == pytest.approx(1, abs=1e-5)
        assert sighting.thumbnail.shape == (64, 64)
        assert len(sighting.features) <= 512
        points = sighting.features.points
        assert (points >= (sighting.window.x0, sighting.window.y0)).all()
        assert (points <= (sighting.window.x1, sighting.window.y1)).all()
        crop = decode(seen.crops[sighting.window])
        assert max(crop.width, crop.height) <= CROP_SIDE
        assert b"Exif" not in seen.crops[sighting.window]
    assert len(whole.features) > 200


def test_coordinates_are_of_the_full_size_upright_photo() -> None:
    """A reduced, turned photo has its features where the plain one has them."""
    plain = perceive(SCENE).sightings[0]
    large = cv2.resize(SCENE, (3200, 2400), interpolation=cv2.INTER_CUBIC)
    stored = np.ascontiguousarray(np.rot90(large, 1))
    content = pictures.with_exif(pictures.encoded(stored), pictures.exif(6))
    turned = Perception(shipped()).perceive(pictures.claim_image(content)).sightings[0]
    assert (turned.width, turned.height) == (3200, 2400)
    distances = np.linalg.norm(turned.features.points[:, None] / 4 - plain.features.points[None], axis=2)
    assert np.median(distances.min(axis=1)) < 1.5


@pytest.fixture(scope="module")
def first() -> Perceived:
    return perceive(SCENE)


def test_a_reencoded_crop_is_a_duplicate(first: Perceived) -> None:
    again = perceive(np.ascontiguousarray(SCENE[30:560, 20:760]), "claim-2", 60)
    found = judge(again.sightings[0], first.sightings[0], Calibration(), again.mirrored)
    assert found is not None
    assert (found.kind, found.mirrored) == (AlertKind.DUPLICATE_PHOTO, False)


def test_another_standpoint_is_the_same_damage(first: Perceived) -> None:
    corners = np.array([[0, 0], [800, 0], [800, 600], [0, 600]], np.float32)
    seen_at = np.array([[40, 60], [770, 0], [800, 590], [10, 520]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, seen_at)
    image = cv2.convertScaleAbs(cv2.warpPerspective(SCENE, matrix, (800, 600)), alpha=0.8, beta=20)
    again = perceive(np.asarray(image, np.uint8), "claim-2")
    found = judge(again.sightings[0], first.sightings[0], Calibration(), again.mirrored)
    assert found is not None
    assert found.kind is AlertKind.SAME_DAMAGE
    back = np.array(found.homography).reshape(3, 3) @ matrix
    error = cv2.perspectiveTransform(corners[None].astype(float), back)[0] - corners
    assert np.abs(error).max() < 12


def test_a_mirrored_photo_is_found_and_said_to_be_mirrored(first: Perceived) -> None:
    again = perceive(np.ascontiguousarray(SCENE[:, ::-1]), "claim-2")
    alike = replace(again.sightings[0], embedding=first.sightings[0].embedding)
    found = judge(alike, first.sightings[0], Calibration(), again.mirrored)
    assert found is not None
    assert (found.kind, found.mirrored) == (AlertKind.DUPLICATE_PHOTO, True)
    assert bin(again.mirrored_hash ^ first.sightings[0].photo_hash).count("1") <= 3


def test_another_photo_is_nothing(first: Perceived) -> None:
    other = perceive(pictures.scene(800, 600, seed=77), "claim-2")
    for query in other.sightings:
        for match in first.sightings:
            alike = replace(query, embedding=match.embedding)
            assert judge(alike, match, Calibration(), other.mirrored) is None


def test_threads_see_what_one_sees() -> None:
    contents = [pictures.encoded(pictures.scene(320, 240, seed)) for seed in range(6)]
    perception = Perception(shipped())
    images = [pictures.claim_image(content) for content in contents]
    alone = [perception.perceive(image) for image in images]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(perception.perceive, images))
    for one, other in zip(alone, together, strict=True):
        assert one.damages == other.damages
        assert (one.sightings[0].embedding == other.sightings[0].embedding).all()
        assert (one.sightings[0].features.descriptors == other.sightings[0].features.descriptors).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (2, 3), (33, 31)])
def test_photos_of_odd_sizes_are_seen(size: tuple[int, int]) -> None:
    seen = perceive(np.full((size[1], size[0], 3), 128, np.uint8))
    assert (seen.width, seen.height) == size
    assert np.isfinite(seen.sightings[0].embedding).all()
    assert judge(seen.sightings[0], seen.sightings[0], Calibration(), seen.mirrored) is not None


def test_refusals_come_through() -> None:
    perception = Perception(shipped(), Limits(max_pixels=100))
    with pytest.raises(Refused) as refused:
        perception.perceive(pictures.claim_image(pictures.encoded(SCENE)))
    assert refused.value.reason is Reason.TOO_MANY_PIXELS
    with pytest.raises(Refused) as refused:
        perception.perceive(replace(pictures.claim_image(b""), content=None, uri="file:///x"))
    assert refused.value.reason is Reason.PHOTO_MISSING


def test_drawings(first: Perceived) -> None:
    shown = draw_damages(SCENE, first.damages)
    assert shown.shape == SCENE.shape
    assert (shown != SCENE).any() == bool(first.damages)
    small = np.asarray(cv2.resize(SCENE, (400, 300)), np.uint8)
    assert draw_damages(small, first.damages, width=800).shape == small.shape
    found = judge(first.sightings[0], first.sightings[0], Calibration())
    assert found is not None
    drawn = draw_match(SCENE, small, first.sightings[0], first.sightings[0], found.points)
    assert drawn.shape[0] == MATCH_HEIGHT
    assert drawn.shape[1] > 2 * 800
    bare = draw_match(SCENE, small, first.sightings[0], first.sightings[0])
    assert (drawn != bare).any()
