"""The values that the parts of damagewatch hand to each other: frozen, validated, without I/O.

Words: a *photo* belongs to a *claim* of a *tenant* (one insurer); a *damage* is one region of one photo; a
*match* is a pair of damages; an *alert* is a published match. Coordinates are pixels of the upright photo
(EXIF orientation applied), x to the right, y down, origin at the top left corner of the top left pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from types import MappingProxyType
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

NAMESPACE = UUID("6f1d1c52-8a1e-5d0e-9f0b-64616d616765")
"""Root of every UUIDv5 (RFC 9562, section 5.5) that damagewatch derives."""

Polygon = tuple[tuple[float, float], ...]
Point = tuple[float, float]


def derive_id(*parts: str) -> UUID:
    """A UUIDv5 of `parts`. Each is prefixed by its length, so that ("ab", "c") and ("a", "bc") differ."""
    return uuid5(NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts))


class DamageType(StrEnum):
    """What kind of damage a region shows. WHOLE stands for the whole photo, indexed beside its damages."""

    SCRATCH = "scratch"
    DENT = "dent"
    BROKEN = "broken"
    WHOLE = "whole"


class Severity(StrEnum):
    """How bad a damage is. UNKNOWN for the whole photo."""

    UNKNOWN = "unknown"
    MINOR = "minor"
    MODERATE = "moderate"
    SEVERE = "severe"


class AlertKind(StrEnum):
    """What was seen again."""

    DUPLICATE_PHOTO = "DUPLICATE_PHOTO"
    """The same picture: re-encoded, cropped, scaled or mirrored."""
    SAME_DAMAGE = "SAME_DAMAGE"
    """The same physical damage in another photograph."""
    SIMILAR_DAMAGE = "SIMILAR_DAMAGE"
    """Looks alike, geometry silent. Off by default."""


class Reason(StrEnum):
    """Why a record cannot be processed: the reason code of a dead letter. A contract: only ever added to."""

    MESSAGE_UNREADABLE = "message_unreadable"
    CONTENT_TYPE_UNKNOWN = "content_type_unknown"
    FIELD_MISSING = "field_missing"
    FIELD_INVALID = "field_invalid"
    PHOTO_MISSING = "photo_missing"
    PHOTO_EMPTY = "photo_empty"
    PHOTO_TOO_LARGE = "photo_too_large"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_UNSUPPORTED = "format_unsupported"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_SCANS = "too_many_scans"
    DIMENSIONS_INVALID = "dimensions_invalid"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    REFERENCE_INVALID = "reference_invalid"
    REFERENCE_NOT_ALLOWED = "reference_not_allowed"
    REFERENCE_NOT_FOUND = "reference_not_found"
    PROCESSING_FAILED = "processing_failed"


class Refused(Exception):
    """This input can never be processed: it goes to the dead letters, and nothing else is harmed.

    `stage` names the step that refused it (parse, fetch, decode, ...); `detail` is one line for a person.
    """

    def __init__(self, reason: Reason, detail: str, stage: str) -> None:
        super().__init__(f"{stage}: {reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.stage = stage


class DependencyDownError(Exception):
    """Something that we need (index, evidence store, object store) does not answer now: try again."""

    def __init__(self, dependency: str, detail: str) -> None:
        super().__init__(f"{dependency}: {detail}")
        self.dependency = dependency
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright photo, half open: x0 <= x < x1, y0 <= y < y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (isfinite(self.x0) and isfinite(self.y0) and isfinite(self.x1) and isfinite(self.y1)):
            raise ValueError(f"box with a value that is not finite: {self}")
        if self.x1 < self.x0 or self.y1 < self.y0:
            raise ValueError(f"box whose end lies before its start: {self}")

    @property
    def width(self) -> float:
        """Pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Pixels."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Pixels squared."""
        return self.width * self.height

    @property
    def centre(self) -> Point:
        """The middle, as x, y."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def intersection(self, other: Box) -> Box | None:
        """What both cover, or None where they do not overlap."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        common = self.intersection(other)
        if common is None:
            return 0.0
        return common.area / (self.area + other.area - common.area)


@dataclass(frozen=True, slots=True)
class PhotoRef:
    """Which photo: names, and the SHA-256 of its bytes, so that a reused name never hides another photo."""

    tenant: str
    claim_id: str
    photo_id: str
    sha256: str

    @property
    def uuid(self) -> UUID:
        """Derived from all four fields: the same photo always has the same."""
        return _photo_uuid(self)

    def damage_id(self, ordinal: int) -> UUID:
        """Of the photo's region number `ordinal`: 0 is the whole photo, damages count from 1 by score."""
        return derive_id("damage", str(self.uuid), str(ordinal))


