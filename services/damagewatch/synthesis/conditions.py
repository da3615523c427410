"""A second photograph under harder conditions, with where every pixel of the first one went.

`rephotograph` takes the photo for a flat panel; here it may be curved, so that there is parallax. Paint mirrors its
surroundings, dirt lies on it, something stands in the way, the photo is one of a screen, a messenger has made it
small. Each is asked for by name: nothing of this is in what `rephotograph` makes.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.synthesis.drawn.noise import fractal
from damagewatch.synthesis.rephotograph import Image, Standpoint, capture, mirroring, relight, standpoint

Points = NDArray[np.float64]
Mask = NDArray[np.uint8]

STEP = 8
"""Pixels between the points of a stored map."""
_STEPS_BACK = 40


class Condition(StrEnum):
    """What may happen beside another standpoint, light and camera."""

    CURVED = "curved"
    """The panel is curved: points at different depths move differently."""
    REFLECTION = "reflection"
    """Sky, houses and people mirrored in the paint."""
    DIRT = "dirt"
    """Dust, mud and drops on the panel."""
    OCCLUSION = "occlusion"
    """Something in the way: a finger, a pole, a sheet of paper."""
    SCREEN = "screen"
    """The photo was photographed from a screen: moire, glow, its frame."""
    MESSENGER = "messenger"
    """Reduced, and stored as JPEG more than once."""


@dataclass(frozen=True, slots=True)
class Relief:
    """A panel curved along two axes: depth = bend . (distance along each axis)^2, in pixels about the middle.

    `angle` in radians is that of the first axis; positive `bends` (per pixel) bulge towards the camera.
    """

    angle: float
    bends: tuple[float, float]

    def depth(self, points: Points, middle: tuple[float, float]) -> NDArray[np.float64]:
        """Pixels behind the panel's middle, of points (N, 2)."""
        x, y = (points - middle).T
        along = x * math.cos(self.angle) + y * math.sin(self.angle)
        across = -x * math.sin(self.angle) + y * math.cos(self.angle)
        return np.asarray(self.bends[0] * along**2 + self.bends[1] * across**2, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """Where pixels of the first photo lie in the second.

    The photo is mirrored where `mirror`, then seen from `standpoint` as a panel of `relief` (None: flat), then
    moved by `again`, a homography (a photo of a screen).
    """

    standpoint: Standpoint
    relief: Relief | None = None
    mirror: bool = False
    again: NDArray[np.float64] | None = None

    @property
    def homography(self) -> NDArray[np.float64] | None:
        """float64 (3, 3), first to second; None where the panel is curved, which no homography describes."""
        if self.relief is not None:
            return None
        whole = self.standpoint.homography
        if self.mirror:
            whole = whole @ mirroring(self.standpoint.width)
        if self.again is not None:
            whole = self.again @ whole
        return np.asarray(whole / whole[2, 2], np.float64)

    def forward(self, points: Points) -> Points:
        """First photo to second, exactly: float64 (N, 2) to float64 (N, 2)."""
        if self.mirror:
            points = _applied(mirroring(self.standpoint.width), points)
        seen = self._seen(points)
        return seen if self.again is None else _applied(self.again, seen)

    def backward(self, points: Points) -> Points:
        """Second photo to first, to a thousandth of a pixel."""
        if self.again is not None:
            points = _applied(np.linalg.inv(self.again), points)
        flat = self.standpoint.homography
        back = np.linalg.inv(flat)
        found = _applied(back, points)
        if self.relief is not None:
            # A flat panel is nearly right: what it misses by is taken off, again and again.
            for _ in range(_STEPS_BACK):
                found = _applied(back, points - (self._seen(found) - _applied(flat, found)))
        return _applied(mirroring(self.standpoint.width), found) if self.mirror else found

    def _seen(self, points: Points) -> Points:
        if self.relief is None:
            return _applied(self.standpoint.homography, points)
        middle = self.standpoint.width / 2, self.standpoint.height / 2
        return self.standpoint.seen(points, self.relief.depth(points, middle))

    def grid(self) -> NDArray[np.float32]:
        """Where points of the first photo, `STEP` pixels apart from its top left corner on, lie in the second.

        float32 (rows, columns, 2), x and y; linear between the points to a few hundredths of a pixel.
        """
        columns, rows = (-(-side // STEP) + 1 for side in (self.standpoint.width, self.standpoint.height))
        y, x = np.mgrid[:rows, :columns] * float(STEP)
        return self.forward(np.stack([x, y], -1).reshape(-1, 2)).reshape(rows, columns, 2).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A second photograph: `image` uint8 (H, W, 3) BGR, as large as the first.

    `visible` uint8 (H, W) is 255 where the second photo shows what the first one shows, 0 where it shows something
    that stands in the way, or lay outside the first photo. `jpeg_quality` in 1..100 is what to store it at.
    """

    image: Image
    movement: Movement
    visible: Mask
    jpeg_quality: int

    def encoded(self) -> bytes:
        """The photo as a JPEG file."""
        return cv2.imencode(".jpg", self.image, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])[1].tobytes()


def looked_up(grid: NDArray[np.float32], points: Points) -> Points:
    """Where a stored map (`Movement.grid`) takes points (N, 2) of the first photo, linear between its points."""
    rows, columns = grid.shape[:2]
    x, y = points.T / STEP
    left, top = np.clip(x.astype(int), 0, columns - 2), np.clip(y.astype(int), 0, rows - 2)
    right, down = (x - left)[:, None], (y - top)[:, None]
    above = grid[top, left] * (1 - right) + grid[top, left + 1] * right
    below = grid[top + 1, left] * (1 - right) + grid[top + 1, left + 1] * right
    return np.asarray(above * (1 - down) + below * down, np.float64)


def rephotograph_under(
    photo: Image,
    rng: np.random.Generator,
    conditions: Set[Condition] = frozenset(),
    strength: float = 1.0,
    *,
    mirror: bool = False,
) -> View:
    """Photographs `photo` again, from another standpoint, in other light, by another camera, under `conditions`.

    The same generator state gives the same result. Where the new frame reaches beyond the photo, the photo is
    continued by reflection.

    Args:
        photo: uint8 (H, W, 3), BGR.
        rng: where all chance comes from.
        conditions: all of them happen.
        strength: as in `rephotograph`.
        mirror: turns the photo left to right first.

    Raises:
        ValueError: a negative strength.
    """
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength is 0 or more, this is {strength}")
    height, width = photo.shape[:2]
    movement = Movement(standpoint(width, height, rng, strength), mirror=mirror)
    if Condition.CURVED in conditions:
        movement = replace(movement, relief=_relief(width, height, rng, strength))
    image, visible = moved(photo, movement)
    if Condition.DIRT in conditions:
        image = dirt(image, rng, strength)
    if Condition.REFLECTION in conditions:
        image = reflection(image, rng, strength)
    if Condition.OCCLUSION in conditions:
        image, hidden = occlusion(image, rng)
        visible[hidden > 0] = 0
    image = capture(relight(image, rng, strength), rng, strength)
    if Condition.SCREEN in conditions:
        frame = _screen_frame(width, height, rng, strength)
        movement = replace(movement, again=frame)
        image, visible = screen(image, visible, frame, rng, strength)
    quality = min(max(round(95 - strength * rng.uniform(5, 50)), 20), 95)
    if Condition.MESSENGER in conditions:
        image = messenger(image, rng)
        quality = int(rng.integers(60, 85))
    return View(image, movement, visible, quality)


def _applied(homography: NDArray[np.floating[Any]], points: Points) -> Points:
    homogeneous = points @ homography[:, :2].T + homography[:, 2]
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:], np.float64)


def _relief(width: int, height: int, rng: np.random.Generator, strength: float) -> Relief:
    """A door's or a bumper's curve: its slope at the edge of the photo is told, 1 being 45 degrees."""
    angle = rng.choice([0.0, math.pi / 2]) + rng.normal(0, 0.25)
    slopes = rng.uniform(0.25, 0.7) * (1 if rng.random() < 0.8 else -0.6), rng.uniform(-0.15, 0.25)
    half = math.hypot(width, height) / 2
    first, second = (min(strength, 1.0) * slope / (2 * half) for slope in slopes)
    return Relief(float(angle), (first, second))


def moved(photo: Image, movement: Movement) -> tuple[Image, Mask]:
    """The photo seen anew, and which of the new pixels (255) lie within the first photo."""
    height, width = photo.shape[:2]
    columns, rows = (-(-side // STEP) + 1 for side in (width, height))
    y, x = np.mgrid[:rows, :columns] * float(STEP)
    coarse = (
        movement.backward(np.stack([x, y], -1).reshape(-1, 2)).reshape(rows, columns, 2).astype(np.float32)
    )
    # The map at each pixel's centre, linear between the grid's points.
    at_y, at_x = (np.mgrid[:height, :width].astype(np.float32) + 0.5) / STEP
    back = cv2.remap(coarse, at_x, at_y, cv2.INTER_LINEAR)
    from_x, from_y = np.ascontiguousarray(back[..., 0]), np.ascontiguousarray(back[..., 1])
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    image = cv2.remap(photo, from_x - 0.5, from_y - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(image, np.uint8), np.where(inside, 255, 0).astype(np.uint8)


def dirt(image: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """A film of dust, thicker in places, splashes of mud, and drops."""
    height, width = image.shape[:2]
    colour = np.array([70.0, 95, 115], np.float32) * np.float32(rng.uniform(0.6, 1.5))
    film = 1 / (1 + np.exp(-fractal(height, width, max(width, height) / rng.uniform(2, 8), rng)))
    cover = np.float32(strength * rng.uniform(0.05, 0.4)) * film
    splashes = np.zeros((height, width), np.float32)
    scale = max(width, height)
    centre = rng.uniform(0, 1, 2) * (width, height)
    for _ in range(int(rng.integers(20, 150))):
        x, y = (centre + rng.normal(0, 0.25 * scale, 2)).tolist()
        radius = scale * min(0.002 * float(rng.pareto(1.6) + 0.5), 0.03)
        axes = max(round(radius * 16), 4), max(round(radius * rng.uniform(0.5, 1) * 16), 4)
        turned = float(rng.uniform(0, 180))
        at = round(x * 16), round(y * 16)
        cv2.ellipse(splashes, at, axes, turned, 0, 360, float(rng.uniform(0.4, 1)), -1, cv2.LINE_AA, 4)
    splashes = np.asarray(cv2.GaussianBlur(splashes, (0, 0), max(scale / 900, 0.3)), np.float32)
    cover = np.clip(np.maximum(cover, np.float32(min(strength, 1.0)) * splashes * 0.85), 0, 1)[..., None]
    return np.asarray(np.rint(image * (1 - cover) + colour * cover), np.uint8)


def reflection(image: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """The surroundings in the paint: sky over a horizon with houses, and whoever takes the photo."""
    height, width = image.shape[:2]
    rows, columns = 96, int(np.clip(96 * width / height, 16, 512))
    y, x = np.mgrid[:rows, :columns].astype(np.float32) / np.float32(rows)
    horizon = rng.uniform(0.3, 0.7) + 0.05 * np.sin(x * rng.uniform(1, 6) + rng.uniform(0, 6))
    sky = np.array([rng.uniform(200, 255), rng.uniform(200, 245), rng.uniform(190, 245)], np.float32)
    ground = rng.uniform(30, 110) * np.array([1, 1, 1], np.float32)
    scene = np.where(
        (y < horizon)[..., None], sky * (1 - 0.3 * y[..., None]), ground * (0.6 + 0.6 * y[..., None])
    )
    for _ in range(int(rng.integers(1, 6))):  # houses, trees, other cars
        left, wide = rng.integers(0, columns), int(rng.integers(columns // 20 + 1, columns // 4 + 2))
        top = int(rows * rng.uniform(0.1, 0.6))
        scene[top : int(rows * 0.75), left : left + wide] = rng.uniform(20, 170) + rng.normal(0, 12, 3)
    if rng.random() < 0.5:
        person = rng.uniform(10, 60, 3)
        at = int(rng.integers(columns // 5, 4 * columns // 5 + 1))
        cv2.ellipse(
            scene, (at, int(rows * 0.85)), (max(columns // 14, 2), rows // 2), 0, 0, 360, person.tolist(), -1
        )
        cv2.circle(scene, (at, int(rows * 0.3)), max(columns // 28, 2), person.tolist(), -1)
    scene = np.asarray(cv2.GaussianBlur(scene.astype(np.float32), (0, 0), rng.uniform(0.6, 3)), np.float32)
    bent = x + rng.uniform(0.02, 0.12) * np.sin(y * rng.uniform(2, 9) + rng.uniform(0, 6)).astype(np.float32)
    scene = cv2.remap(
        scene,
        (bent * rows).astype(np.float32),
        y * np.float32(rows),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    angle = rng.uniform(0, 2 * math.pi)
    slant = x * math.cos(angle) + y * math.sin(angle)
    slant = (slant - slant.min()) / (np.ptp(slant) + 1e-6)
    share = (strength * rng.uniform(0.12, 0.4) * (0.35 + 0.65 * slant)).astype(np.float32)
    size = width, height
    share_large = np.clip(cv2.resize(share, size, interpolation=cv2.INTER_LINEAR), 0, 0.8)[..., None]
    # Light is added: where the surroundings are dark, the paint shows through.
    mirrored = cv2.resize(np.asarray(scene, np.float32), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(
        np.clip(np.rint(image * (1 - 0.5 * share_large) + mirrored * share_large), 0, 255), np.uint8
    )


def occlusion(image: Image, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Something between the camera and the panel, and its mask (uint8 (H, W), 255 where it is)."""
    height, width = image.shape[:2]
    scale = max(width, height)
    mask = np.zeros((height, width), np.uint8)
    kind = rng.integers(3)
    if kind == 0:  # a finger or an arm, from the edge inwards
        angle = rng.uniform(0, 2 * math.pi)
        edge = np.array([width / 2 + math.cos(angle) * scale, height / 2 + math.sin(angle) * scale])
        middle = np.array([width, height]) / 2
        tip = edge + (middle - edge) * rng.uniform(0.45, 0.75)
        thick = max(round(scale * rng.uniform(0.04, 0.1)), 1)
        cv2.line(mask, _pixel(edge), _pixel(tip), 255, thick, cv2.LINE_AA)
        colour = np.array([110, 140, 190]) * rng.uniform(0.4, 1.15)
    elif kind == 1:  # a pole, a branch, a cable
        offset = rng.uniform(-0.35, 0.35) * scale
        angle = rng.uniform(0, math.pi)
        along = np.array([math.cos(angle), math.sin(angle)])
        centre = np.array([width, height]) / 2 + offset * np.array([-along[1], along[0]])
        thick = max(round(scale * rng.uniform(0.008, 0.05)), 1)
        cv2.line(
            mask,
            _pixel(centre - along * 2 * scale),
            _pixel(centre + along * 2 * scale),
            255,
            thick,
            cv2.LINE_AA,
        )
        colour = rng.uniform(15, 150) + rng.normal(0, 12, 3)
    else:  # a sheet, a sticker, a measuring card
        side = scale * rng.uniform(0.08, 0.25, 2) / 2
        centre = rng.uniform(0.1, 0.9, 2) * (width, height)
        angle = rng.uniform(0, math.pi)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        corners = (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side) @ turn.T + centre
        cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_AA)
        colour = rng.uniform(170, 245) + rng.normal(0, 8, 3)
    texture = fractal(height, width, scale / 6, rng)[..., None] * np.float32(rng.uniform(3, 14))
    shape = cv2.GaussianBlur(mask, (0, 0), max(scale / 700, 0.3)).astype(np.float32)[..., None] / 255
    # It throws a soft shadow beside itself.
    shift = rng.uniform(-0.03, 0.03, 2) * scale
    beside = cv2.warpAffine(mask, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), (width, height))
    shade = cv2.GaussianBlur(beside, (0, 0), max(scale / 60, 0.5)).astype(np.float32)[..., None] / 255
    shaded = image * (1 - np.float32(rng.uniform(0.1, 0.5)) * shade)
    out = shaded * (1 - shape) + np.clip(colour + texture, 0, 255) * shape
    return np.asarray(np.clip(np.rint(out), 0, 255), np.uint8), np.where(shape[..., 0] > 0.02, 255, 0).astype(
        np.uint8
    )


def _pixel(point: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _screen_frame(width: int, height: int, rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """Where the picture lies when its screen is photographed: nearly straight, nearly filling the frame."""
    seen = standpoint(width, height, rng, min(0.3 * strength, 0.6)).homography
    zoom = rng.uniform(0.85, 1.05)
    about = np.array([[zoom, 0, width / 2 * (1 - zoom)], [0, zoom, height / 2 * (1 - zoom)], [0, 0, 1]])
    return np.asarray(about @ seen, np.float64)


def screen(
    image: Image, visible: Mask, frame: NDArray[np.float64], rng: np.random.Generator, strength: float = 1.0
) -> tuple[Image, Mask]:
    """A photo of the picture on a screen: moire of its pixels with the camera's, its glow, its dark frame."""
    height, width = image.shape[:2]
    half = np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix, size = np.linalg.inv(half) @ frame @ half, (width, height)
    edge = rng.uniform(5, 40, 3)
    framed = cv2.warpPerspective(image, matrix, size, borderValue=edge.tolist()).astype(np.float32)
    shown = cv2.warpPerspective(np.full_like(visible, 255), matrix, size, flags=cv2.INTER_NEAREST) > 0
    seen = cv2.warpPerspective(visible, matrix, size, flags=cv2.INTER_NEAREST)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pattern = np.zeros((height, width, 3), np.float32)
    for _ in range(2):  # two grids that beat against the sensor, one across the other
        period = rng.uniform(3, 30)
        angle = rng.uniform(0, math.pi)
        bend = rng.uniform(0, 2) * np.sin(y * (2 * math.pi / height) + rng.uniform(0, 6))
        phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period) + bend
        for channel in range(3):  # red, green and blue lie beside each other
            pattern[..., channel] += np.sin(phase + channel * 2 * math.pi / 3 * rng.uniform(0.3, 1))
    lit = framed * (1 + np.float32(strength * rng.uniform(0.01, 0.06)) * pattern)
    glow = np.array([rng.uniform(6, 22), rng.uniform(4, 16), rng.uniform(3, 14)], np.float32)
    lit = lit * (1 - glow / 255) + glow
    out = np.clip(np.rint(np.where(shown[..., None], lit, framed)), 0, 255)
    return np.asarray(out, np.uint8), np.asarray(seen, np.uint8)


def messenger(image: Image, rng: np.random.Generator) -> Image:
    """Reduced and stored as JPEG two or three times, as when a photo is sent on; then enlarged to its size."""
    height, width = image.shape[:2]
    share = rng.uniform(0.35, 0.9)
    size = max(round(width * share), 1), max(round(height * share), 1)
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    for _ in range(int(rng.integers(2, 4))):
        stored = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 75))])[1]
        small = np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
