"""Photographs a drawn surface: projection with depth, reflections that depend on the standpoint, and the
faults of a real camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.synthesis.drawn.place import SIZE, Place, Radiance
from damagewatch.synthesis.drawn.surface import HEIGHT, TEXELS, WIDTH, Points, Surface
from damagewatch.synthesis.rephotograph import Image, capture, relight

CELL = 16
"""Pixels between the rays that are really traced; between them they are interpolated."""
BAND = 64
"""Rows that are shaded together: few enough for the processor's cache, which halves the time."""
BEHIND = 900.0
"""Millimetres from the car's surface to the backdrop."""
_LINEAR = ((np.arange(256) / 255) ** 2).astype(np.float32)  # undoes the square root in Surface.colour


@dataclass(frozen=True, slots=True)
class Standpoint:
    """From where a photo is taken, and with what lens.

    The camera looks at `target` (millimetres on the surface) from `distance` millimetres, `yaw` to the right
    of and `pitch` above the perpendicular, turned by `roll` (radians). `focal` is in widths of the photo.
    """

    target: tuple[float, float]
    distance: float
    yaw: float
    pitch: float
    roll: float
    focal: float = 0.95

    @classmethod
    def near(
        cls, target: tuple[float, float], rng: np.random.Generator, slant: float = 1.0, turn: float = 0.0
    ) -> Standpoint:
        """From where `target` is seen, and nothing that was not drawn.

        Within `slant` (0 to 1) of the widest angles, about `turn` radians to the right of straight on.
        """
        aim = target[0] + rng.uniform(-70, 70), target[1] + rng.uniform(-60, 60)
        yaw, pitch, roll = slant * np.radians([rng.uniform(-28, 28), rng.uniform(-4, 26), rng.normal(0, 4)])
        distance = rng.uniform(560, 900)
        while True:
            standpoint = cls(aim, distance, turn + float(yaw), float(pitch), float(roll))
            corners = standpoint.corners()
            low, high = corners.min(axis=0), corners.max(axis=0)
            if (low >= (0, 0)).all() and (high <= (WIDTH, HEIGHT)).all():
                return standpoint
            distance *= 0.95
            # Too near the edge of what is drawn: aim a little further in, and stand a little nearer.
            aim = aim[0] + 0.04 * (WIDTH / 2 - aim[0]), aim[1] + 0.04 * (HEIGHT / 2 - aim[1])

    def corners(self, aspect: float = 0.75) -> NDArray[np.float64]:
        """Where the photo's corners lie on the flat surface (4, 2), millimetres."""
        across, down, view = self.axes()
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.5
        rays = self.focal * view + signs[:, :1] * across + signs[:, 1:] * aspect * down
        position = self.position()
        return np.asarray(position[:2] - position[2] / rays[:, 2:] * rays[:, :2], np.float64)

    def position(self) -> NDArray[np.float64]:
        """Where the camera is: x, y, z in millimetres."""
        x, y = self.target
        away = math.cos(self.pitch)
        return np.array([x, y, 0.0]) + self.distance * np.array(
            [math.sin(self.yaw) * away, -math.sin(self.pitch), math.cos(self.yaw) * away]
        )

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Unit vectors: the photo's x, its y, and the direction of view."""
        view = np.array([*self.target, 0.0]) - self.position()
        view /= np.linalg.norm(view)
        across = np.cross(view, [0.0, 1.0, 0.0])
        across *= np.sign(across[0]) / np.linalg.norm(across)
        down = np.cross(across, view)
        down *= np.sign(down[1])
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        return cos * across + sin * down, cos * down - sin * across, view


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A drawn photo, uint8 (H, W, 3) BGR, with the outline of every damage in it, in pixels."""

    image: Image
    damaged: tuple[Points, ...]


def photograph(
    surface: Surface,
    place: Place,
    standpoint: Standpoint,
    rng: np.random.Generator,
    *,
    width: int = 1280,
    height: int = 960,
) -> Photo:
    """Takes one photo."""
    at, view = _rays(surface, standpoint, width, height)
    light = _backdrop(place, standpoint, width, height)
    for top in range(0, height, BAND):
        rows = slice(top, top + BAND)
        _shade(light[rows], surface, place, at[rows], view[rows])
    image = relight(_developed(light, rng), rng, 0.2)
    return Photo(
        capture(image, rng, 0.45),
        tuple(_projected(o, surface, standpoint, width, height) for o in surface.damaged),
    )


def _rays(
    surface: Surface, standpoint: Standpoint, width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each pixel, where on the surface it looks (h, w, 2) and the unit vector back (h, w, 3)."""
    rows, columns = -(-height // CELL) + 2, -(-width // CELL) + 2
    v, u = np.mgrid[0:rows, 0:columns].astype(np.float64)
    across, down, view = standpoint.axes()
    u, v = (u - 0.5) * CELL - width / 2, (v - 0.5) * CELL - height / 2
    ray = standpoint.focal * width * view + u[..., None] * across + v[..., None] * down
    position = standpoint.position()
    coarse = cv2.resize(surface.height, None, fx=1 / CELL, fy=1 / CELL, interpolation=cv2.INTER_AREA)
    z = np.zeros((rows, columns))
    for _ in range(3):  # the relief is shallow: a few steps towards it are enough
        spot = position + ((z - position[2]) / ray[..., 2])[..., None] * ray
        texel = (spot[..., :2] * (TEXELS / CELL) - 0.5).astype(np.float32)
        z = cv2.remap(
            coarse, texel[..., 0], texel[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).astype(np.float64)
    back = -ray / np.linalg.norm(ray, axis=2, keepdims=True)

    def fine(grid: NDArray[np.float64]) -> NDArray[np.float32]:
        size = columns * CELL, rows * CELL
        large = cv2.resize(grid.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(large[CELL : CELL + height, CELL : CELL + width], np.float32)

    return fine(spot[..., :2]), fine(back)


def _shade(
    behind: Radiance,
    surface: Surface,
    place: Place,
    at: NDArray[np.float32],
    view: NDArray[np.float32],
) -> None:
    """Lays the light that comes back from the surface over what is behind it: linear BGR (h, w, 3)."""
    texel = at * np.float32(TEXELS) - np.float32(0.5)
    maps = cv2.convertMaps(texel, np.empty(0), cv2.CV_16SC2)
    slope, colour, finish = (
        cv2.remap(layer, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for layer in (surface.slopes, surface.colour, surface.finish)
    )
    sx, sy = cv2.split(slope)
    vx, vy, vz = cv2.split(view)
    gloss, metal, cover = cv2.split(finish.astype(np.float32))
    length = 1 / cv2.sqrt(sx * sx + sy * sy + 1)
    nx, ny = sx * length, sy * length
    facing = np.clip(nx * vx + ny * vy + length * vz, 0, 1)
    half = np.float32((SIZE - 1) / 2)
    mirrored = cv2.convertMaps(
        (2 * facing * nx - vx) * half + half, (2 * facing * ny - vy) * half + half, cv2.CV_16SC2
    )
    sharp, soft = (
        cv2.remap(world, *mirrored, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for world in (place.sharp, place.soft)
    )
    # Scattered light changes slowly with the normal: a quarter of the pixels is enough to look it up.
    few = cv2.resize(cv2.merge([nx, ny]) * half + half, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    normal = cv2.convertMaps(few, np.empty(0), cv2.CV_16SC2)
    few_diffuse = cv2.remap(place.diffuse, *normal, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    diffuse = cv2.resize(few_diffuse, colour.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    graze = 1 - facing
    fresnel = (gloss * np.float32(1 / 255)) * (0.05 + 0.95 * (graze * graze) ** 2 * graze)
    scattered = diffuse + cv2.merge([metal * np.float32(0.4 / 255)] * 3) * (soft - diffuse)
    light = scattered * _LINEAR[colour] + cv2.merge([fresnel] * 3) * sharp
    cover *= np.float32(1 / 255)
    behind[:] = cv2.blendLinear(light, behind, cover, 1 - cover)


def _backdrop(place: Place, standpoint: Standpoint, width: int, height: int) -> Radiance:
    """What stands behind the car, a flat picture `BEHIND` it, as this camera sees it."""
    across, down, view = standpoint.axes()
    rays = np.column_stack([across, down, standpoint.focal * width * view])
    position = standpoint.position()
    # A ray meets z = -BEHIND at position + s * ray with s = -(BEHIND + z) / ray_z; picture pixels are 4 mm.
    reach = -(BEHIND + position[2])
    spot = np.stack(
        [
            position[0] * rays[2] + reach * rays[0],
            position[1] * rays[2] + reach * rays[1],
            rays[2],
        ]
    )
    centre = np.array([[1.0, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    pixels = np.array([[0.25, 0, 220], [0, 0.25, 120], [0, 0, 1]])
    warp = pixels @ spot @ centre
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpPerspective(
        place.backdrop, warp, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(picture, np.float32)


def _developed(light: Radiance, rng: np.random.Generator) -> Image:
    """Exposes for the middle tones and applies a camera's curve."""
    small = cv2.resize(light, (64, 48), interpolation=cv2.INTER_AREA)
    middle = float(np.exp(np.log(small.mean(axis=2) + 0.01).mean()))
    # Dark cars stay darker than light ones, as exposure meters leave them.
    exposure = 0.24 * 2 ** rng.uniform(-0.25, 0.2) * middle**-0.7 * 0.2**-0.3
    level = np.minimum(light * np.float32(255 * exposure * 4), 4 * 255 * 4).astype(np.uint16)
    steps = np.arange(4096) / (255 * 4)
    tone = np.minimum(1.06 * (1 - np.exp(-1.35 * steps)) ** (1 / 2.2), 1)
    tone += 0.7 * tone * (1 - tone) * (2 * tone - 1)  # a camera's contrast
    table = np.rint(255 * tone).astype(np.uint8)
    return np.asarray(table[level], np.uint8)


def _projected(outline: Points, surface: Surface, standpoint: Standpoint, width: int, height: int) -> Points:
    """Where surface points (N, 2) in millimetres lie in the photo, pixels."""
    texels = np.clip((outline * TEXELS).astype(int), 0, np.array(surface.height.shape[::-1]) - 1)
    spots = np.column_stack([outline, surface.height[texels[:, 1], texels[:, 0]]]) - standpoint.position()
    across, down, view = standpoint.axes()
    depth = spots @ view / (standpoint.focal * width)
    return np.column_stack([spots @ across / depth + width / 2, spots @ down / depth + height / 2])
