"""Draws the panels of a car: four views of a model, in a paint, with the wear of one particular car."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from damagewatch.synthesis.drawn.noise import fractal
from damagewatch.synthesis.drawn.surface import (
    CAVITY,
    CHROME,
    GLASS,
    HEIGHT,
    PLASTIC,
    RUBBER,
    TEXELS,
    WIDTH,
    Material,
    Points,
    Surface,
    curve,
    ellipse,
)


class View(StrEnum):
    """Which part of a car."""

    DOORS = "doors"
    REAR_WING = "rear wing"
    FRONT_WING = "front wing"
    TAIL = "tail"


PAINTS = {
    "silver": Material((0.36, 0.35, 0.34), 1.0, 0.85),
    "white": Material((0.72, 0.73, 0.73), 1.0, 0.05),
    "red": Material((0.02, 0.016, 0.34), 1.0, 0.45),
    "blue": Material((0.3, 0.1, 0.035), 1.0, 0.75),
    "graphite": Material((0.085, 0.08, 0.077), 1.0, 0.85),
    "green": Material((0.07, 0.12, 0.05), 1.0, 0.7),
    "beige": Material((0.2, 0.28, 0.32), 1.0, 0.8),
}
RED_GLASS = Material((0.015, 0.01, 0.3), 0.9, 0.0)
CLEAR_GLASS = Material((0.45, 0.45, 0.45), 1.0, 0.6)
AMBER = Material((0.01, 0.16, 0.6), 0.8, 0.1)
PLATE = Material((0.68, 0.72, 0.72), 0.25, 0.0)


@dataclass(frozen=True, slots=True)
class Car:
    """`model` is the seed of its shape, `wear` of its chips, dust and dirt: no two cars share it."""

    model: int
    paint: str
    wear: int


def draw(car: Car, view: View) -> Surface:
    """One side of an undamaged car."""
    shape = np.random.default_rng([car.model, list(View).index(view)])
    wear = np.random.default_rng([car.wear, list(View).index(view)])
    surface = Surface.of(PAINTS[car.paint])
    _press(surface, view, shape)
    {
        View.DOORS: _doors,
        View.REAR_WING: _rear_wing,
        View.FRONT_WING: _front_wing,
        View.TAIL: _tail,
    }[view](surface, car, shape)
    _wear(surface, car, wear)
    return surface


def _press(surface: Surface, view: View, shape: np.random.Generator) -> None:
    """The sheet metal: rounded from top to bottom, with creases along the car."""
    rows, columns = surface.height.shape
    # Along the car all is smooth: every eighth column is worked out, the others lie between.
    x = ((np.arange(0, columns, 8, dtype=np.float32) + 4) / np.float32(TEXELS))[None, :]
    y = ((np.arange(rows, dtype=np.float32) + 0.5) / np.float32(TEXELS))[:, None]
    z = -((y - 380) ** 2) / np.float32(2 * shape.uniform(1500, 2600))
    for level in (shape.uniform(190, 300), shape.uniform(520, 640)):
        bow, slant = shape.uniform(-25, 25), shape.uniform(0.03, 0.09)
        below = y - level - bow * ((x - WIDTH / 2) / (WIDTH / 2)) ** 2 - slant * (x - WIDTH / 2)
        sharp, soft = shape.uniform(4, 9), shape.uniform(60, 110)
        bend = shape.uniform(0.10, 0.2)
        z = z - bend * (sharp * np.logaddexp(0, below / sharp) - soft * np.logaddexp(0, below / soft))
    if view is View.REAR_WING:
        z = z - np.maximum(x - 640, 0) ** 2 / 3200
    elif view is View.FRONT_WING:
        z = z - np.maximum(480 - x, 0) ** 2 / 3200
    elif view is View.TAIL:
        z = z - (x - WIDTH / 2) ** 2 / 6000
    # Sheet metal is never quite true.
    coarse = fractal(rows // 8, columns // 8, 30, shape, 2)
    for grid in (z.astype(np.float32), np.float32(0.15) * coarse):
        large = cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC)
        surface.height += cv2.blur(large, (8, 1))  # leaves no ripple of the columns worked out


def _doors(surface: Surface, car: Car, shape: np.random.Generator) -> None:
    sill = shape.uniform(755, 790)
    gap = shape.uniform(560, 660)
    lean = shape.uniform(60, 120)
    belt = shape.uniform(60, 100)
    _window(surface, belt)
    surface.seam(curve((gap + lean, belt), (gap + 4, 300), (gap, 560), (gap - 12, sill - 50)), width=5.5)
    surface.seam(curve((-20, sill - 42), (gap - 12, sill - 50), (WIDTH + 20, sill - 38)))
    for x in (gap - shape.uniform(150, 170), gap + shape.uniform(330, 380)):
        _handle(surface, car, x, belt + shape.uniform(95, 105), chrome=car.model % 2 == 0)
    if shape.random() < 0.6:
        _strip(surface, car, shape.uniform(470, 560), gap)
    _ground(surface, sill)


def _rear_wing(surface: Surface, car: Car, shape: np.random.Generator) -> None:
    arch_x, arch_y, radius = shape.uniform(230, 400), shape.uniform(735, 800), shape.uniform(270, 335)
    bumper = shape.uniform(820, 880)
    top = shape.uniform(450, 500)
    surface.seam(curve((20, -10), (40, 260), (28, 520), (60, 560)))
    surface.seam(
        curve(
            (arch_x + radius - 20, top + 130), (bumper - 60, top + 60), (bumper, top), (WIDTH + 10, top - 15)
        )
    )
    surface.seam(curve((bumper, top), (bumper - 10, top - 60), (bumper + 20, top - 140)))
    cap, size = shape.uniform((400, 180), (600, 310)), shape.uniform(66, 96)
    power = shape.uniform(2.6, 5)
    outline = ellipse(cap[0], cap[1], size, size * shape.uniform(0.85, 1.1), power)
    surface.seam(np.vstack([outline, outline[:1]]), width=4.5, depth=4)
    surface.part(ellipse(cap[0] + 0.8 * size, cap[1], 9, 0.28 * size, 4), RUBBER, raised=-4, soft=5)
    _lamp(
        surface,
        curve((bumper + 40, top - 30), (bumper + 10, top - 210), (WIDTH + 40, top - 250), points=24),
        top - 30,
        RED_GLASS,
        shape,
    )
    _reflector(surface, bumper + 120, top + 190)
    _ground(surface, 775)
    _wheel(surface, arch_x, arch_y, radius, shape)


def _front_wing(surface: Surface, car: Car, shape: np.random.Generator) -> None:
    arch_x, arch_y, radius = shape.uniform(690, 830), shape.uniform(735, 800), shape.uniform(270, 335)
    bumper = shape.uniform(270, 320)
    top = shape.uniform(430, 480)
    surface.seam(curve((WIDTH - 40, -10), (WIDTH - 60, 260), (WIDTH - 30, 560), (WIDTH - 60, 860)))
    surface.seam(
        curve((-10, top - 10), (bumper - 40, top), (bumper + 60, top + 70), (arch_x - radius + 20, top + 150))
    )
    surface.seam(curve((bumper + 60, 0), (bumper + 200, 30), (WIDTH - 140, 50), (WIDTH + 10, 20)), width=6)
    _lamp(
        surface,
        curve((-40, 130), (bumper - 90, 150), (bumper + 70, 200), (bumper - 30, top - 50), points=24),
        top - 20,
        CLEAR_GLASS,
        shape,
    )
    surface.part(ellipse(WIDTH - 250, shape.uniform(330, 380), 45, 14, 3.5), AMBER, raised=5)
    grille = ellipse(60, top + 210, 130, 70, 4)
    surface.part(grille, PLASTIC, raised=-14, soft=10)
    for level in np.arange(top + 155, top + 270, 16):
        surface.part(ellipse(60, level, 122, 3.5, 6), RUBBER, raised=6, soft=3)
    surface.part(ellipse(bumper - 30, top + 235, 42, 42), PLASTIC, raised=-8)
    surface.part(ellipse(bumper - 30, top + 235, 30, 30), CLEAR_GLASS, raised=6)
    _ground(surface, 775)
    _wheel(surface, arch_x, arch_y, radius, shape)


def _tail(surface: Surface, car: Car, shape: np.random.Generator) -> None:
    lid = shape.uniform(470, 520)
    _window(surface, shape.uniform(45, 80))
    inset = shape.uniform(185, 225)
    surface.seam(
        curve(
            (inset - 40, -10),
            (inset - 20, 220),
            (inset, lid - 30),
            (inset + 40, lid),
            (WIDTH - inset - 40, lid),
            (WIDTH - inset, lid - 30),
            (WIDTH - inset + 20, 220),
            (WIDTH - inset + 40, -10),
            points=160,
        )
    )
    for side in (0, 1):
        near, far = (inset - 14, -60) if side == 0 else (WIDTH - inset + 14, WIDTH + 60)
        _lamp(
            surface,
            curve((far, 150), (near, 165), (near, lid - 190), (far, lid - 160), points=24),
            lid - 160,
            RED_GLASS,
            shape,
        )
        _reflector(surface, 90 if side == 0 else WIDTH - 90, lid + 210)
    recess = ellipse(WIDTH / 2, lid - 125, 290, 85, 5)
    surface.part(recess, PAINTS[car.paint], raised=-16, soft=26)
    _plate(surface, WIDTH / 2, lid - 115, np.random.default_rng(car.wear))
    surface.part(ellipse(WIDTH / 2, lid - 222, 270, 11, 6), CHROME if car.model % 2 else PLASTIC, raised=8)
    surface.part(ellipse(WIDTH / 2, lid - 300, 44, 34), CHROME, raised=6)
    surface.part(ellipse(WIDTH / 2, lid - 300, 33, 23), PLASTIC, raised=-3)
    surface.part(ellipse(WIDTH / 2, lid - 300, 22, 9, 3, 0.6), CHROME, raised=4)
    surface.seam([(-10, lid + 62), (WIDTH + 10, lid + 62)], width=4)
    for x in (180, 420, 700, 940):
        outline = ellipse(x, lid + 130, 14, 14)
        surface.seam(np.vstack([outline, outline[:1]]), width=2, depth=2)
    surface.part(ellipse(WIDTH / 2, lid + 300, 480, 70, 5), PLASTIC, raised=-10, soft=18)
    _ground(surface, 825)


def _window(surface: Surface, belt: float) -> None:
    surface.part(
        np.array([(-50, -50), (WIDTH + 50, -50), (WIDTH + 50, belt - 16), (-50, belt - 16)]),
        GLASS,
        raised=-9,
        soft=5,
    )
    surface.part(
        np.array([(-50, belt - 18), (WIDTH + 50, belt - 18), (WIDTH + 50, belt), (-50, belt)]),
        RUBBER,
        raised=3,
    )


def _handle(surface: Surface, car: Car, x: float, y: float, *, chrome: bool) -> None:
    surface.part(ellipse(x, y + 4, 92, 40, 2.6), PAINTS[car.paint], raised=-15, soft=26)
    surface.part(ellipse(x, y, 108, 17, 5), CHROME if chrome else PAINTS[car.paint], raised=20, soft=9)
    outline = ellipse(x, y, 110, 19, 5)
    surface.seam(np.vstack([outline, outline[:1]]), width=2.5, depth=3)
    surface.seam([(x + 62, y - 16), (x + 62, y + 16)], width=2.5, depth=3)
    surface.part(ellipse(x + 84, y + 1, 9, 9), PLASTIC, raised=-2, soft=2)


def _strip(surface: Surface, car: Car, y: float, gap: float) -> None:
    rise = 0.05  # towards the rear
    for left, right in ((-60, gap - 14), (gap + 10, WIDTH + 60)):
        middle, half = (left + right) / 2, (right - left) / 2
        level = y - rise * (middle - gap)
        surface.part(ellipse(middle, level, half, 23, 12, -rise), PLASTIC, raised=9, soft=8)
        if car.model % 3 == 0:
            surface.part(ellipse(middle, level - 3, half - 12, 4, 12, -rise), CHROME, raised=2, soft=2)


def _lamp(surface: Surface, edge: Points, base: float, glass: Material, shape: np.random.Generator) -> None:
    """A lamp's glass with the ribs, bulbs and reflectors that show through it."""
    outline = np.vstack([edge, [[edge[-1][0], base]], [[edge[0][0], base]]])
    surface.part(outline, PLASTIC, raised=-4, soft=3)
    window, covered = surface.mask([outline * 0.97 + outline.mean(axis=0) * 0.03])
    surface.paint(window, covered, glass)
    low, high = outline.min(axis=0), outline.max(axis=0)
    inside = surface.copy()
    for x in np.arange(low[0], high[0], shape.uniform(9, 14)):
        inside.seam([(x, low[1]), (x + 8, high[1])], width=1.2, depth=0.8)
    for y in np.linspace(low[1], high[1], 4)[1:-1]:
        inside.part(ellipse((low[0] + high[0]) / 2, y, 400, 5, 6), CHROME, raised=1)
    for _ in range(3):
        at = shape.uniform(low, high)
        size = shape.uniform(24, 42)
        inside.part(ellipse(at[0], at[1], size, size), glass, raised=2.5, soft=8)
        inside.part(ellipse(at[0], at[1], size * 0.6, size * 0.6), CHROME, raised=-2, soft=8)
        inside.part(ellipse(at[0], at[1], size * 0.25, size * 0.25), AMBER, raised=2, soft=3)
    for layer in ("height", "colour", "finish"):
        old, new = getattr(surface, layer)[window], getattr(inside, layer)[window]
        weight = covered * 0.5 if old.ndim == 2 else covered[..., None] * 0.5
        old[:] = (old + weight * (new.astype(np.float32) - old)).astype(old.dtype)
    ring = np.vstack([outline, outline[:1]])
    surface.seam(ring, width=3.5, depth=3)


