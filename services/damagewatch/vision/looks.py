"""Two photos compared, damage by damage: each look that it takes to find whether they show one damage.

As they are; the query mirrored; the damage of one in the other, where the detector may have overlooked it; and, where
none of these is an alert, closer. The calibration is fitted to these same looks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import AlertKind, Box, DamageType, Match, Sighting, Signals
from damagewatch.vision import decide
from damagewatch.vision.calibration import Calibration
from damagewatch.vision.closer import Closer, shared
from damagewatch.vision.verify import Geometry, Registration, bounds, on_damages, register

MIN_CARRIED_ALIGNMENT = 0.55
"""Where the detector found the damage in one photo alone. Of 195 rephotographs 194 agree so well, of 1,044 pairs of
photos of different cars 19, and none of these was probable."""
CLOSER_LOOKS = 2
"""The second sees better where both show the same: of 49 real pairs of one damage 29 alert with it, 27 without."""
HOPELESS, HOPELESS_ALIGNMENT = 0.01, 0.5
"""Below both a closer look is not worth its 30 milliseconds: one photo in five has a pair that is."""
MAX_POINTS = 200

_LEAST_INSIDE = 0.5
"""Share of a damage that lies in the other photo, where it is carried over."""
_RANK = {AlertKind.SIMILAR_DAMAGE: 0, AlertKind.SAME_DAMAGE: 1, AlertKind.DUPLICATE_PHOTO: 2}

Mirror = Callable[[Sighting], Sighting]
"""Makes the mirrored query (`Perceived.mirrored`)."""

Registered = dict[tuple[bool, Box, Box], Registration | None]
"""Of two photos: registrations by whether the query is mirrored, its window, and the match's, or parts of these."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What came of comparing two sightings, the query being `mirrored`; `found` is None where they are no alert.

    `query` and `match` are as they were compared: the query perhaps mirrored, one perhaps with the other's damage;
    of a closer look `geometry` is of parts of their windows. `shown` are the two as found, for who reads the match.
    """

    query: Sighting
    match: Sighting
    shown: tuple[Sighting, Sighting]
    mirrored: bool
    geometry: Geometry | None
    signals: Signals
    probability: float
    found: Match | None

    @property
    def alerts(self) -> bool:
        """Whether they are one damage or one photo, not only alike."""
        return self.found is not None and self.found.kind is not AlertKind.SIMILAR_DAMAGE

    @property
    def promising(self) -> bool:
        """Whether they deserve a closer look."""
        probable = self.probability >= HOPELESS or self.signals.alignment >= HOPELESS_ALIGNMENT
        return self.geometry is not None and probable and not self.alerts


def at_photos(
    first: Sequence[tuple[Sighting, Sighting]],
    queries: Sequence[Sighting],
    theirs: Callable[[], Iterable[Sighting]],
    calibration: Calibration,
    least_cosine: float,
    mirrored: Mirror | None = None,
    closer: Closer | None = None,
) -> list[Look]:
    """All looks at two photos.

    The first few pairs tell whether the photos have anything in common; if so, their other damages are compared too,
    and all of them looked at closer where none is an alert.

    Args:
        first: pairs of a damage of the photo in hand and one of the other, always the same two photos.
        queries: all damages of the photo in hand.
        theirs: asks for all those of the other photo; called once at most.
        calibration: probability and thresholds.
        least_cosine: of two damages that are compared, unless something else speaks for it.
        mirrored: as in `judge`; asked of whole photos alone: to turn every damage as well costs an inference each.
        closer: as in `judge`.
    """
    known: Registered = {}

    def at(pairs: Iterable[tuple[Sighting, Sighting]]) -> list[Look]:
        return [
            look
            for query, match in pairs
            for look in _looks(query, match, calibration, mirrored if _is_whole(query) else None, known)
        ]

    looks = at(first)
    if any(registration is not None for registration in known.values()):
        done = {(query.damage.damage_id, match.damage.damage_id) for query, match in first}
        others = [
            (query, match)
            for query, match in itertools.product(queries, theirs())
            if (query.damage.damage_id, match.damage.damage_id) not in done
            and _is_worth_comparing(query, match, known, least_cosine)
        ]  # chosen before any of them is compared: by what is `known` so far, whatever their order
        looks += at(others)
    return looks + _closer_looks(looks, calibration, closer, known)


def judge(
    query: Sighting,
    match: Sighting,
    calibration: Calibration,
    mirrored: Mirror | None = None,
    closer: Closer | None = None,
) -> Match | None:
    """Compares two sightings, in as many ways as it takes to find an alert.

    Args:
        query: of the photo in hand.
        match: a candidate.
        calibration: probability and thresholds.
        mirrored: makes the mirrored query; None leaves mirrored copies out.
        closer: sees a part of either window again; None: what the first look leaves open stays so.

    Returns:
        The match, or None where the pair is no alert.
    """
    known: Registered = {}
    looks = _looks(query, match, calibration, mirrored, known)
    looks += _closer_looks(looks, calibration, closer, known)
    return most_telling(look.found for look in looks)


def most_telling(found: Iterable[Match | None]) -> Match | None:
    """Of the matches between two photos the one that is told: by kind, then by probability."""
    matches = [match for match in found if match is not None]
    return max(matches, key=lambda match: (_RANK[match.kind], match.probability), default=None)


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


def _looks(
    query: Sighting, match: Sighting, calibration: Calibration, mirrored: Mirror | None, known: Registered
) -> list[Look]:
    """The looks at two sightings from where they were taken, until one is an alert."""
    shown = query, match
    plain = _told(query, match, shown, False, compared(query, match, known=known), calibration)
    looks = [plain]
    if plain.alerts:
        return looks
    if mirrored is not None and _alike(query, match) >= calibration.thresholds.mirrored_cosine:
        turned = mirrored(query)
        looks.append(_told(turned, match, shown, True, compared(turned, match, True, known), calibration))
        if looks[-1].alerts:
            return looks
    # Not of a mirrored query: the other side of a car is much like its mirror image.
    there = None if plain.geometry is None else _carried(query, match, plain.geometry, known)
    if there is not None:
        one, other, geometry = there
        looks.append(_told(one, other, shown, False, geometry, calibration))
    return looks


def _is_worth_comparing(query: Sighting, match: Sighting, known: Registered, least_cosine: float) -> bool:
    """Whether two damages of photos that have something in common may be one.

    They look alike; or share windows with others that were compared, so that they are registered already; or one is a
    whole photo that may show the other where it was not found (`_carried`), for the photos are registered.
    """
    photos = False, Box(0, 0, query.width, query.height), Box(0, 0, match.width, match.height)
    return (
        (False, query.window, match.window) in known
        or (_is_whole(query) != _is_whole(match) and known.get(photos) is not None)
        or _alike(query, match) >= least_cosine
    )


def _alike(query: Sighting, match: Sighting) -> float:
    return float(query.embedding @ match.embedding)


def _carried(
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
    if box is None or inside is None or inside.area < _LEAST_INSIDE * box.area:
        return None
    return replace(whole, damage=replace(whole.damage, box=inside, type=other.damage.type))


def _closer_looks(
    looks: Sequence[Look], calibration: Calibration, closer: Closer | None, known: Registered
) -> list[Look]:
    """The looks again, closer, where none of them is an alert."""
    if closer is None or any(look.alerts for look in looks):
        return []
    return [again for look in looks for again in _closer(look, calibration, closer, known)]


def _closer(look: Look, calibration: Calibration, closer: Closer, known: Registered) -> Iterator[Look]:
    """What both windows show, compared anew, and once more as what that finds they show.

    Ends where nothing is new, an alert is found or none is to be hoped for. The overlap stays that of the windows.
    """
    query, match, mirrored = look.query, look.match, look.mirrored
    before = None
    for _ in range(CLOSER_LOOKS):
        geometry = look.geometry
        if geometry is None or not look.promising:
            return
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
        before = parts
        found = replace(found, overlap=geometry.overlap)
        look = _told(query, match, look.shown, mirrored, found, calibration)
        yield look


def _told(
    query: Sighting,
    match: Sighting,
    shown: tuple[Sighting, Sighting],
    mirrored: bool,
    geometry: Geometry | None,
    calibration: Calibration,
) -> Look:
    signals = decide.measure(query, match, geometry, calibration)
    identical = not mirrored and query.photo.sha256 == match.photo.sha256
    probability = 1.0 if identical else calibration.probability(signals)
    kind = decide.kind_of(query, match, geometry, signals, mirrored, probability, calibration.thresholds)
    if identical:
        kind = AlertKind.DUPLICATE_PHOTO
    if kind is None:
        return Look(query, match, shown, mirrored, geometry, signals, probability, None)
    homography: tuple[float, ...] = ()
    points: tuple[tuple[float, float, float, float], ...] = ()
    if geometry is not None:
        homography = tuple(float(v) for v in geometry.homography.ravel())
        rows = geometry.points[:MAX_POINTS].tolist()
        points = tuple((query.width - x if mirrored else x, y, u, v) for x, y, u, v in rows)
    found = Match(*shown, kind, mirrored, probability, signals, homography, points)
    return Look(query, match, shown, mirrored, geometry, signals, probability, found)
