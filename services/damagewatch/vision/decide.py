"""The verdict on a pair of damages: which kind of alert it is, if any, and how probable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from damagewatch.domain import AlertKind, DamageType, Match, Sighting, Signals
from damagewatch.vision import hashing
from damagewatch.vision.calibration import Calibration
from damagewatch.vision.verify import Geometry, verify

MIRROR_COSINE = 0.5
"""Cosine from which the mirrored query is worth the ten milliseconds that its local features cost."""
MIN_FOCUS_INLIERS = 6
MAX_POINTS = 200


def measure(query: Sighting, match: Sighting, geometry: Geometry | None) -> Signals:
    """The signals of a pair; zeros where there is no geometry."""
    cosine = float(np.clip(query.embedding @ match.embedding, -1, 1))
    bits = hashing.distance(query.photo_hash, match.photo_hash)
    if geometry is None:
        return Signals(cosine, 0, 0, 0.0, 0.0, 0.0, bits)
    return Signals(
        cosine=cosine,
        inliers=geometry.inliers,
        focus_inliers=geometry.focus_inliers,
        inlier_ratio=geometry.inlier_ratio,
        alignment=geometry.alignment,
        overlap=geometry.overlap,
        hash_distance=bits,
    )


def judge(
    query: Sighting,
    match: Sighting,
    calibration: Calibration,
    mirrored: Callable[[Sighting], Sighting] | None = None,
) -> Match | None:
    """Compares two sightings, and the mirrored query where the plain one says nothing.

    Args:
        query: of the photo in hand.
        match: a candidate.
        calibration: probability and thresholds.
        mirrored: makes the mirrored query (`Perceived.mirrored`); None leaves mirrored copies out.

    Returns:
        The match, or None where the pair is no alert.
    """
    found = _judge(query, match, calibration, False)
    if found is not None or mirrored is None or float(query.embedding @ match.embedding) < MIRROR_COSINE:
        return found
    return _judge(mirrored(query), match, calibration, True)


def _judge(query: Sighting, match: Sighting, calibration: Calibration, mirrored: bool) -> Match | None:
    geometry = verify(query, match)
    signals = measure(query, match, geometry)
    probability = calibration.probability(signals)
    kind = _kind(query, match, geometry, signals, calibration)
    if kind is None:
        return None
    homography: tuple[float, ...] = ()
    points: tuple[tuple[float, float, float, float], ...] = ()
    if geometry is not None:
        homography = tuple(float(v) for v in geometry.homography.ravel())
        rows = geometry.points[:MAX_POINTS].tolist()
        points = tuple((query.width - x if mirrored else x, y, u, v) for x, y, u, v in rows)
    return Match(query, match, kind, mirrored, probability, signals, homography, points)


def _kind(
    query: Sighting,
    match: Sighting,
    geometry: Geometry | None,
    signals: Signals,
    calibration: Calibration,
) -> AlertKind | None:
    thresholds = calibration.thresholds
    if query.photo.sha256 == match.photo.sha256:
        return AlertKind.DUPLICATE_PHOTO
    if geometry is None:
        similar = thresholds.similar_damage
        return AlertKind.SIMILAR_DAMAGE if similar is not None and signals.cosine >= similar else None
    if (
        signals.alignment >= thresholds.duplicate_alignment
        and signals.overlap >= thresholds.duplicate_overlap
    ):
        return AlertKind.DUPLICATE_PHOTO
    whole = DamageType.WHOLE in {query.damage.type, match.damage.type}
    if calibration.probability(signals) < thresholds.same_damage or (
        not whole and signals.focus_inliers < MIN_FOCUS_INLIERS
    ):
        return None
    return AlertKind.SAME_DAMAGE
