"""The demo's own photos: claims of drawn cars, some of which show a damage that was claimed before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from damagewatch.domain import AlertKind, DamageType
from damagewatch.synthesis.broken_files import broken_files
from damagewatch.synthesis.drawn.camera import Standpoint, photograph
from damagewatch.synthesis.drawn.car import Car, View, draw
from damagewatch.synthesis.drawn.damage import DAMAGES
from damagewatch.synthesis.drawn.place import Place, street, workshop
from damagewatch.synthesis.expectations import (
    DemoPhoto,
    DemoSet,
    ExpectedAlert,
    ExpectedRejection,
    PhotoKey,
)
from damagewatch.synthesis.rephotograph import Image

SEED = 1
"""Of the default set: returns and twins lie well apart in it, which not every seed gives."""
WIDTH = 1280
"""Pixels of a photo's longer side."""
QUALITY = 88


@dataclass(frozen=True, slots=True)
class Harm:
    """One damage to one car: where on the view (millimetres), about how large, and what makes it singular."""

    type: DamageType
    x: float
    y: float
    size: float
    number: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What a photo shows: a view of one car, damaged or not."""

    car: Car
    view: View
    harm: Harm | None = None


@dataclass(frozen=True, slots=True)
class Shot:
    """One photo to be drawn: photo `number` of `claim`.

    A visit's `first` is taken from near the middle: a little from the right, or from the left where the
    subject `returns` from an earlier claim.
    """

    claim: int
    number: int
    subject: Subject
    first: bool
    returns: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """A photo of another claim, handed in again as a changed file."""

    claim: int
    number: int
    source: Shot
    change: Callable[[bytes], bytes]
    kinds: frozenset[AlertKind]
    why: str


def demo_set(directory: Path, seed: int = SEED, *, width: int = WIDTH) -> DemoSet:
    """Draws the set into `directory`, a folder a claim, with `expected.json`. One seed draws the same bytes.

    Args:
        directory: Made where missing; photos of the same name are overwritten.
        seed: Of everything that chance decides.
        width: Pixels of a photo's longer side; its shape is 4:3.
    """
    shots, copies = _story(seed)
    files = _drawn(shots, seed, width)
    subject_of = {_key(s.claim, s.number): s.subject for s in shots}
    alerts = []
    for copy in copies:
        key, source = _key(copy.claim, copy.number), _key(copy.source.claim, copy.source.number)
        files[key] = copy.change(files[source])
        subject_of[key] = copy.source.subject
        alerts.append(ExpectedAlert(frozenset((source, key)), copy.kinds, copy.why))
    for one, other in combinations([s for s in shots if s.first and s.subject.harm], 2):
        if one.subject == other.subject:
            pair = frozenset((_key(one.claim, one.number), _key(other.claim, other.number)))
            why = f"the same {one.subject.harm.type if one.subject.harm else ''}, photographed again"
            alerts.append(ExpectedAlert(pair, frozenset({AlertKind.SAME_DAMAGE}), why))
    expected = {alert.pair for alert in alerts}
    uncounted = {
        frozenset((one, other))
        for one, other in combinations(sorted(subject_of), 2)
        if one[0] != other[0] and subject_of[one] == subject_of[other]
    }
    rejections = []
    for claim, broken in enumerate(broken_files(files[_key(1, 1)]), start=2):
        key = f"claim-{claim:04}", broken.name
        files[key] = broken.content
        rejections.append(ExpectedRejection(key, broken.reasons, broken.why))
    photos = []
    for (claim_id, photo_id), content in sorted(files.items()):
        path = directory / claim_id / photo_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        photos.append(DemoPhoto(claim_id, photo_id, path))
    result = DemoSet(
        directory,
        seed,
        tuple(photos),
        tuple(alerts),
        frozenset(uncounted - expected),
        tuple(rejections),
        True,
    )
    result.save()
    return result


def _story(seed: int) -> tuple[list[Shot], list[Copy]]:
    """Who claimed what. Twins are of one model and paint, but other cars with other damage."""

    def car(model: int, paint: str, wear: int) -> Car:
        return Car(100 * seed + model, paint, 100 * seed + wear)

    dent, scratch, broken = DamageType.DENT, DamageType.SCRATCH, DamageType.BROKEN
    silver, silver_twin = car(9, "silver", 1), car(9, "silver", 2)
    red, red_twin = car(2, "red", 3), car(2, "red", 4)
    white, white_twin = car(3, "white", 5), car(3, "white", 6)
    blue, blue_twin = car(4, "blue", 7), car(4, "blue", 8)
    graphite, green, beige = car(5, "graphite", 9), car(6, "green", 10), car(7, "beige", 11)
    silver_dent = Subject(silver, View.DOORS, Harm(dent, 400, 400, 270, 1))
    red_scratch = Subject(red, View.REAR_WING, Harm(scratch, 700, 360, 300, 2))
    white_broken = Subject(white, View.FRONT_WING, Harm(broken, 330, 560, 240, 3))
    visits: dict[int, list[tuple[Subject, int]]] = {
        1: [(silver_dent, 3), (Subject(silver, View.REAR_WING), 1)],
        2: [(red_scratch, 3)],
        3: [(white_broken, 3)],
        4: [(Subject(blue, View.TAIL, Harm(dent, 330, 620, 260, 4)), 3)],
        5: [(Subject(graphite, View.DOORS, Harm(scratch, 480, 480, 380, 5)), 3)],
        6: [(Subject(silver_twin, View.REAR_WING, Harm(dent, 660, 330, 240, 6)), 3)],
        7: [(Subject(red_twin, View.REAR_WING, Harm(scratch, 520, 130, 280, 7)), 2)],
        8: [(silver_dent, 2), (Subject(silver, View.TAIL), 1)],
        9: [(white_broken, 2)],
        10: [(red_scratch, 2), (Subject(red, View.FRONT_WING), 1)],
        11: [(Subject(green, View.TAIL, Harm(broken, 620, 640, 230, 8)), 2)],
        12: [(Subject(beige, View.REAR_WING, Harm(dent, 640, 380, 250, 9)), 2)],
        13: [(Subject(blue_twin, View.TAIL, Harm(scratch, 800, 640, 300, 10)), 2)],
        14: [(Subject(white_twin, View.FRONT_WING, Harm(dent, 700, 260, 260, 11)), 2)],
        15: [(Subject(green, view), 1) for view in (View.DOORS, View.REAR_WING, View.FRONT_WING)],
    }
    shots: list[Shot] = []
    for claim, subjects in visits.items():
        number = 0
        seen = {shot.subject for shot in shots}
        for subject, count in subjects:
            for i in range(count):
                number += 1
                shots.append(Shot(claim, number, subject, i == 0, subject in seen))
    by_number = {(s.claim, s.number): s for s in shots}
    duplicate = frozenset({AlertKind.DUPLICATE_PHOTO})
    either = duplicate | {AlertKind.SAME_DAMAGE}
    copies = [
        Copy(11, 3, by_number[4, 2], bytes, duplicate, "the same file"),
        Copy(
            12, 3, by_number[5, 1], _cropped, either, "the same photo, cropped, made smaller and stored anew"
        ),
        Copy(13, 3, by_number[12, 1], _mirrored, either, "the same photo, mirrored"),
    ]
    return shots, copies


def _drawn(shots: list[Shot], seed: int, width: int) -> dict[PhotoKey, bytes]:
    """The photos' files. A subject is drawn once, however often it is photographed, and a car at one place."""
    subjects = list(dict.fromkeys(shot.subject for shot in shots))
    homes = {shot.subject.car: shot.claim for shot in reversed(shots)}
    places = {shot.claim: _place(homes[shot.subject.car], seed) for shot in shots}

    def of(subject: Subject) -> Iterator[tuple[PhotoKey, bytes]]:
        surface = draw(subject.car, subject.view)
        harm, target = subject.harm, (560.0, 420.0)
        if harm:
            DAMAGES[harm.type](surface, harm.x, harm.y, harm.size, np.random.default_rng([seed, harm.number]))
            target = harm.x, harm.y
        for shot in shots:
            if shot.subject == subject:
                rng = np.random.default_rng([seed, shot.claim, shot.number])
                slant, turn = (0.3, -0.15 if shot.returns else 0.15) if shot.first else (1.0, 0.0)
                standpoint = Standpoint.near(target, rng, slant, turn)
                image = photograph(
                    surface, places[shot.claim], standpoint, rng, width=width, height=width * 3 // 4
                ).image
                yield _key(shot.claim, shot.number), _jpeg(image, QUALITY)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(photo for photos in threads.map(lambda s: list(of(s)), subjects) for photo in photos)


def _place(claim: int, seed: int) -> Place:
    rng = np.random.default_rng([seed, claim])
    return (street if rng.random() < 0.65 else workshop)(rng)


def _cropped(file: bytes) -> bytes:
    image = _image(file)
    height, width = image.shape[:2]
    part = image[height // 20 : height - height // 12, width // 9 : width - width // 25]
    return _jpeg(cv2.resize(part, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA), 72)


def _mirrored(file: bytes) -> bytes:
    image = _image(file)
    return _jpeg(cv2.flip(image, 1), 84)


def _image(file: bytes) -> Image:
    return np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _jpeg(image: cv2.typing.MatLike, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _key(claim: int, number: int) -> PhotoKey:
    return f"claim-{claim:04}", f"photo-{number}.jpg"
