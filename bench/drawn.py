"""Photos for the benchmark: as many as asked for, each of another car.

In a stream nearly every photo shows what no other claim does. Photos of the few cars of the demo look alike, and
are verified against each other by the dozen; so here model, paint, wear, side, damage, place and standpoint differ
from photo to photo. They are drawings still: plain panels in front of a few kinds of places look more alike than
photographs do, and are larger (1280 x 960) than many of these. For figures of a real stream give real photos.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from damagewatch.synthesis.drawn.camera import Standpoint, photograph
from damagewatch.synthesis.drawn.car import PAINTS, Car, View, draw
from damagewatch.synthesis.drawn.damage import DAMAGES
from damagewatch.synthesis.drawn.place import street, workshop

WIDTH, HEIGHT = 1280, 960
QUALITY = 88


def drawn(count: int) -> list[bytes]:
    """JPEG files of `count` cars; the first ones are the same for every count."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(_photo, range(count)))


def _photo(number: int) -> bytes:
    rng = np.random.default_rng([7, number])
    car = Car(int(rng.integers(1_000_000)), str(rng.choice(list(PAINTS))), int(rng.integers(1_000_000)))
    surface = draw(car, list(View)[rng.integers(len(View))])
    damage = list(DAMAGES.values())[rng.integers(len(DAMAGES))]
    x, y = rng.uniform(330, 780), rng.uniform(330, 560)
    damage(surface, x, y, rng.uniform(180, 340), rng)
    place = (street if rng.random() < 0.65 else workshop)(rng)
    photo = photograph(surface, place, Standpoint.near((x, y), rng), rng, width=WIDTH, height=HEIGHT)
    return cv2.imencode(".jpg", photo.image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
