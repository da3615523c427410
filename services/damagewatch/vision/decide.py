"""The verdict on a pair of damages that were compared: their signals, and which kind of alert they are, if any."""

from __future__ import annotations

import numpy as np

from damagewatch.domain import AlertKind, DamageType, Sighting, Signals
from damagewatch.vision import hashing
from damagewatch.vision.calibration import Calibration, DuplicateThresholds, Thresholds
from damagewatch.vision.verify import Geometry

MIN_FOCUS_INLIERS = 6
"""On and around the damages: a wheel and a lamp of another car agree as well."""
MIN_EXTENT = 0.2
"""Matches in one speck are no evidence: bare paint with a dot, twice. Of 266 rephotographs and the real pairs of one
damage none spread less, of chance agreements a quarter."""
MIN_WHOLE_ALIGNMENT = 0.75
"""Where one is a whole photo: like cars, and cars in front of one background, share hundreds of inliers and align by
0.7; nine in ten rephotographs by more than 0.8."""
MIN_WHOLE_PROBABILITY = 0.75
"""Where one is a whole photo, no damage speaks for the alert."""
MIN_WHOLE_DISTINCTNESS, MIN_LIKE_ALIGNMENT, MIN_LIKE_RATIO = 0.5, 0.96, 0.68
"""Of a whole photo one of these is wanted: matches more telling than those of wheels, lamps and backgrounds;
pixels that agree as those of like cars never do; or, unless mirrored, more of the matches agreeing than on like cars.
The other side of a car is much like its mirror image: of 4 pairs of undamaged cars of one model found probable 3 were
mirrored."""
MAX_OVERLAY_SHIFT, MIN_OVERLAY_BITS = 0.02, 17
"""Something printed over two photos, a watermark or a frame, lies at one place in both, though they differ. Of 388
true pairs with their matches at one place none differed by more than 16 of the hashes' 64 bits."""

_MOST = 0.5
"""Share of its photo that a window covers to speak for the photo."""


def measure(query: Sighting, match: Sighting, geometry: Geometry | None, calibration: Calibration) -> Signals:
    """The signals of a pair; zeros where there is no geometry."""
    cosine = max(-1.0, min(1.0, float(query.embedding @ match.embedding)))
    bits = hashing.distance(query.photo_hash, match.photo_hash)
    whole = DamageType.WHOLE in {query.damage.type, match.damage.type}
    if geometry is None:
        return Signals(cosine, 0, 0, 0.0, 0.0, 0.0, bits, whole=whole)
    return Signals(
        cosine=cosine,
        inliers=geometry.inliers,
        focus_inliers=geometry.focus_inliers,
        inlier_ratio=geometry.inlier_ratio,
        alignment=geometry.alignment,
        overlap=geometry.overlap,
        hash_distance=bits,
        distinctness=calibration.distinctness.mean(geometry.descriptors),
        whole=whole,
    )


def kind_of(
    query: Sighting,
    match: Sighting,
    geometry: Geometry | None,
    signals: Signals,
    mirrored: bool,
    probability: float,
    thresholds: Thresholds,
) -> AlertKind | None:
    """The kind of alert that a compared pair is, the query being `mirrored`; None where it is none."""
    if (
        geometry is not None
        and _probable(signals, mirrored, probability, thresholds)
        and not _overlaid(query, match, geometry, signals)
    ):
        if _one_picture(query, match, geometry, thresholds.duplicate_photo):
            return AlertKind.DUPLICATE_PHOTO
        aligned = not signals.whole or geometry.alignment >= MIN_WHOLE_ALIGNMENT
        spread = geometry.focus_inliers >= MIN_FOCUS_INLIERS and geometry.extent >= MIN_EXTENT
        if aligned and spread:
            return AlertKind.SAME_DAMAGE
    if thresholds.similar_damage is not None and signals.cosine >= thresholds.similar_damage:
        return AlertKind.SIMILAR_DAMAGE
    return None


def _one_picture(query: Sighting, match: Sighting, geometry: Geometry, wanted: DuplicateThresholds) -> bool:
    """Whether two windows that speak for their photos agree up to a crop, scaling or rotation."""
    return (
        all(s.window.area >= _MOST * s.width * s.height for s in (query, match))
        and geometry.alignment >= wanted.alignment
        and geometry.overlap >= wanted.overlap
        and geometry.perspective <= wanted.perspective
    )


def _probable(signals: Signals, mirrored: bool, probability: float, thresholds: Thresholds) -> bool:
    """Whether a pair is probable enough; of whole photos, that they agree in more than cars of one model do, too."""
    if not signals.whole:
        return probability >= thresholds.same_damage
    more_than_like = (
        signals.distinctness >= MIN_WHOLE_DISTINCTNESS
        or signals.alignment >= MIN_LIKE_ALIGNMENT
        or (signals.inlier_ratio >= MIN_LIKE_RATIO and not mirrored)
    )
    return more_than_like and probability >= max(thresholds.same_damage, MIN_WHOLE_PROBABILITY)


def _overlaid(query: Sighting, match: Sighting, geometry: Geometry, signals: Signals) -> bool:
    """Whether what matches is printed over two different photos."""
    if signals.hash_distance < MIN_OVERLAY_BITS or geometry.alignment >= MIN_LIKE_ALIGNMENT:
        return False
    one, other = ((s.width, s.height) for s in (query, match))
    shift = np.abs(geometry.points[:, :2] / one - geometry.points[:, 2:] / other).max(axis=1)
    return bool(np.quantile(shift, 0.9) <= MAX_OVERLAY_SHIFT)
