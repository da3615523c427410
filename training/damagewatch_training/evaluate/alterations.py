"""What happens to a picture before it is sent in again: the alterations that the chain must see through.

Each takes uint8 (H, W, 3) BGR and a generator and gives uint8 BGR of any size. The result is then stored as JPEG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Alteration = Callable[[Image, np.random.Generator], Image]

CROPPED = 0.6
"""Share of the width, and of the height, that a crop keeps."""


def jpeg(image: Image, rng: np.random.Generator) -> bytes:
    """As a messenger or a form would store it: JPEG of quality 40 to 90."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 91))])[1].tobytes()


def re_encoded(image: Image, rng: np.random.Generator) -> Image:
    """Stored twice as a poor JPEG."""
    for quality in rng.integers(25, 60, 2):
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
        image = np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)
    return image


def cropped(image: Image, rng: np.random.Generator) -> Image:
    """`CROPPED` of the width and of the height, which leaves 36 % of the picture, somewhat off its middle."""
    height, width = image.shape[:2]
    high, wide = max(round(CROPPED * height), 1), max(round(CROPPED * width), 1)
    y, x = (int(free * rng.uniform(0.25, 0.75)) for free in (height - high, width - wide))
    return image[y : y + high, x : x + wide].copy()


def scaled(image: Image, rng: np.random.Generator) -> Image:
    """To 0.35 to 0.7 of its size, or 1.4 to 2 times."""
    by = float(rng.uniform(0.35, 0.7) if rng.random() < 0.5 else rng.uniform(1.4, 2.0))
    return np.asarray(cv2.resize(image, None, fx=by, fy=by, interpolation=cv2.INTER_AREA), np.uint8)


def brightened(image: Image, rng: np.random.Generator) -> Image:
    """Brighter by a quarter to a half, with less contrast."""
    return np.asarray(
        cv2.convertScaleAbs(image, alpha=rng.uniform(1.1, 1.4), beta=rng.uniform(15, 45)), np.uint8
    )


def mirrored(image: Image, rng: np.random.Generator) -> Image:
    """Left to right."""
    return np.asarray(cv2.flip(image, 1), np.uint8)


def hue_shifted(image: Image, rng: np.random.Generator) -> Image:
    """A red car becomes a blue one."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(25, 155))) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def sepia(image: Image, rng: np.random.Generator) -> Image:
    """An old photograph, darker towards its corners."""
    tone = np.array([[0.131, 0.534, 0.272], [0.168, 0.686, 0.349], [0.189, 0.769, 0.393]])
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    fall = 1 - rng.uniform(0.1, 0.4) * (x * x + y * y) / 2
    return np.asarray(np.clip(cv2.transform(image, tone) * fall[..., None], 0, 255), np.uint8)


def other_background(image: Image, rng: np.random.Generator) -> Image:
    """The middle is cut out along a wavy outline and put before a white, plain or graded backdrop."""
    height, width = image.shape[:2]
    backdrop = np.empty((2, 2, 3), np.float32)
    backdrop[:] = rng.uniform(60, 255, 3) if rng.random() < 0.5 else 255.0
    backdrop[rng.integers(0, 2)] *= rng.uniform(0.5, 1.0)
    behind = cv2.resize(backdrop, (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.GaussianBlur(_subject(height, width, rng), (0, 0), 1.5)[..., None]
    return np.clip(mask * image + (1 - mask) * behind, 0, 255).astype(np.uint8)


def _subject(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """1 within a wavy outline around most of the picture, 0 outside."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = np.arctan2(y, x)
    radius = rng.uniform(0.82, 0.92) + 0.03 * np.sin(rng.integers(3, 9) * angle + rng.uniform(0, 6))
    return np.asarray(x**4 + y**4 < radius**4, np.float32)


def screen_recaptured(image: Image, rng: np.random.Generator) -> Image:
    """Photographed from a screen: its stripes, a slight angle, its bezel, glare, another camera."""
    height, width = image.shape[:2]
    lit = image.astype(np.float64)
    x, y = np.arange(width), np.arange(height)
    pitch = rng.uniform(2.2, 4.5)  # of the beat between the screen's grid and the camera's
    for channel in range(3):
        phase = 2 * np.pi * channel / 3
        beat = np.sin(2 * np.pi * (x[None] + rng.uniform(-0.2, 0.2) * y[:, None]) / pitch + phase)
        lit[..., channel] *= 1 + rng.uniform(0.03, 0.1) * beat
    lit = 255 * (np.clip(lit, 0, 255) / 255) ** rng.uniform(0.8, 1.25) * (rng.uniform(0.95, 1.1), 1.0, 0.95)
    spot = np.exp(
        -(((x[None] / width - rng.uniform(0, 1)) / 0.3) ** 2)
        - ((y[:, None] / height - rng.uniform(0, 1)) / 0.2) ** 2
    )
    lit += rng.uniform(0, 60) * spot[..., None]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inset = 0.04 * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * (width, height)
    moved = corners + inset + rng.uniform(-0.04, 0.04, (4, 2)) * (width, height)
    homography = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    bezel = rng.uniform(5, 40)
    seen = cv2.warpPerspective(
        np.clip(lit, 0, 255), homography, (width, height), flags=cv2.INTER_LINEAR, borderValue=(bezel,) * 3
    )
    seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.5, 1.0)) + rng.normal(0, 2.5, seen.shape)
    return np.asarray(np.clip(seen, 0, 255), np.uint8)


KINDS: Mapping[str, Alteration] = MappingProxyType(
    {
        "re-encoded": re_encoded,
        "cropped": cropped,
        "scaled": scaled,
        "brightened": brightened,
        "mirrored": mirrored,
        "hue-shifted": hue_shifted,
        "sepia": sepia,
        "other background": other_background,
        "screen-recaptured": screen_recaptured,
    }
)
"""By name, as they are told."""
