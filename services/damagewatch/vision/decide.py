"""The verdict on a pair of damages: which kind of alert it is, if any, and how probable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import AlertKind, Box, DamageType, Match, Sighting, Signals
from damagewatch.vision import hashing
from damagewatch.vision.calibration import Calibration, DuplicateThresholds, Thresholds
from damagewatch.vision.closer import Closer, shared
from damagewatch.vision.verify import Geometry, Registration, bounds, on_damages, register

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
MIN_CARRIED_ALIGNMENT = 0.55
"""Where the detector found the damage in one photo alone. Of 195 rephotographs 194 agree so well, of 1,044 pairs of
photos of different cars 19, and none of these was probable."""
MAX_OVERLAY_SHIFT, MIN_OVERLAY_BITS = 0.02, 17
"""Something printed over two photos, a watermark or a frame, lies at one place in both, though they differ. Of 388
true pairs with their matches at one place none differed by more than 16 of the hashes' 64 bits."""
CLOSER_LOOKS = 2
"""The second sees better where both show the same: of 49 real pairs of one damage 29 alert with it, 27 without."""
HOPELESS, HOPELESS_ALIGNMENT = 0.01, 0.5
"""Below both a closer look is not worth its 30 milliseconds: one photo in five has a pair that is."""
MAX_POINTS = 200

_RANK = {AlertKind.SIMILAR_DAMAGE: 0, AlertKind.SAME_DAMAGE: 1, AlertKind.DUPLICATE_PHOTO: 2}

_MOST = 0.5
"""Share of its photo that a window covers to speak for the photo, and of a damage that lies in another photo."""


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


Registered = dict[tuple[bool, Box, Box], Registration | None]
"""Of two photos: registrations by whether the query is mirrored, its window, and the match's, or parts of these."""


def compared(
    query: Sighting, match: Sighting, mirrored: bool = False, known: Registered | None = None
) -> Geometry | None:
    """`verify.verify`, with the same result whichever of the two photos came first.

    The order in which the photos of two partitions are read changes from run to run; the verdict must not.

    Args:
        query: of the photo in hand, or its mirrored one.
        match: a candidate.
        mirrored: whether the query is.
        known: registrations of these two photos, to which this one is added: damages share windows.
    """
    turned = query.photo.uuid > match.photo.uuid
    one, other = (match, query) if turned else (query, match)
    known = {} if known is None else known
    key = mirrored, query.window, match.window
    if key not in known:
        known[key] = register(one, other)
    registration = known[key]
    if registration is None:
        return None
    geometry = on_damages(one, other, registration)
    return geometry.inverse() if turned else geometry


def is_worth_comparing(query: Sighting, match: Sighting, known: Registered, least_cosine: float) -> bool:
    """Whether two damages of photos that have something in common may be one.

    They look alike; or share windows with others that were compared, so that they are registered already; or one is a
    whole photo that may show the other where it was not found (`carried`), for the photos are registered.
    """
    photos = False, Box(0, 0, query.width, query.height), Box(0, 0, match.width, match.height)
    return (
        (False, query.window, match.window) in known
        or (_is_whole(query) != _is_whole(match) and known.get(photos) is not None)
        or float(query.embedding @ match.embedding) >= least_cosine
    )


def judge(
    query: Sighting,
    match: Sighting,
    calibration: Calibration,
    mirrored: Callable[[Sighting], Sighting] | None = None,
    known: Registered | None = None,
    closer: Closer | None = None,
) -> Match | None:
    """Compares two sightings, in as many ways as it takes to find an alert.

    As they are; the query mirrored; a damage and a whole photo as two damages (`carried`); and each of these closer.

    Args:
        query: of the photo in hand.
        match: a candidate.
        calibration: probability and thresholds.
        mirrored: makes the mirrored query (`Perceived.mirrored`); None leaves mirrored copies out.
        known: registrations of these two photos, as in `compared`.
        closer: sees a part of either window again; None: what the first look leaves open stays so.

    Returns:
        The match, or None where the pair is no alert.
    """
    known = {} if known is None else known
    looks = [_look(query, match, calibration, False, known)]
    alike = float(query.embedding @ match.embedding) >= calibration.thresholds.mirrored_cosine
    if not looks[0].alerts and mirrored is not None and alike:
        looks.append(_look(mirrored(query), match, calibration, True, known))
    if not any(look.alerts for look in looks):
        # Not of a mirrored query: the other side of a car is much like its mirror image.
        looks += _carried_looks(looks[0], calibration, known)
    if closer is not None and not any(look.alerts for look in looks):
        looks += [again for look in looks for again in _closer(look, calibration, closer, known)]
    # Who reads the match looks at the photo as it is, and at what was found in it.
    matches = [replace(look.found, query=query, match=match) for look in looks if look.found is not None]
    return most_telling(matches)


