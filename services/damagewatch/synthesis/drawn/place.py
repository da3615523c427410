"""Where a car stands when it is photographed: the light it mirrors, and what one sees past it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.synthesis.drawn.noise import fractal

SIZE = 320
"""Pixels across the environment."""
Radiance = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The half world before the car: `sharp`, `soft`, `diffuse` float32 (SIZE, SIZE, 3), linear BGR.

    They are looked up by the x and y of a direction (-1..1, y down): `sharp` by where a clear coat mirrors
    to, `soft` by the same for a metallic base coat, `diffuse` by the surface's normal. `backdrop` float32
    (h, w, 3) is what stands behind the car.
    """

    sharp: Radiance
    soft: Radiance
    diffuse: Radiance
    backdrop: Radiance


def street(rng: np.random.Generator) -> Place:
    """Outside: sky, a skyline, asphalt; the sun behind clouds or not."""
    x, y = _directions()
    up = -y
    horizon = rng.uniform(-0.02, 0.1)
    blue = rng.uniform(0.0, 1.0)
    high = np.array([1.1, 0.8, 0.6]) * (0.6 + 0.2 * blue) + (1 - blue) * 0.5
    low = np.array([2.3, 2.3, 2.3]) * rng.uniform(0.8, 1.1)
    height = np.clip((up - horizon) / 0.9, 0, 1)[..., None] ** 0.6
    world = low * (1 - height) + high * height
    clouds = np.clip(fractal(SIZE, SIZE, 70, rng) * 0.5, 0, 1)[..., None]
    world = world + clouds * rng.uniform(0.2, 0.9)
    ground = np.array([0.2, 0.21, 0.22]) * rng.uniform(0.6, 1.7)
    grain = 1 + 0.12 * fractal(SIZE, SIZE, 40, rng)[..., None]
    near = np.clip((horizon - up) / 0.8, 0, 1)[..., None]
    world = np.where((up > horizon)[..., None], world, ground * grain * (1.15 - 0.5 * near))
    # Houses and trees: a wall of random height along the horizon, with windows.
    roofs = np.repeat(rng.uniform(0.02, 0.4, 14), SIZE // 14 + 1)[:SIZE] * rng.choice([0.5, 1.0])
    roofs = roofs + 0.006 * rng.standard_normal(SIZE) * (rng.random() < 0.5)
    house = (up > horizon - 0.02) & (up < horizon + roofs[None, :])
    tones = np.repeat(
        rng.uniform(0.06, 0.5, (14, 1)) * rng.uniform(0.75, 1.25, (14, 3)), SIZE // 14 + 1, axis=0
    )[:SIZE]
    world = np.where(house[..., None], tones[None] * (0.8 + 0.4 * grain), world)
    for _ in range(rng.integers(4, 12)):
        i, j = rng.integers(0, SIZE - 12), int((1 - horizon - rng.uniform(0, 0.2)) * SIZE / 2)
        world[max(j - 6, 0) : j, i : i + rng.integers(3, 10)] = rng.uniform(0.02, 1.2)
    if rng.random() < 0.7:
        sx, sy = rng.uniform(-0.7, 0.7), rng.uniform(-0.75, -0.35)
        sun = np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / 2 / rng.uniform(0.03, 0.06) ** 2)
        world = world + sun[..., None] * np.array([0.85, 0.97, 1.0]) * rng.uniform(4, 22)
    return _place(world, x, y, _outside_backdrop(rng), rng)


def workshop(rng: np.random.Generator) -> Place:
    """Inside: lamps under the roof, walls, a bright gate, a painted floor."""
    x, y = _directions()
    tone = np.array([rng.uniform(0.85, 1.05), 1.0, rng.uniform(0.9, 1.1)])
    world = (0.16 + 0.05 * fractal(SIZE, SIZE, 60, rng))[..., None] * tone * rng.uniform(0.7, 1.5)
    floor = y > rng.uniform(0.02, 0.15)
    world = np.where(floor[..., None], np.array([0.3, 0.32, 0.32]) * (1.1 - 0.6 * y[..., None]), world)
    for _ in range(rng.integers(3, 7)):
        lamp = np.zeros((SIZE, SIZE), np.uint8)
        cx, cy = rng.uniform(0.1, 0.9) * SIZE, rng.uniform(0.05, 0.38) * SIZE
        long, wide, turn = (
            rng.uniform(0.08, 0.3) * SIZE,
            rng.uniform(3, 9),
            rng.choice([0, 90]) + rng.normal(0, 12),
        )
        box = cv2.boxPoints(((cx, cy), (long, wide), float(turn)))
        cv2.fillPoly(lamp, [box.astype(np.int32)], 255, cv2.LINE_AA)
        world = world + lamp[..., None] * tone * (rng.uniform(3, 8) / 255)
    left = rng.uniform(-0.9, 0.6)
    gate = (x > left) & (x < left + rng.uniform(0.2, 0.5)) & (y > rng.uniform(-0.5, -0.2)) & ~floor
    world = np.where(gate[..., None], np.array([1.5, 1.4, 1.35]) * rng.uniform(0.6, 1.2), world)
    return _place(world, x, y, _inside_backdrop(rng), rng)


