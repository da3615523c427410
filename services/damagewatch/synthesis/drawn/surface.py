"""The outside of a car, spread flat: relief, colour and finish, in millimetres.

x to the right, y down, height towards the onlooker. The surface is drawn once and photographed often.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 1120, 840
"""Millimetres of a surface."""
TEXELS = 1.6
"""Per millimetre."""
Points = NDArray[np.float64]
Image = NDArray[np.uint8]
_BITS = 4  # OpenCV draws at sixteenths of a pixel


@dataclass(frozen=True, slots=True)
class Material:
    """What a part is made of. `colour` is linear BGR in 0..1.

    `gloss` in 0..1 is how clearly it mirrors (clear coat, glass); `metal` in 0..1 how much of its colour
    comes from mirroring softly (metallic base coat, chrome) and not from scattering.
    """

    colour: tuple[float, float, float]
    gloss: float
    metal: float


RUBBER = Material((0.018, 0.018, 0.02), 0.12, 0.0)
PLASTIC = Material((0.03, 0.03, 0.032), 0.3, 0.1)
CAVITY = Material((0.006, 0.006, 0.007), 0.0, 0.0)
CHROME = Material((0.75, 0.76, 0.78), 0.9, 1.0)
GLASS = Material((0.025, 0.024, 0.02), 1.0, 0.0)
PRIMER = Material((0.33, 0.34, 0.36), 0.05, 0.0)
STEEL = Material((0.5, 0.5, 0.52), 0.3, 0.9)


@dataclass(eq=False)
class Surface:
    """One side of one car.

    `height` float32 (h, w) in millimetres. `colour` uint8 (h, w, 3): the square root of the linear colour, so
    that dark tones keep their steps. `finish` uint8 (h, w, 3): gloss, metal, and how much of the car is here
    (0 where one looks past it). `damaged` holds the outline of every damage.
    """

    height: NDArray[np.float32]
    colour: Image
    finish: Image
    damaged: list[Points] = field(default_factory=list)

    @classmethod
    def of(cls, material: Material) -> Surface:
        """A flat plate of one material."""
        shape = round(HEIGHT * TEXELS), round(WIDTH * TEXELS)
        colour = np.empty((*shape, 3), np.uint8)
        colour[:] = _stored(material)
        finish = np.empty((*shape, 3), np.uint8)
        finish[:] = round(material.gloss * 255), round(material.metal * 255), 255
        return cls(np.zeros(shape, np.float32), colour, finish)

    def copy(self) -> Surface:
        """The same surface, to be damaged on its own."""
        return Surface(self.height.copy(), self.colour.copy(), self.finish.copy(), list(self.damaged))

    def mask(
        self, outlines: list[Points], *, stroke: float = 0.0, soft: float = 0.0, closed: bool = True
    ) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
        """Where outlines (millimetres) lie: a window of the texture, and coverage 0..1 in it.

        Filled, or drawn as lines `stroke` millimetres wide. `soft` blurs the edge over that many millimetres.
        """
        every = np.concatenate(outlines) * TEXELS
        margin = round((stroke + 2 * soft) * TEXELS) + 3
        low = np.maximum(np.floor(every.min(axis=0)).astype(int) - margin, 0)
        limit = np.array([self.height.shape[1], self.height.shape[0]])
        high = np.minimum(np.ceil(every.max(axis=0)).astype(int) + margin, limit)
        if (high <= low).any():
            return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
        drawn = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        shapes = [np.rint((o * TEXELS - low - 0.5) * 2**_BITS).astype(np.int32) for o in outlines]
        if stroke:
            thickness = max(round(stroke * TEXELS), 1)
            cv2.polylines(drawn, shapes, closed, 255, thickness, cv2.LINE_AA, _BITS)
        else:
            cv2.fillPoly(drawn, shapes, 255, cv2.LINE_AA, _BITS)
        covered = drawn.astype(np.float32) * np.float32(1 / 255)
        if soft:
            covered = np.asarray(cv2.GaussianBlur(covered, (0, 0), soft * TEXELS / 2), np.float32)
        return (slice(low[1], high[1]), slice(low[0], high[0])), covered

    def paint(self, window: tuple[slice, slice], covered: NDArray[np.float32], material: Material) -> None:
        """Covers a window with a material, as far as `covered` (0..1) says."""
        if not covered.size:
            return
        rest = 1 - covered
        colour, finish = self.colour[window], self.finish[window]
        fresh = np.empty_like(colour)
        fresh[:] = _stored(material)
        colour[:] = cv2.blendLinear(fresh, colour, covered, rest)
        fresh[..., :2] = round(material.gloss * 255), round(material.metal * 255)
        fresh[..., 2] = finish[..., 2]
        finish[:] = cv2.blendLinear(fresh, finish, covered, rest)

    def part(self, outline: Points, material: Material, *, raised: float = 0.0, soft: float = 4.0) -> None:
        """Sets in a part: filled with a material, raised by millimetres (sunk where negative)."""
        self.paint(*self.mask([outline]), material)
        if raised:
            window, covered = self.mask([outline], soft=soft)
            self.height[window] += raised * covered

    def seam(self, line: ArrayLike, *, width: float = 5.0, depth: float = 5.0, closed: bool = False) -> None:
        """The gap between two panels: dark, with edges that turn inwards and so catch the light."""
        points = [np.asarray(line, dtype=np.float64)]
        window, covered = self.mask(points, stroke=width * 2.2, soft=width * 0.8, closed=closed)
        self.height[window] -= depth * covered
        self.paint(*self.mask(points, stroke=width, closed=closed), CAVITY)

    def remove(self, outline: Points) -> None:
        """Takes the car away inside an outline: one looks past it there."""
        window, covered = self.mask([outline])
        cover = self.finish[window][..., 2].astype(np.float32)
        self.finish[window][..., 2] = np.rint(cover * (1 - covered))

    @cached_property
    def slopes(self) -> NDArray[np.float32]:
        """How the surface leans, float32 (h, w, 2): minus the gradient of its height in x and y.

        Worked out once: draw and damage the surface before the first photo of it.
        """
        scale = -TEXELS / 8
        across = cv2.Sobel(self.height, cv2.CV_32F, 1, 0, ksize=3, scale=scale)
        down = cv2.Sobel(self.height, cv2.CV_32F, 0, 1, ksize=3, scale=scale)
        return np.asarray(cv2.merge([across, down]), np.float32)


def _stored(material: Material) -> Image:
    return np.asarray(np.rint(np.sqrt(material.colour) * 255), np.uint8)


def ellipse(x: float, y: float, rx: float, ry: float, power: float = 2.0, turn: float = 0.0) -> Points:
    """An outline of 72 points (72, 2); with `power` above 2 it is squarer, a rounded rectangle."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    px = rx * np.sign(cos) * np.abs(cos) ** (2 / power)
    py = ry * np.sign(sin) * np.abs(sin) ** (2 / power)
    return np.column_stack(
        [x + px * np.cos(turn) - py * np.sin(turn), y + px * np.sin(turn) + py * np.cos(turn)]
    )


def curve(*through: tuple[float, float], points: int = 60) -> Points:
    """A smooth open line (points, 2) through the given corners (Catmull-Rom)."""
    corners = np.array([through[0], *through, through[-1]], dtype=np.float64)
    result = []
    for t in np.linspace(0, len(through) - 1.0001, points):
        i, u = int(t), t - int(t)
        a, b, c, d = corners[i : i + 4]
        result.append(
            0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3)
        )
    return np.array(result)