def _reflector(surface: Surface, x: float, y: float) -> None:
    surface.part(ellipse(x, y, 62, 17, 4), PLASTIC, raised=-3)
    surface.part(ellipse(x, y, 56, 12, 4), RED_GLASS, raised=3)
    for offset in range(-48, 50, 8):
        surface.seam([(x + offset, y - 11), (x + offset, y + 11)], width=1, depth=0.5)


def _plate(surface: Surface, x: float, y: float, rng: np.random.Generator) -> None:
    """A plate with marks that are no letters."""
    surface.part(ellipse(x, y, 262, 58, 14), PLASTIC, raised=4)
    surface.part(ellipse(x, y, 256, 52, 14), PLATE, raised=2)
    ink = Material((0.02, 0.02, 0.02), 0.1, 0.0)
    for place in np.linspace(-205, 205, 8):
        if rng.random() < 0.12:
            continue
        grid = rng.random((4, 3)) < 0.62
        for row, column in np.argwhere(grid):
            cell = ellipse(x + place + (column - 1) * 10, y + (row - 1.5) * 15, 5.5, 8, 8)
            surface.part(cell, ink)


def _wheel(surface: Surface, x: float, y: float, radius: float, shape: np.random.Generator) -> None:
    """An arch cut into the panel, with a tyre and a rim in its dark."""
    flange = ellipse(x, y, radius + 24, radius + 24)
    surface.part(flange, _at(surface, x, y - radius - 40), raised=9, soft=16)
    surface.part(ellipse(x, y, radius, radius), CAVITY, raised=-10, soft=8)
    tyre = radius * 0.87
    middle = y + 26
    surface.part(ellipse(x, middle, tyre, tyre), RUBBER, raised=6, soft=30)
    for angle in np.arange(0, 2 * np.pi, 0.07):
        ends = [(x + r * np.cos(angle), middle + r * np.sin(angle)) for r in (tyre * 0.94, tyre)]
        surface.seam(ends, width=3, depth=3)
    ring = ellipse(x, middle, tyre * 0.8, tyre * 0.8)
    surface.seam(np.vstack([ring, ring[:1]]), width=2, depth=1.5)
    rim = tyre * 0.67
    alloy = Material((0.3, 0.3, 0.3), 0.6, 0.8)
    surface.part(ellipse(x, middle, rim, rim), alloy, raised=4, soft=5)
    surface.part(ellipse(x, middle, rim * 0.9, rim * 0.9), CAVITY, raised=-6, soft=5)
    spokes = int(shape.integers(5, 9))
    width = shape.uniform(16, 30)
    for angle in np.arange(spokes) * 2 * np.pi / spokes + 0.3:
        cos, sin = np.cos(angle), np.sin(angle)
        spoke = np.array([(0, -width), (rim * 0.93, -width * 0.6), (rim * 0.93, width * 0.6), (0, width)])
        surface.part(spoke @ np.array([[cos, sin], [-sin, cos]]) + (x, middle), alloy, raised=5, soft=8)
    surface.part(ellipse(x, middle, 38, 38), alloy, raised=5)
    window, covered = surface.mask([ellipse(x, middle, tyre, tyre)])
    cover = surface.finish[window][..., 2]
    np.maximum(cover, np.rint(covered * 255).astype(np.uint8), out=cover)


