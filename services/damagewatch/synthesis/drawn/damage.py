"""Damage done to a drawn surface: dents, scratches, broken parts, each as singular as its random numbers."""

from __future__ import annotations

import cv2
import numpy as np

from damagewatch.domain import DamageType
from damagewatch.synthesis.drawn.noise import fractal, wobble
from damagewatch.synthesis.drawn.surface import (
    CAVITY,
    PLASTIC,
    PRIMER,
    STEEL,
    TEXELS,
    Material,
    Points,
    Surface,
    ellipse,
)


def dent(surface: Surface, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    """Pushes the panel in around (x, y), about `size` millimetres across: a hollow with creases and a rim."""
    window, _ = surface.mask([ellipse(x, y, size, size)])
    rows, columns = (s.stop - s.start for s in window)
    py = (np.arange(rows, dtype=np.float32)[:, None] + window[0].start) / TEXELS - y
    px = (np.arange(columns, dtype=np.float32)[None, :] + window[1].start) / TEXELS - x
    warp = size * 0.05
    px = px + warp * fractal(rows, columns, size * 0.9, rng, 2)
    py = py + warp * fractal(rows, columns, size * 0.9, rng, 2)
    turn, flat = rng.uniform(0, np.pi), rng.uniform(1.2, 2.6)
    along, across = px * np.cos(turn) + py * np.sin(turn), -px * np.sin(turn) + py * np.cos(turn)
    radius = np.sqrt(along**2 + (across * flat) ** 2) / (size * 0.55)
    depth = size * rng.uniform(0.035, 0.06)
    hollow = -depth * np.exp(-((radius / 0.75) ** 3)) + 0.18 * depth * np.exp(-(((radius - 1.1) / 0.25) ** 2))
    for _ in range(rng.integers(1, 4)):
        angle = turn + rng.normal(0, 0.7)
        offset = rng.uniform(-0.25, 0.25) * size
        side = -px * np.sin(angle) + py * np.cos(angle) - offset
        reach = px * np.cos(angle) + py * np.sin(angle) - rng.uniform(-0.2, 0.2) * size
        fold = np.exp(
            -np.sqrt(side**2 + 9) / (size * rng.uniform(0.05, 0.1))
            - (reach / (size * rng.uniform(0.25, 0.5))) ** 2
        )
        hollow += rng.choice([-1.0, 1.0], p=[0.7, 0.3]) * depth * rng.uniform(0.25, 0.5) * fold
    edge = np.hypot(px, py) / size
    surface.height[window] += hollow * np.clip((1 - edge) * 5, 0, 1)
    # Whatever pushed it left a rub where it went deepest.
    _rub(surface, x, y, size * rng.uniform(0.2, 0.4), turn + rng.normal(0, 0.3), rng)
    surface.damaged.append(ellipse(x, y, size * 0.62, size * 0.62 / flat**0.7, turn=turn))


def scratch(surface: Surface, x: float, y: float, length: float, rng: np.random.Generator) -> None:
    """Several strands beside each other, through the clear coat, here and there to primer or steel."""
    turn = rng.normal(0, 0.35) + (np.pi / 2 if rng.random() < 0.15 else 0)
    bow = rng.uniform(-0.12, 0.12) * length
    spread = length * rng.uniform(0.03, 0.12)
    drawn: list[Points] = []
    for strand in range(int(rng.integers(4, 13))):
        share = rng.uniform(0.25, 1.0) if strand else 1.0
        start = rng.uniform(0, 1 - share)
        t = np.linspace(start, start + share, 40)
        along = (t - 0.5) * length
        across = (
            bow * (1 - 4 * (t - 0.5) ** 2) + rng.normal(0, spread) + 0.012 * length * wobble(40, 0.06, rng)
        )
        line = np.column_stack(
            [along * np.cos(turn) - across * np.sin(turn), along * np.sin(turn) + across * np.cos(turn)]
        )
        line += (x, y)
        _strand(surface, line, rng.uniform(0.8, 3.0) * (1.4 if strand == 0 else 1), rng)
        drawn.append(line)
    _rub(surface, x, y, length * rng.uniform(0.2, 0.4), turn, rng)
    hull = cv2.convexHull(np.concatenate(drawn).astype(np.float32))
    surface.damaged.append(hull[:, 0].astype(np.float64))


def broken(surface: Surface, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    """A hole with torn edges, cracks that run out from it, and one side pushed in."""
    count = int(rng.integers(9, 16))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    reach = size * rng.uniform(0.12, 0.34, count)
    hole = np.column_stack([x + 1.4 * reach * np.cos(angles), y + reach * np.sin(angles)])
    lip = hole + (hole - (x, y)) * rng.uniform(0.08, 0.3, (count, 1))
    window, covered = surface.mask([ellipse(x, y, size * 0.7, size * 0.55)], soft=size * 0.5)
    crumpled = fractal(covered.shape[0], covered.shape[1], size * 0.5, rng, 2) * np.float32(size * 0.025)
    surface.height[window] += covered * (crumpled - np.float32(size * 0.06))
    ends = [hole]
    for angle in rng.uniform(0, 2 * np.pi, int(rng.integers(4, 9))):
        t = np.linspace(0, 1, 14)
        run = size * rng.uniform(0.25, 0.75) * t
        bend = angle + 0.45 * np.cumsum(wobble(14, 0.8, rng)) / 14 + rng.normal(0, 0.2) * t
        crack = np.column_stack(
            [x + (0.6 * reach.mean() + run) * np.cos(bend), y + (0.6 * reach.mean() + run) * np.sin(bend)]
        )
        _crack(surface, crack, rng)
        ends.append(crack)
    surface.paint(*surface.mask([lip]), PRIMER)
    surface.paint(*surface.mask([lip + rng.normal(0, size * 0.012, lip.shape)], stroke=1.5), STEEL)
    surface.part(hole, CAVITY, raised=-18, soft=3)
    for _ in range(rng.integers(2, 5)):  # what one sees inside: foam, brackets, shards
        tone = rng.uniform(0.02, 0.25)
        corners = np.sort(rng.choice(count, 3, replace=False))
        shard = (x, y) + 0.85 * (hole[corners] - (x, y)) * rng.uniform(0.2, 1.0, (3, 1))
        surface.part(shard, Material((tone, tone, tone), 0.3, 0.3))
    hull = cv2.convexHull(np.concatenate(ends).astype(np.float32))
    surface.damaged.append(hull[:, 0].astype(np.float64))


DAMAGES = {DamageType.DENT: dent, DamageType.SCRATCH: scratch, DamageType.BROKEN: broken}
"""How each type of damage is done: function(surface, x, y, size, rng), millimetres."""


def _strand(surface: Surface, line: Points, width: float, rng: np.random.Generator) -> None:
    """One line of a scratch: a groove whose walls catch light, tapered, with gaps."""
    tone = rng.uniform(0.5, 0.85)
    bare = PRIMER if rng.random() < 0.5 else Material((tone, tone, tone), 0.05, 0.0)
    for piece in np.array_split(line, int(rng.integers(2, 6))):
        if len(piece) < 2 or rng.random() < 0.12:
            continue
        here = width * rng.uniform(0.5, 1.2)
        window, covered = surface.mask([piece], stroke=here, soft=here * 0.4, closed=False)
        surface.height[window] -= np.float32(0.35 * here) * covered
        window, covered = surface.mask([piece], stroke=here, closed=False)
        surface.paint(window, covered * np.float32(rng.uniform(0.5, 1)), bare)
        if here > 1.8 and rng.random() < 0.6:
            core = piece + rng.normal(0, 0.3, 2)
            surface.paint(
                *surface.mask([core], stroke=here * 0.35, closed=False),
                STEEL if rng.random() < 0.5 else PLASTIC,
            )


def _crack(surface: Surface, line: Points, rng: np.random.Generator) -> None:
    """A gap that narrows towards its end, with one side standing higher."""
    for i in range(len(line) - 1):
        width = 4 * (1 - i / len(line)) + 0.6
        piece = line[i : i + 2]
        window, covered = surface.mask([piece + 2.5], stroke=width + 5, soft=4, closed=False)
        surface.height[window] += np.float32(1.6) * covered
        surface.paint(
            *surface.mask([piece + rng.normal(0, 0.6, 2)], stroke=width + 2.4, closed=False), PRIMER
        )
    for i in range(len(line) - 1):
        width = 4 * (1 - i / len(line)) + 0.6
        surface.paint(*surface.mask([line[i : i + 2]], stroke=width, closed=False), CAVITY)


def _rub(surface: Surface, x: float, y: float, size: float, turn: float, rng: np.random.Generator) -> None:
    """Foreign paint rubbed off onto the panel, in fine streaks along one direction."""
    window, covered = surface.mask(
        [ellipse(x, y, size, size * rng.uniform(0.25, 0.5), turn=turn)], soft=size * 0.3
    )
    rows, columns = covered.shape
    if not rows or not columns:
        return
    grain = rng.standard_normal((rows, columns), dtype=np.float32)
    length = max(int(size * 0.5), 5)
    kernel = np.zeros((length, length), np.float32)
    middle, half = length // 2, length / 2 * np.array([np.cos(turn), np.sin(turn)])
    ends = [tuple(int(v) for v in np.rint(middle + s * half)) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    streaks = cv2.filter2D(grain, -1, kernel / np.sqrt(max(kernel.sum(), 1)))
    patches = fractal(rows, columns, size * 0.4, rng, 4)
    weight = np.clip(covered * (0.9 * streaks + 0.7 * patches - 0.1), 0, 0.85).astype(np.float32)
    tones = (
        np.array([0.75, 0.75, 0.75]),
        np.array([0.02, 0.02, 0.025]),
        rng.uniform(0.1, 0.6) + rng.uniform(-0.05, 0.05, 3),
    )
    tone = tones[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    surface.paint(window, weight, Material((float(tone[0]), float(tone[1]), float(tone[2])), 0.05, 0.0))
