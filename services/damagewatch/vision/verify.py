"""Whether two windows show one thing: local features agree with one homography, and pixels agree under it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, DamageType, LocalFeatures, Sighting
from damagewatch.vision import regions

Matrix = NDArray[np.float64]

MIN_COSINE = 0.82
"""Of two descriptors, as in XFeat's own matcher."""
MIN_INLIERS = 10
"""Random matches reach 5 or 6."""

_FRAME = 384.0
"""Windows are compared in a frame of this many pixels, the scale at which features were found."""
_TOLERANCE = 4.0
_ITERATIONS = 2000
_ROUGH_TOLERANCE = 6.0
_ROUGH_ITERATIONS = 200
_MAX_SCALE = 6.0
_NOTHING = np.empty((0, 0), np.float32)
_STRONGEST = 128
_MIN_GLANCE = 6
_DETAIL = 3 / 64
"""Standard deviation of the blur that is taken off before pixels are compared, over the thumbnail's side."""
_MIN_COMMON = 24
"""Thumbnail pixels that both must share for their alignment to mean anything."""
_MIN_HULL = 0.25
"""Share of a window within the outline of its matched points, from which on that outline is what is compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """What a homography that maps the query onto the match says.

    `homography` float64 (3, 3) maps query pixels to match pixels. `points` float32 (N, 4) are the matched
    points that agree with it: query x, y, match x, y; `descriptors` float32 (N, 64) what they look like, the
    mean of both sides. `perspective` is how far it is from affine: the relative change of depth from the middle
    of the query's photo to its edge, 0 for a crop, scaling or rotation. `extent` is how far the points spread, from
    the tenth to the ninetieth in a hundred along x or y, whichever is more, over the longer side of the window; the
    less of both. The others are as in `domain.Signals`.
    """

    homography: Matrix
    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    focus_inliers: int
    inlier_ratio: float
    alignment: float
    overlap: float
    perspective: float
    extent: float

    @property
    def inliers(self) -> int:
        """Matched points that agree with the homography."""
        return len(self.points)

    def inverse(self) -> Geometry:
        """The same from the match's side. What was measured stays as it was measured."""
        homography = np.linalg.inv(self.homography)
        return replace(
            self,
            homography=homography / homography[2, 2],
            points=np.ascontiguousarray(self.points[:, [2, 3, 0, 1]]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """How one window lies in another: the part of a `Geometry` that the damages in them have no say in."""

    homography: Matrix
    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    inlier_ratio: float


def register(query: Sighting, match: Sighting) -> Registration | None:
    """Looks for a homography between two windows; None where there is none of sane shape."""
    if glance(query.features, match.features) < _MIN_GLANCE:
        return None
    one, other = mutual_neighbours(query.features, match.features)
    if len(one) < MIN_INLIERS:
        return None
    source = query.features.points[one]
    target = match.features.points[other]
    to_query_frame, to_match_frame = _to_frame(query.window), _to_frame(match.window)
    framed = _project(to_query_frame, source), _project(to_match_frame, target)
    if not _promising(*framed):
        return None
    found, mask = cv2.findHomography(
        *framed, cv2.USAC_MAGSAC, _TOLERANCE, maxIters=_ITERATIONS, confidence=0.999
    )
    if found is None or mask is None:
        return None
    agree = mask[:, 0].astype(bool)
    if agree.sum() < MIN_INLIERS or not _sane(np.asarray(found), framed[0][agree]):
        return None
    homography = np.linalg.inv(to_match_frame) @ found @ to_query_frame
    if abs(homography[2, 2]) > 1e-9 * np.abs(homography).max():
        homography /= homography[2, 2]
    points = np.concatenate([source[agree], target[agree]], axis=1).astype(np.float32)
    descriptors = np.asarray(query.features.descriptors[one[agree]], np.float32)
    descriptors = (descriptors + match.features.descriptors[other[agree]]) / np.float32(2 * 127)
    return Registration(homography, points, descriptors, float(agree.mean()))


def _promising(source: NDArray[np.float64], target: NDArray[np.float64]) -> bool:
    """Whether a rough homography finds inliers enough: in a sixth of the time of the thorough one.

    Of 96 pairs of different photos that the thorough one gives up it stops 61 in 100 at once, of 287 pairs of
    rephotographs that it accepts none.
    """
    _, mask = cv2.findHomography(
        source, target, cv2.USAC_FAST, _ROUGH_TOLERANCE, maxIters=_ROUGH_ITERATIONS, confidence=0.99
    )
    return mask is not None and int(mask.sum()) >= MIN_INLIERS


def verify(query: Sighting, match: Sighting) -> Geometry | None:
    """Whether two damages are one, as far as geometry tells; None where their windows have nothing in common.

    A mirrored copy is found by passing the query as `mirrored` made it.
    """
    registration = register(query, match)
    return None if registration is None else on_damages(query, match, registration)


def on_damages(query: Sighting, match: Sighting, registration: Registration) -> Geometry:
    """What a registration of their windows says of two damages."""
    query_focus, match_focus = focus(query), focus(match)
    alignment, overlap = align(query, match, registration)
    source, target = registration.points[:, :2], registration.points[:, 2:]
    return Geometry(
        homography=registration.homography,
        points=registration.points,
        descriptors=registration.descriptors,
        focus_inliers=int((_within(query_focus, source) & _within(match_focus, target)).sum()),
        inlier_ratio=registration.inlier_ratio,
        alignment=alignment,
        overlap=overlap,
        perspective=_perspective(registration.homography, query.width, query.height),
        extent=min(_extent(source, query.window), _extent(target, match.window)),
    )


def glance(one: LocalFeatures, other: LocalFeatures) -> int:
    """Mutual neighbours among the strongest 128 features of either: a sixteenth of the work of all.

    Of 7,721 pairs of different photos that the index found alike, 91% have fewer than 6; of 120 pairs of
    rephotographs that have a geometry, 2, and both had too few inliers for an alert.
    """
    return len(mutual_neighbours(_strongest(one), _strongest(other))[0])


def _strongest(features: LocalFeatures) -> LocalFeatures:
    return LocalFeatures(features.points[:_STRONGEST], features.descriptors[:_STRONGEST])


def mutual_neighbours(one: LocalFeatures, other: LocalFeatures) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the pairs that are each other's nearest, of cosine at least `MIN_COSINE`, best first."""
    if not len(one) or not len(other):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    # Whole numbers below 2**24: exact in float32, so that no BLAS and no order of sums decides a tie.
    a, b = one.descriptors.astype(np.float32), other.descriptors.astype(np.float32)
    forward = _products(a, b)
    nearest = forward.argmax(axis=1)
    similarity = forward[np.arange(len(a)), nearest]
    close = np.flatnonzero(similarity >= MIN_COSINE * 127**2)
    # A second product of those few costs less than an argmax along the wrong axis of the first.
    chosen = close[_products(b[nearest[close]], a).argmax(axis=1) == close] if len(close) else close
    chosen = chosen[np.argsort(-similarity[chosen], kind="stable")]
    return chosen, nearest[chosen]


def _products(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each of (N, D) with each of (M, D): float32 (N, M).

    OpenCV's product stays on this thread; numpy's spreads over all cores by OpenBLAS, where nobody told it not to
    (`damagewatch` does, if it is imported first), and takes 30 ms instead of 0.3 when they are busy.
    """
    return np.asarray(cv2.gemm(one, other, 1.0, _NOTHING, 0.0, flags=cv2.GEMM_2_T), np.float32)


def focus(sighting: Sighting) -> Box:
    """On and around a damage: its box grown by half of it or by 5% of the photo, whichever is more.

    For a whole photo its window.
    """
    if sighting.damage.type is DamageType.WHOLE:
        return sighting.window
    box = sighting.damage.box
    by_x = max(0.5 * box.width, 0.05 * sighting.width) / 2
    by_y = max(0.5 * box.height, 0.05 * sighting.height) / 2
    grown = Box(box.x0 - by_x, box.y0 - by_y, box.x1 + by_x, box.y1 + by_y)
    return grown.intersection(Box(0, 0, sighting.width, sighting.height)) or box


def align(query: Sighting, match: Sighting, registration: Registration) -> tuple[float, float]:
    """Warps one thumbnail onto the other and compares the pixels.

    Without their slow changes: light falls otherwise on every photograph, and two cars of one shape agree in
    what is left of their shading. (On 419 real pairs of different cars that share a background, and 126
    rephotographs, this found 92% at one false pair in a hundred; the plain correlation 36%.)

    Of a whole photo what lies between the matched points is compared, if that is a good part of it: a car cut out and
    put before another background is the same picture within. (Of 100 such photos 94 then align by 0.98 and more, none
    otherwise; of 1,973 pairs of different cars or other damages none by more than 0.94, as before.)

    Returns:
        Alignment, the normalised cross-correlation on the two damages, -1 to 1, 0 if they share too little;
        and the share of the query's window that lies within the match's, 0 to 1.
    """
    to_query, to_match = _to_thumbnail(query), _to_thumbnail(match)
    between = to_match @ registration.homography @ np.linalg.inv(to_query)
    source = _project(to_query, registration.points[:, :2])
    target = _project(to_match, registration.points[:, 2:])
    everything = np.full(query.thumbnail.shape, 255, np.uint8)
    overlap = float(_warped_mask(everything, np.linalg.inv(between), query.thumbnail.shape[0]).mean())
    if _spread(source) < _spread(target):
        # The finer onto the coarser: a window of less of the car holds detail that the other cannot have.
        query, match, source, target, between = match, query, target, source, np.linalg.inv(between)
    size = match.thumbnail.shape[0]
    warped = cv2.warpPerspective(query.thumbnail, between, (size, size), flags=cv2.INTER_LINEAR)
    covered = _warped_mask(_box_mask(query, query.window), between, size)
    if DamageType.WHOLE in {query.damage.type, match.damage.type}:
        inside = _hull(target, match.thumbnail)
        if max(inside.mean(), _hull(source, query.thumbnail).mean()) >= _MIN_HULL:
            covered &= inside
    on_query = _warped_mask(_box_mask(query, focus(query)), between, size)
    common = covered & (on_query | (_box_mask(match, focus(match)) > 0))
    if common.sum() < _MIN_COMMON:
        return 0.0, overlap
    one, other = _detail(np.asarray(warped), covered), _detail(match.thumbnail, covered)
    return correlation(one[common], other[common]), overlap


def _spread(points: NDArray[np.float64]) -> float:
    """Mean distance of points from their middle, squared."""
    return float(points.var(axis=0).sum())


def _hull(points: NDArray[np.float64], like: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True within the convex hull of points, in an array of that shape."""
    mask = np.zeros(like.shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(np.clip(points, -1e4, 1e4)).astype(np.int32)), 1)
    return mask > 0


def _detail(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What differs from the weighted mean of the masked pixels around."""
    weight = mask.astype(np.float32)
    sigma = _DETAIL * len(image)
    mean = cv2.GaussianBlur(image * weight, (0, 0), sigma) / (cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-6)
    return np.asarray(image - mean, np.float32)


def correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Normalised cross-correlation of two lists of values, -1 to 1; 0 where one is constant."""
    a = one.astype(np.float64) - one.mean()
    b = other.astype(np.float64) - other.mean()
    norm = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float(np.clip((a * b).sum() / norm, -1, 1)) if norm > 1e-9 else 0.0


def mirrored(sighting: Sighting, features: LocalFeatures, photo_hash: int) -> Sighting:
    """The sighting as it would have been in the mirrored photo, but for the embedding, which stays.

    Args:
        sighting: of the photo as it is.
        features: of the mirrored window, in pixels of the mirrored photo.
        photo_hash: of the mirrored photo.
    """
    damage = replace(sighting.damage, box=regions.mirrored(sighting.damage.box, sighting.width))
    return replace(
        sighting,
        damage=damage,
        window=regions.mirrored(sighting.window, sighting.width),
        features=features,
        thumbnail=np.ascontiguousarray(sighting.thumbnail[:, ::-1]),
        photo_hash=photo_hash,
    )


def _to_frame(window: Box) -> Matrix:
    scale = _FRAME / max(window.width, window.height)
    return np.array([[scale, 0, -scale * window.x0], [0, scale, -scale * window.y0], [0, 0, 1]])


def _to_thumbnail(sighting: Sighting) -> Matrix:
    """From photo pixels to indices of thumbnail pixels, whose centres lie at halves."""
    rows, columns = sighting.thumbnail.shape
    x, y = columns / sighting.window.width, rows / sighting.window.height
    window = sighting.window
    return np.array([[x, 0, -x * window.x0 - 0.5], [0, y, -y * window.y0 - 0.5], [0, 0, 1]])


def _project(matrix: Matrix, points: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(cv2.perspectiveTransform(points[:, None].astype(np.float64), matrix)[:, 0])


def _sane(homography: Matrix, points: NDArray[np.float64]) -> bool:
    """Whether the inliers' bounding box keeps its orientation, stays convex, and its size within reason."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    area = (x1 - x0) * (y1 - y0)
    if area <= 0 or not np.isfinite(homography).all() or not _in_front(homography, corners):
        return False
    if abs(np.linalg.det(homography)) < 1e-9:
        return False
    image = _project(homography, corners.astype(np.float32))
    edges = np.roll(image, -1, axis=0) - image
    turns = edges[:, 0] * np.roll(edges[:, 1], -1) - edges[:, 1] * np.roll(edges[:, 0], -1)
    if (turns <= 0).any():  # a mirrored or folded quadrilateral
        return False
    grown = math.sqrt(abs(float(cv2.contourArea(image.astype(np.float32)))) / area)
    return 1 / _MAX_SCALE <= grown <= _MAX_SCALE


def bounds(homography: Matrix, box: Box) -> Box | None:
    """The upright box around where a homography takes a box; None where part of it comes to lie behind the camera."""
    corners = np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]], np.float32)
    if not _in_front(homography, corners):
        return None
    moved = _project(homography, corners)
    (x0, y0), (x1, y1) = moved.min(axis=0).tolist(), moved.max(axis=0).tolist()
    return Box(x0, y0, x1, y1) if np.isfinite(moved).all() else None


def _in_front(homography: Matrix, corners: NDArray[Any]) -> bool:
    """Whether no part of what has these corners comes to lie behind the camera."""
    depth = corners @ homography[2, :2] + homography[2, 2]
    return not (depth * depth[0] <= 0).any()


def _perspective(homography: Matrix, width: int, height: int) -> float:
    half = max(width, height) / 2
    middle = homography[2] @ np.array([width / 2, height / 2, 1])
    return float(np.abs(homography[2, :2]).max() * half / max(abs(middle), 1e-12))


def _extent(points: NDArray[np.float32], window: Box) -> float:
    ends = np.percentile(points, (10, 90), axis=0)
    return float((ends[1] - ends[0]).max()) / max(window.width, window.height)


def _within(box: Box, points: NDArray[np.float32]) -> NDArray[np.bool_]:
    x, y = points[:, 0], points[:, 1]
    return (x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1)


def _box_mask(sighting: Sighting, box: Box) -> NDArray[np.uint8]:
    """uint8 of the thumbnail's shape: 255 where its pixels show the box."""
    rows, columns = sighting.thumbnail.shape
    window = sighting.window
    x = columns / window.width
    y = rows / window.height
    mask = np.zeros((rows, columns), np.uint8)
    mask[
        max(0, math.floor((box.y0 - window.y0) * y)) : max(0, math.ceil((box.y1 - window.y0) * y)),
        max(0, math.floor((box.x0 - window.x0) * x)) : max(0, math.ceil((box.x1 - window.x0) * x)),
    ] = 255
    return mask


def _warped_mask(mask: NDArray[np.uint8], matrix: Matrix, size: int) -> NDArray[np.bool_]:
    return np.asarray(cv2.warpPerspective(mask, matrix, (size, size), flags=cv2.INTER_LINEAR)) > 250