def _at(surface: Surface, x: float, y: float) -> Material:
    """The material at one spot."""
    row, column = int(np.clip(y, 0, HEIGHT - 1) * TEXELS), int(np.clip(x, 0, WIDTH - 1) * TEXELS)
    b, g, r = (surface.colour[row, column] / 255.0) ** 2
    gloss, metal, _ = surface.finish[row, column] / 255.0
    return Material((float(b), float(g), float(r)), float(gloss), float(metal))


def _ground(surface: Surface, sill: float) -> None:
    """The car ends at the sill, turned under."""
    first = int((sill - 70) * TEXELS)
    y = np.arange(surface.height.shape[0] - first, dtype=np.float32) / (70 * TEXELS)
    surface.height[first:] -= (26 * np.minimum(y, 1.3) ** 2)[:, None]
    surface.remove(
        np.array([(-99, sill), (WIDTH + 99, sill + 4), (WIDTH + 99, HEIGHT + 99), (-99, HEIGHT + 99)])
    )


def _wear(surface: Surface, car: Car, wear: np.random.Generator) -> None:
    """Flakes in the paint, dust that thickens downwards, chips and drops: what no other car has."""
    rows, columns = surface.height.shape
    flakes = wear.standard_normal((256, 256), dtype=np.float32)
    flakes = np.tile(flakes, (-(-rows // 256), -(-columns // 256)))[:rows, :columns]
    metal = surface.finish[..., 1]
    dust = cv2.resize(
        fractal(rows // 4, columns // 4, 60, wear, 5), (columns, rows), interpolation=cv2.INTER_LINEAR
    )
    low = (np.arange(rows, dtype=np.float32) / rows)[:, None]
    amount = np.clip((0.03 + 0.22 * low**3) * (1 + 0.6 * dust), 0, 0.6) * np.float32(wear.uniform(0.4, 1.2))
    brown = np.sqrt(np.array([0.2, 0.25, 0.29])) * 255
    sparkle = 1 + flakes * metal.astype(np.float32) * np.float32(0.05 / 255)
    paint = cv2.multiply(surface.colour, cv2.merge([sparkle * (1 - amount)] * 3), dtype=cv2.CV_8U)
    film = cv2.transform(amount, brown.astype(np.float32)[:, None])
    surface.colour[:] = cv2.add(paint, film, dtype=cv2.CV_8U)
    surface.finish[..., 0] = np.rint(surface.finish[..., 0] * (1 - amount))
    _dots(surface, wear)


def _dots(surface: Surface, wear: np.random.Generator) -> None:
    kinds: tuple[tuple[int, tuple[float, float], Material], ...] = (
        (int(wear.integers(40, 90)), (0.8, 2.4), Material((0.5, 0.52, 0.53), 0.1, 0.0)),
        (int(wear.integers(40, 120)), (0.7, 2.0), Material((0.05, 0.06, 0.07), 0.1, 0.0)),
        (int(wear.integers(50, 120)), (1.2, 5.0), Material((0.16, 0.2, 0.24), 0.2, 0.0)),
    )
    for count, (small, large), material in kinds:
        for _ in range(count):
            size = wear.uniform(small, large)
            spot = ellipse(
                wear.uniform(0, WIDTH), wear.uniform(0, HEIGHT), size, size * wear.uniform(0.6, 1.5)
            )
            window, covered = surface.mask([spot])
            surface.paint(window, covered * np.float32(wear.uniform(0.3, 0.9)), material)