def _place(
    world: NDArray[np.float64], x: Radiance, y: Radiance, backdrop: Radiance, rng: np.random.Generator
) -> Place:
    # The photographer is mirrored too: a dark shape in the middle.
    px = rng.uniform(-0.12, 0.12)
    body = ((np.abs(x - px) / 0.09) ** 3 + (np.abs(y - 0.28) / 0.4) ** 3 < 1) | (
        (x - px) ** 2 + (y + 0.18) ** 2 < 0.065**2
    )
    world = np.where(body[..., None], world * 0.25 + 0.03, world)
    sharp = np.asarray(cv2.GaussianBlur(np.maximum(world, 0.01).astype(np.float32), (0, 0), 1.0), np.float32)
    soft = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 9), np.float32)
    diffuse = np.asarray(cv2.GaussianBlur(cv2.resize(soft, (40, 40)), (0, 0), 10), np.float32)
    return Place(sharp, soft, np.asarray(cv2.resize(diffuse, (SIZE, SIZE)), np.float32), backdrop)


def _directions() -> tuple[Radiance, Radiance]:
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j].astype(np.float32)
    return x, y


def _outside_backdrop(rng: np.random.Generator) -> Radiance:
    """A wall or a hedge above, asphalt below."""
    rows, columns = 480, 720
    picture = np.empty((rows, columns, 3), np.float32)
    edge = int(rows * rng.uniform(0.35, 0.6))
    far = fractal(edge, columns, 90, rng, 6)[..., None]
    tone = np.array(rng.choice([[0.1, 0.2, 0.12], [0.25, 0.3, 0.36], [0.3, 0.3, 0.3]]))
    picture[:edge] = np.clip(tone * (1 + 0.35 * far), 0.01, 1)
    for _ in range(rng.integers(2, 7)):
        i, w = rng.integers(0, columns), rng.integers(20, 120)
        picture[rng.integers(0, edge) : edge, i : i + w] *= rng.uniform(0.3, 1.9)
    ground = fractal(rows - edge, columns, 60, rng, 3) * 0.12
    ground += 0.22 * rng.standard_normal((rows - edge, columns), dtype=np.float32)
    picture[edge:] = np.clip(0.2 * rng.uniform(0.6, 1.5) * (1 + ground), 0.01, 1)[..., None] * (
        0.97,
        1.0,
        1.02,
    )
    if rng.random() < 0.6:
        a, b = rng.uniform(0.3, 1.0, 2)
        cv2.line(picture, (0, int(a * rows)), (columns, int(b * rows)), (0.55, 0.57, 0.57), 12, cv2.LINE_AA)
    picture[: edge + 10] = cv2.GaussianBlur(picture[: edge + 10], (0, 0), 3)
    return picture


def _inside_backdrop(rng: np.random.Generator) -> Radiance:
    """Shelves and a wall above, concrete below."""
    rows, columns = 480, 720
    picture = np.empty((rows, columns, 3), np.float32)
    picture[:] = rng.uniform(0.12, 0.4) * np.array([1.0, 1.0, 1.0])
    edge = int(rows * rng.uniform(0.4, 0.65))
    for _ in range(rng.integers(8, 20)):
        i, j = rng.integers(0, columns), rng.integers(0, edge)
        w, h = rng.integers(15, 110), rng.integers(15, 120)
        picture[j : min(j + h, edge), i : i + w] = rng.uniform(0.02, 0.5, 3)
    picture[:edge] = cv2.GaussianBlur(picture[:edge], (0, 0), 3)
    floor = 1 + 0.15 * fractal(rows - edge, columns, 120, rng, 5)
    picture[edge:] = (rng.uniform(0.2, 0.4) * np.clip(floor, 0.3, 2))[..., None]
    return picture
