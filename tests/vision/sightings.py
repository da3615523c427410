"""Sightings made by hand: points in a plane, seen by two cameras."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from damagewatch.domain import (
    Box,
    Damage,
    DamageType,
    LocalFeatures,
    PhotoRef,
    Severity,
    Sighting,
)
from damagewatch.vision.decode import Photo
from damagewatch.vision.features import quantise
from damagewatch.vision.hashing import perceptual_hashes
from damagewatch.vision.regions import window
from damagewatch.vision.resample import cut

from . import pictures

WIDTH, HEIGHT = 640, 480


def whole(image: pictures.Image, features: LocalFeatures, claim: str = "a") -> Sighting:
    height, width = image.shape[:2]
    reference = PhotoRef("tenant", claim, "photo", claim * 64)
    box = Box(0, 0, width, height)
    damage = Damage(reference.damage_id(0), box, (), DamageType.WHOLE, Severity.UNKNOWN, 1.0)
    embedding = np.zeros(8, np.float32)
    embedding[0] = 1
    return Sighting(
        photo=reference,
        damage=damage,
        width=width,
        height=height,
        window=box,
        embedding=embedding,
        features=features,
        thumbnail=thumbnail(image, box),
        photo_hash=perceptual_hashes(image)[0],
    )


def damaged(sighting: Sighting, image: pictures.Image, box: Box) -> Sighting:
    """The same photo, as the sighting of a damage; features outside its window are gone."""
    around = window(box, sighting.width, sighting.height)
    points = sighting.features.points
    inside = (
        (points[:, 0] >= around.x0)
        & (points[:, 0] < around.x1)
        & (points[:, 1] >= around.y0)
        & (points[:, 1] < around.y1)
    )
    damage = Damage(sighting.photo.damage_id(1), box, (), DamageType.DENT, Severity.MINOR, 0.9)
    return replace(
        sighting,
        damage=damage,
        window=around,
        thumbnail=thumbnail(image, around),
        features=LocalFeatures(points[inside], sighting.features.descriptors[inside]),
    )


def thumbnail(image: pictures.Image, box: Box) -> pictures.Image:
    photo = Photo(image, image.shape[1], image.shape[0], 1.0)
    return np.asarray(cv2.cvtColor(cut(photo, box, 64, 64), cv2.COLOR_BGR2GRAY), np.uint8)


def features(count: int, seed: int = 0) -> LocalFeatures:
    """Random places with random descriptors."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((0, 0), (WIDTH, HEIGHT), (count, 2)).astype(np.float32)
    descriptors = rng.normal(size=(count, 64))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return LocalFeatures(points, quantise(descriptors.astype(np.float32)))


def moved(
    one: LocalFeatures, homography: np.ndarray, noise: float = 0.0, outliers: float = 0.0, seed: int = 1
) -> LocalFeatures:
    """The same points in another photo, in another order, some of them elsewhere."""
    rng = np.random.default_rng(seed)
    points = cv2.perspectiveTransform(one.points[None].astype(np.float64), homography)[0]
    points += rng.normal(0, noise, points.shape) if noise else 0
    stray = rng.random(len(points)) < outliers
    points[stray] = rng.uniform((0, 0), (WIDTH, HEIGHT), (int(stray.sum()), 2))
    order = rng.permutation(len(points))
    return LocalFeatures(points[order].astype(np.float32), one.descriptors[order])
