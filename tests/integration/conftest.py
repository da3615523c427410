from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import pytest
from trials.photos import TrialPhoto, TrialSet
from trials.stand import Stand, Stream

from damagewatch.domain import DamageType
from damagewatch.synthesis.drawn.camera import Standpoint, photograph
from damagewatch.synthesis.drawn.car import Car, View, draw
from damagewatch.synthesis.drawn.damage import DAMAGES
from damagewatch.synthesis.drawn.place import street
from damagewatch.synthesis.expectations import Pair

SUBJECTS = (
    (View.DOORS, DamageType.DENT, "silver"),
    (View.REAR_WING, DamageType.SCRATCH, "red"),
    (View.FRONT_WING, DamageType.BROKEN, "white"),
    (View.TAIL, DamageType.DENT, "blue"),
)
PHOTOS_EACH = 4


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> TrialSet:
    """Sixteen drawn photos in as many claims, eight of them in eight more: cut, made smaller, stored anew."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    originals: list[TrialPhoto] = []
    copies: list[TrialPhoto] = []
    planted: set[Pair] = set()

    def kept(image: np.ndarray, claim: str, name: str, original: Path | None = None) -> TrialPhoto:
        path = folder / f"{claim}-{name}"
        path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
        return TrialPhoto(claim, name, path, original or path)

    for number, (view, damage, paint) in enumerate(SUBJECTS):
        surface = draw(Car(number, paint, number), view)
        DAMAGES[damage](surface, 560, 420, 280, rng)
        for shot in range(PHOTOS_EACH):
            standpoint = Standpoint.near((560.0, 420.0), rng, 1.0)
            image = photograph(surface, street(rng), standpoint, rng, width=480, height=360).image
            original = kept(image, f"claim-{number}{shot}", "photo.jpg")
            originals.append(original)
            if shot % 2:
                continue
            smaller = cv2.resize(image[16:-20, 30:-12], None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA)
            copies.append(kept(smaller, f"again-{number}{shot}", "again.jpg", original.path))
            planted.add(frozenset((original.key, copies[-1].key)))
    everything = [*originals, *copies]
    order = rng.permutation(len(everything))
    return TrialSet(tuple(everything[i] for i in order), frozenset(planted), {})


@pytest.fixture(scope="session")
def stand(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Stand:
    return Stand(kafka_bootstrap, tmp_path_factory.mktemp("stand") / "stand")


@pytest.fixture(scope="session")
def make_stream(stand: Stand) -> Callable[..., Stream]:
    """Streams that share nothing, of two partitions unless told otherwise."""
    tag, numbers = uuid4().hex[:8], count(1)
    return lambda partitions=2: stand.stream(f"matcher-{tag}-{next(numbers)}", partitions)