@lru_cache(maxsize=1024)  # of each photo asked for once a damage and once a pair
def _photo_uuid(photo: PhotoRef) -> UUID:
    return derive_id("photo", photo.tenant, photo.claim_id, photo.photo_id, photo.sha256)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where on the stream a photo came from.

    `topic_id` is the broker's UUID of the topic (KIP-516), which tells a topic from another that later had
    its name.
    """

    topic_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class ClaimImage:
    """A claim photo as it arrives: bytes inline, or a reference (exactly one of the two)."""

    tenant: str
    claim_id: str
    photo_id: str
    content: bytes | None = None
    uri: str | None = None
    captured_at: datetime | None = None
    received_at: datetime | None = None
    date_of_loss: date | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged region of one photo, as the detector saw it (or the whole photo: type WHOLE).

    `polygons` are its outlines; `score` in 0..1 is the detector's confidence, 1 for the whole photo.
    """

    damage_id: UUID
    box: Box
    polygons: tuple[Polygon, ...]
    type: DamageType
    severity: Severity
    score: float


@dataclass(frozen=True, slots=True)
class PhotoSeverity:
    """How badly a photo's car is damaged, as a whole: the probability of each class, together 1 but for rounding."""

    minor: float
    moderate: float
    severe: float

    @property
    def severity(self) -> Severity:
        """The likeliest class; of equals the worse."""
        shares = {
            Severity.SEVERE: self.severe,
            Severity.MODERATE: self.moderate,
            Severity.MINOR: self.minor,
        }
        return max(shares, key=shares.__getitem__)


@dataclass(frozen=True, slots=True, eq=False)
class LocalFeatures:
    """Local features of one window of a photo, N of them, strongest first.

    `points` float32 (N, 2): x, y in pixels of the upright photo. `descriptors` int8 (N, 64): the unit-length
    XFeat descriptor times 127 (research: as good as float32 at a quarter of the bytes).
    """

    points: NDArray[np.float32]
    descriptors: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """A damage with all that is remembered of it: what the index stores, and what a search returns.

    `embedding` float32 (D,), L2-normalised. `window` is the damage's box with context: the part of the photo
    that was embedded, kept as the crop under `crop_uri` (empty until kept). `thumbnail` uint8 (64, 64): the
    window in grey, for comparing the damages after warping one onto the other. `photo_hash` is the 64-bit
    perceptual hash of the whole photo. `origin` is None outside the stream.
    """

    photo: PhotoRef
    damage: Damage
    width: int
    height: int
    window: Box
    embedding: NDArray[np.float32]
    features: LocalFeatures
    thumbnail: NDArray[np.uint8]
    photo_hash: int
    crop_uri: str = ""
    origin: Origin | None = None
    received_at: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Signals:
    """What was measured of a pair of damages; the probability is made of these and nothing else."""

    cosine: float
    """Of the two embeddings, -1 to 1."""
    inliers: int
    """Matched points that agree with one homography."""
    focus_inliers: int
    """Those of them on and around both damages."""
    inlier_ratio: float
    """Inliers over mutual nearest neighbours, 0 to 1."""
    alignment: float
    """Normalised cross-correlation of the two damages after warping one onto the other, -1 to 1."""
    overlap: float
    """Share of the query's window that the warped match covers, 0 to 1."""
    hash_distance: int
    """Bits in which the photos' perceptual hashes differ, 0 to 64; of the mirrored photo where mirrored."""
    distinctness: float = 0.0
    """How seldom features like the matched ones agree on different cars, 0 to 1: wheels, lamps and backgrounds
    low, the irregular marks of a damage high. 0 where none were matched."""
    whole: bool = False
    """Whether one of the two is a whole photo, not a detected damage: look-alikes then agree in more."""


@dataclass(frozen=True, slots=True)
class Match:
    """A judged pair of sightings, the query as its photo is even where `mirrored`.

    `homography` (row-major 3x3) maps query pixels to match pixels, after the query was mirrored left to right
    where `mirrored`. `points` are matched pixels: query x, y (as the photo is), match x, y.
    """

    query: Sighting
    match: Sighting
    kind: AlertKind
    mirrored: bool
    probability: float
    signals: Signals
    homography: tuple[float, ...] = ()
    points: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class AlertSide:
    """One of the two damages of an alert, with where to look at it."""

    tenant: str
    claim_id: str
    photo_id: str
    damage_id: UUID
    sha256: str
    box: Box
    type: DamageType
    severity: Severity
    crop_uri: str
    crop_box: Box
    width: int
    height: int
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """A damage that was seen before in another claim: one alert a pair of photos, naming its best match."""

    alert_id: UUID
    kind: AlertKind
    probability: float
    mirrored: bool
    query: AlertSide
    match: AlertSide
    signals: Signals
    models: Mapping[str, str]
    decided_at: datetime
    homography: tuple[float, ...] = ()
    points: tuple[tuple[float, float, float, float], ...] = ()

    @staticmethod
    def id_of(one: PhotoRef, other: PhotoRef) -> UUID:
        """The same for (a, b) and (b, a), so that two workers that both see a pair publish one id."""
        return derive_id("alert", *sorted((str(one.uuid), str(other.uuid))))


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one photo: published once for every photo that was processed.

    `severity` is that of the photo as a whole; None where no model could grade it.
    """

    photo: PhotoRef
    width: int
    height: int
    damages: tuple[Damage, ...]
    models: Mapping[str, str]
    decided_at: datetime
    severity: PhotoSeverity | None = None


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of an erased claim."""

    tenant: str
    claim_id: str
    points: int
    crops: int
    erased_at: datetime


def sha256_of(content: bytes) -> str:
    """Lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()
