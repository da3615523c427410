"""A view of a damage, changed a little more each time that it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Image = NDArray[np.uint8]
Chance = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Augment:
    """The chance of each change, 0 to 1. Together they cost half a millisecond a view."""

    crop: Chance = 0.5
    """A part that still holds the middle, where the damage is: as another box would have been drawn."""
    mirror: Chance = 0.4
    """Mirrored views are positives: copies are often mirrored, and the verifier tells them apart."""
    turn: Chance = 0.3
    recolour: Chance = 0.15
    """Grey, another paint, or channels exchanged."""
    light: Chance = 0.35
    blur: Chance = 0.3
    screen: Chance = 0.05
    """Stripes, as on a photo of a screen."""
    jpeg: Chance = 0.15
    hide: Chance = 0.1
    """A rectangle painted over."""

    def __call__(self, view: Image, size: int, rng: np.random.Generator) -> Image:
        """uint8 (H, W, 3) RGB to uint8 (size, size, 3)."""
        if rng.random() < self.crop:
            view = _cropped(view, rng)
        if rng.random() < self.mirror:
            view = view[:, ::-1]
        view = np.ascontiguousarray(view)
        for chance, change in (
            (self.turn, _turned),
            (self.recolour, _recoloured),
            (self.light, _relit),
            (self.blur, _blurred),
            (self.screen, _striped),
            (self.jpeg, _stored),
            (self.hide, _hidden),
        ):
            if rng.random() < chance:
                view = change(view, rng)
        return np.asarray(cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


PLAIN = Augment(*(0.0,) * 9)
"""Changes nothing but the size."""


def _cropped(view: Image, rng: np.random.Generator) -> Image:
    height, width = view.shape[:2]
    scale, aspect = rng.uniform(0.78, 1), np.exp(rng.uniform(-0.12, 0.12))
    w, h = (max(int(min(scale * side, 1) * n), 1) for side, n in ((aspect, width), (1 / aspect, height)))
    x, y = (int((n - m) * np.clip(rng.normal(0.5, 0.25), 0, 1)) for n, m in ((width, w), (height, h)))
    return view[y : y + h, x : x + w]


def _turned(view: Image, rng: np.random.Generator) -> Image:
    height, width = view.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-12, 12), rng.uniform(1, 1.12))
    matrix = matrix + np.pad(rng.uniform(-0.06, 0.06, (2, 2)), ((0, 0), (0, 1)))
    turned = cv2.warpAffine(view, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, np.uint8)


def _recoloured(view: Image, rng: np.random.Generator) -> Image:
    kind = rng.integers(3)
    if kind == 0:
        return np.repeat(np.asarray(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, 2)
    if kind == 1:
        return np.ascontiguousarray(view[..., rng.permutation(3)])
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(180)) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _relit(view: Image, rng: np.random.Generator) -> Image:
    level = np.linspace(0, 1, 256)[:, None] ** 2 ** rng.uniform(-0.6, 0.6)
    gains = rng.uniform(0.8, 1.2) * rng.uniform(0.9, 1.1, 3)
    table = np.clip((0.5 + rng.uniform(0.7, 1.3) * (level - 0.5)) * gains, 0, 1)
    return np.asarray(cv2.LUT(view, (255 * table).astype(np.uint8)[None]), np.uint8)


def _blurred(view: Image, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.5)), np.uint8)
    height, width = view.shape[:2]
    scale = rng.uniform(0.4, 0.9)
    smaller = max(int(width * scale), 1), max(int(height * scale), 1)
    small = cv2.resize(view, smaller, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height)), np.uint8)


def _striped(view: Image, rng: np.random.Generator) -> Image:
    y, x = np.mgrid[: view.shape[0], : view.shape[1]]
    angle, wavelength = rng.uniform(0, np.pi), rng.uniform(2.2, 9)
    wave = np.sin(2 * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle)))
    striped = view + rng.uniform(4, 16) * wave[..., None] * rng.uniform(0.6, 1, 3)
    return np.asarray(np.clip(striped, 0, 255), np.uint8)


def _stored(view: Image, rng: np.random.Generator) -> Image:
    stored = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(15, 70))])[1]
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8)


def _hidden(view: Image, rng: np.random.Generator) -> Image:
    hidden = view.copy()
    h, w = (max(int(side * rng.uniform(0.1, 0.33)), 1) for side in view.shape[:2])
    y, x = rng.integers(view.shape[0] - h + 1), rng.integers(view.shape[1] - w + 1)
    hidden[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return hidden