def most_telling(matches: Iterable[Match]) -> Match | None:
    """Of the matches between two photos the one that is told: by kind, then by probability."""
    return max(matches, key=lambda match: (_RANK[match.kind], match.probability), default=None)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What came of comparing two sightings, the query being `mirrored`; `found` is None where they are no alert."""

    query: Sighting
    match: Sighting
    mirrored: bool
    geometry: Geometry | None
    signals: Signals
    probability: float
    found: Match | None

    @property
    def alerts(self) -> bool:
        """Whether they are one damage or one photo, not only alike."""
        return self.found is not None and self.found.kind is not AlertKind.SIMILAR_DAMAGE


def _look(
    query: Sighting, match: Sighting, calibration: Calibration, mirrored: bool, known: Registered
) -> _Look:
    return _told(query, match, calibration, mirrored, compared(query, match, mirrored, known))


def _carried_looks(look: _Look, calibration: Calibration, known: Registered) -> Iterator[_Look]:
    """The two as two damages, where one is a damage and the other a whole photo that shows it."""
    there = None if look.geometry is None else carried(look.query, look.match, look.geometry, known)
    if there is not None:
        query, match, geometry = there
        yield _told(query, match, calibration, False, geometry)


def carried(
    query: Sighting, match: Sighting, geometry: Geometry, known: Registered
) -> tuple[Sighting, Sighting, Geometry] | None:
    """A damage, and a whole photo with that damage where the homography takes it.

    The detector may have overlooked in one photo what it found in the other, or have found another damage there. Its
    place is compared as if it had been found in both; since it was not, the pixels have to agree more. (By such pairs
    alone 188 of 195 rephotographs alert, 8 of 49 real pairs of one damage, and none of 679 pairs that look alike.)

    Args:
        query: of the photo in hand, as it is.
        match: a candidate.
        geometry: what was found of both.
        known: as in `compared`.

    Returns:
        Query and match, as given but for the damage of one, and what is found of these. None where not just one of
        them is a whole photo, where most of the place is not in it, or where the damage is not to be seen there.
    """
    whole = _is_whole(query)
    if whole == _is_whole(match):
        return None
    one = _with_damage(query, match, geometry.inverse().homography) if whole else query
    other = match if whole else _with_damage(match, query, geometry.homography)
    if one is None or other is None:
        return None
    found = compared(one, other, known=known)
    return None if found is None or found.alignment < MIN_CARRIED_ALIGNMENT else (one, other, found)


def _is_whole(sighting: Sighting) -> bool:
    return sighting.damage.type is DamageType.WHOLE


def _with_damage(whole: Sighting, other: Sighting, homography: NDArray[np.float64]) -> Sighting | None:
    """A whole photo with the damage of another, which the homography takes there."""
    box = bounds(homography, other.damage.box)
    inside = None if box is None else box.intersection(whole.window)
    if box is None or inside is None or inside.area < _MOST * box.area:
        return None
    return replace(whole, damage=replace(whole.damage, box=inside, type=other.damage.type))


def _closer(look: _Look, calibration: Calibration, closer: Closer, known: Registered) -> Iterator[_Look]:
    """The two again, closer, for as long as that is promising."""
    if look.geometry is None or not promising(look.signals, look.probability):
        return
    query, match = look.query, look.match
    for geometry in closer_looks(query, match, look.mirrored, look.geometry, closer, known):
        again = _told(query, match, calibration, look.mirrored, geometry)
        yield again
        if again.alerts or not promising(again.signals, again.probability):
            return


def promising(signals: Signals, probability: float) -> bool:
    """Whether a pair that has a homography and is no alert deserves a closer look."""
    return probability >= HOPELESS or signals.alignment >= HOPELESS_ALIGNMENT


def closer_looks(
    query: Sighting,
    match: Sighting,
    mirrored: bool,
    geometry: Geometry,
    closer: Closer,
    known: Registered | None = None,
) -> Iterator[Geometry]:
    """What both windows show, compared anew, and once more as what that finds they show; ends where nothing is new.

    Args:
        query: of the photo in hand, or its mirrored one.
        match: a candidate.
        mirrored: whether the query is.
        geometry: what the first look found; the overlap stays that of the windows.
        closer: sees a part of either window again.
        known: as in `compared`.
    """
    before = None
    for _ in range(CLOSER_LOOKS):
        if query.photo.uuid > match.photo.uuid:  # in one order, as in `compared`
            parts = shared(match, query, geometry.inverse())
            parts = None if parts is None else parts[::-1]
        else:
            parts = shared(query, match, geometry)
        if parts is None or parts == before:
            return
        one, other = closer(query, parts[0], mirrored), closer(match, parts[1], False)
        found = None if one is None or other is None else compared(one, other, mirrored, known)
        if found is None:
            return
        before, geometry = parts, replace(found, overlap=geometry.overlap)
        yield geometry


def _told(
    query: Sighting, match: Sighting, calibration: Calibration, mirrored: bool, geometry: Geometry | None
) -> _Look:
    signals = measure(query, match, geometry, calibration)
    identical = not mirrored and query.photo.sha256 == match.photo.sha256
    probability = 1.0 if identical else calibration.probability(signals)
    kind = kind_of(query, match, geometry, signals, mirrored, probability, calibration.thresholds)
    if identical:
        kind = AlertKind.DUPLICATE_PHOTO
    if kind is None:
        return _Look(query, match, mirrored, geometry, signals, probability, None)
    homography: tuple[float, ...] = ()
    points: tuple[tuple[float, float, float, float], ...] = ()
    if geometry is not None:
        homography = tuple(float(v) for v in geometry.homography.ravel())
        rows = geometry.points[:MAX_POINTS].tolist()
        points = tuple((query.width - x if mirrored else x, y, u, v) for x, y, u, v in rows)
    found = Match(query, match, kind, mirrored, probability, signals, homography, points)
    return _Look(query, match, mirrored, geometry, signals, probability, found)


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
