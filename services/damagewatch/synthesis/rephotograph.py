"""A second photograph of the same thing: another standpoint, another light, another camera.

Real photographs of one damage from two standpoints are rare, so they are made: the photo is taken for a
flat panel that a camera sees again from elsewhere (a homography), the light changes smoothly over it, and
a camera of its own adds blur, noise, sharpening and JPEG. `damagewatch.synthesis.conditions` adds what happens more
rarely: parallax of a curved panel, reflections, dirt, things in the way, screens, messengers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

LEAST_IN_VIEW = 0.6
"""Share of the first photo that the second one shows at least (at strength 1 or less)."""


@dataclass(frozen=True, slots=True, eq=False)
class Rephotograph:
    """A made second photograph.

    `image` uint8 (H, W, 3) BGR, as large as the first photo. `homography` float64 (3, 3) maps pixels of the
    first photo to pixels of this one, in the coordinates of `damagewatch.domain` (the centre of the top left
    pixel is (0.5, 0.5)). `jpeg_quality` in 1..100 is what this camera would store it at.
    """

    image: Image
    homography: NDArray[np.float64]
    jpeg_quality: int

    def encoded(self) -> bytes:
        """The photo as a JPEG file."""
        return cv2.imencode(".jpg", self.image, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])[1].tobytes()


def rephotograph(
    photo: Image, rng: np.random.Generator, strength: float = 1.0, *, mirror: bool = False
) -> Rephotograph:
    """Photographs `photo` again.

    The same generator state gives the same result. Where the new frame reaches beyond the photo, the photo is
    continued by reflection (`cv2.BORDER_REFLECT_101`: warp masks with the same).

    Args:
        photo: uint8 (H, W, 3), BGR.
        rng: where all chance comes from.
        strength: 0 leaves the photo as it is, 1 is clearly another photograph, above 1 is harder than life.
        mirror: turns the photo left to right first, as a fraudster would; the homography says so.

    Raises:
        ValueError: for a photo of another shape or dtype, or a negative strength.
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or photo.size == 0:
        raise ValueError(f"a photo is uint8 (H, W, 3) and not empty, this is {photo.dtype} {photo.shape}")
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength is 0 or more, this is {strength}")
    height, width = photo.shape[:2]
    homography = standpoint(width, height, rng, strength).homography
    if mirror:
        homography = homography @ mirroring(width)
    image = warped(photo, homography)
    image = relight(image, rng, strength)
    image = capture(image, rng, strength)
    quality = round(95 - strength * rng.uniform(5, 50))
    return Rephotograph(image, homography, min(max(quality, 20), 95))


def mirroring(width: int) -> NDArray[np.float64]:
    """The homography that turns a photo of that width left to right."""
    return np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])


def standpoint(width: int, height: int, rng: np.random.Generator, strength: float) -> Standpoint:
    """A standpoint from which the whole frame is seen, drawn until most of the photo stays in view."""
    for attempt in range(8):
        # Each attempt is a little tamer, so that the last one always fits.
        s = strength * (1 - attempt / 8)
        roll = math.radians(np.clip(rng.normal(0, 6), -12, 12)) * s
        yaw, pitch = np.radians(rng.uniform(-28, 28, 2) * (1.0, 0.8)) * s
        zoom = math.exp(rng.triangular(math.log(0.7), 0.06, math.log(1.4)) * s)
        shift = rng.uniform(-0.12, 0.12, 2) * (width, height) * s
        found = Standpoint(width, height, roll, yaw, pitch, zoom, (float(shift[0]), float(shift[1])))
        if share_in_view(found.homography, width, height) >= LEAST_IN_VIEW:
            break
    return found


@dataclass(frozen=True, slots=True)
class Standpoint:
    """A camera that turned by these angles (radians) about the centre of the thing that the photo shows.

    `width` and `height` are the photo's, `zoom` enlarges, `shift` moves the picture: pixels.
    """

    width: int
    height: int
    roll: float
    yaw: float
    pitch: float
    zoom: float
    shift: tuple[float, float]

    @property
    def focal(self) -> float:
        """Focal length in pixels, and how far away the photographed thing is."""
        return 1.3 * max(self.width, self.height)

    @property
    def homography(self) -> NDArray[np.float64]:
        """First photo to second, of a flat panel. float64 (3, 3)."""
        turn = self._turn()
        centred = np.array([[1.0, 0, -self.width / 2], [0, 1, -self.height / 2], [0, 0, 1]])
        # The panel, turned about its centre and put `focal` away: unturned, it is seen at its own size.
        plane = np.column_stack([turn[:, 0], turn[:, 1], [0.0, 0.0, self.focal]])
        homography = self._camera() @ plane @ centred
        return np.asarray(homography / homography[2, 2], dtype=np.float64)

    def seen(self, points: NDArray[np.float64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
        """First photo to second, of points that lie `depth` pixels behind the flat panel.

        Args:
            points: float64 (N, 2), pixels of the first photo.
            depth: float64 (N,).

        Returns:
            float64 (N, 2), pixels of the second photo.
        """
        further = (1 + depth / self.focal)[:, None]  # along the rays of the first camera
        space = np.column_stack([(points - (self.width / 2, self.height / 2)) * further, depth])
        image = (space @ self._turn().T + (0.0, 0.0, self.focal)) @ self._camera().T
        return np.asarray(image[:, :2] / image[:, 2:], np.float64)

    def _turn(self) -> NDArray[np.float64]:
        turn = (
            cv2.Rodrigues(np.array([0.0, self.yaw, 0.0]))[0]
            @ cv2.Rodrigues(np.array([self.pitch, 0.0, 0.0]))[0]
        )
        return np.asarray(cv2.Rodrigues(np.array([0.0, 0.0, self.roll]))[0] @ turn, np.float64)

    def _camera(self) -> NDArray[np.float64]:
        middle = self.width / 2 + self.shift[0], self.height / 2 + self.shift[1]
        placed = np.array([[1.0, 0, middle[0]], [0, 1, middle[1]], [0, 0, 1]])
        return placed @ np.diag([self.focal * self.zoom, self.focal * self.zoom, 1.0])


def share_in_view(homography: NDArray[np.float64], width: int, height: int) -> float:
    """Share of the photo's area that is still inside the new frame of the same size, 0 to 1."""
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    back = cv2.perspectiveTransform(frame[None], np.linalg.inv(homography))[0]
    common, _ = cv2.intersectConvexConvex(back.astype(np.float32), frame.astype(np.float32))
    return float(common) / (width * height)


def warped(photo: Image, homography: NDArray[np.float64]) -> Image:
    """The photo as the homography moves it, as large as before, continued by reflection."""
    if np.allclose(homography, np.eye(3), atol=1e-9):
        return photo.copy()
    half = np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    to_opencv = np.linalg.inv(half) @ homography @ half  # OpenCV counts from the centre of the first pixel
    shrinks = math.sqrt(abs(np.linalg.det(homography[:2, :2]))) < 0.8
    source = cv2.GaussianBlur(photo, (3, 3), 0.6) if shrinks else photo
    size = photo.shape[1], photo.shape[0]
    moved = cv2.warpPerspective(
        source, to_opencv, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, dtype=np.uint8)


def relight(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Exposure, white balance, contrast and gamma by tables; fall-off, shadow and glare by smooth maps."""
    exposure = 2.0 ** (rng.uniform(-0.55, 0.45) * strength)
    gamma = 2.0 ** (rng.uniform(-0.35, 0.35) * strength)
    contrast = 1 + rng.uniform(-0.22, 0.22) * strength
    warmth = rng.uniform(-0.14, 0.14) * strength
    tint = rng.uniform(-0.04, 0.04) * strength
    level = np.linspace(0, 1, 256)
    table = np.empty((1, 256, 3), np.uint8)
    for channel, gain in enumerate((1 - warmth, 1 + tint, 1 + warmth)):
        curve = np.clip(exposure * gain * level, 0, None) ** gamma
        curve = 0.5 + contrast * (curve - 0.5)
        # A soft shoulder, as cameras have: highlights press together instead of being cut off.
        curve = (
            np.where(curve > 0.85, 0.85 + 0.15 * np.tanh((curve - 0.85) / 0.15), curve) if strength else curve
        )
        table[0, :, channel] = np.clip(np.rint(curve * 255), 0, 255)
    lit = np.asarray(cv2.LUT(image, table), dtype=np.uint8)
    size = image.shape[1], image.shape[0]
    shade, glare = _light_maps(size[0] / size[1], rng, strength)
    enlarged = cv2.resize(shade, size, interpolation=cv2.INTER_LINEAR)
    shaded = cv2.multiply(lit, cv2.merge([enlarged] * 3), dtype=cv2.CV_8U)
    if glare is not None:
        shaded = cv2.add(shaded, cv2.resize(glare, size, interpolation=cv2.INTER_LINEAR), dtype=cv2.CV_8U)
    return np.asarray(shaded, dtype=np.uint8)


def _light_maps(
    aspect: float, rng: np.random.Generator, strength: float
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Small maps, to be enlarged: `shade` (h, w) to multiply by, `glare` (h, w, 3) in grey levels to add."""
    rows = 96
    columns = int(np.clip(rows * aspect, 8, 768))
    y, x = np.mgrid[-1 : 1 : rows * 1j, -aspect : aspect : columns * 1j].astype(np.float32)
    radius = (x * x + y * y) / (1 + aspect * aspect)
    shade = 1 - strength * rng.uniform(0, 0.3) * radius
    shade += strength * (rng.uniform(-0.18, 0.18) * x / aspect + rng.uniform(-0.18, 0.18) * y)
    if rng.random() < 0.6:  # someone, a pole, a roof edge between the sun and the panel
        shade *= 1 - strength * rng.uniform(0.15, 0.45) * _half_plane(x, y, aspect, rng)
    glare = None
    if strength and rng.random() < 0.6:
        light = np.zeros_like(shade)
        for _ in range(rng.integers(1, 4)):
            light += _streak(x, y, aspect, rng)
        colour = np.array([rng.uniform(0.8, 1.1), 1.0, rng.uniform(0.85, 1.05)], np.float32)
        glare = (strength * rng.uniform(25, 90) * np.minimum(light, 1.3))[..., None] * colour
    return np.maximum(shade, 0.05).astype(np.float32), glare


def _half_plane(
    x: NDArray[np.float32], y: NDArray[np.float32], aspect: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """1 on one side of a soft, slightly wavy line, 0 on the other."""
    angle = rng.uniform(0, 2 * math.pi)
    along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    edge = rng.uniform(-0.5, 0.7) * aspect + rng.uniform(0, 0.08) * np.sin(along * rng.uniform(2, 7))
    return np.asarray(
        1 / (1 + np.exp(np.clip((edge - across) / rng.uniform(0.02, 0.2), -30, 30))), np.float32
    )


def _streak(
    x: NDArray[np.float32], y: NDArray[np.float32], aspect: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A curved band of light that fades towards its ends: a lamp or the sky, mirrored in the paint."""
    angle = rng.uniform(-0.6, 0.6) + (math.pi / 2 if rng.random() < 0.25 else 0)
    x0, y0 = rng.uniform(-aspect, aspect), rng.uniform(-1, 1)
    along = (x - x0) * math.cos(angle) + (y - y0) * math.sin(angle)
    across = -(x - x0) * math.sin(angle) + (y - y0) * math.cos(angle) + rng.uniform(-0.15, 0.15) * along**2
    width, length = rng.uniform(0.02, 0.15), rng.uniform(0.3, 1.5)
    return np.asarray(np.exp(-(np.abs(across / width) ** 1.5) - (along / length) ** 2), np.float32)


def capture(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Saturation, blur, resolution, sharpening and noise of another camera."""
    if not strength:
        return image
    height, width = image.shape[:2]
    scale = max(width, height) / 640  # blur is told for a photo of 640 pixels
    saturation = 1 + rng.uniform(-0.35, 0.3) * strength
    grey = np.array([0.114, 0.587, 0.299])
    out = cv2.transform(image, saturation * np.eye(3) + (1 - saturation) * np.tile(grey, (3, 1)))
    if rng.random() < 0.5:
        smaller = 1 - strength * rng.uniform(0, 0.5)
        reduced = max(round(width * max(smaller, 0.2)), 1), max(round(height * max(smaller, 0.2)), 1)
        enlarge = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
        out = cv2.resize(
            cv2.resize(out, reduced, interpolation=cv2.INTER_AREA), (width, height), interpolation=enlarge
        )
    kind = rng.random()
    if kind < 0.35:
        out = cv2.GaussianBlur(out, (0, 0), max(strength * scale * rng.uniform(0.2, 1.1), 0.1))
    elif kind < 0.6:
        out = cv2.filter2D(out, -1, _motion(strength * scale * rng.uniform(1, 5), rng.uniform(0, math.pi)))
    if rng.random() < 0.5:
        amount = strength * rng.uniform(0.2, 0.9)
        out = cv2.addWeighted(
            out, 1 + amount, cv2.GaussianBlur(out, (0, 0), max(1.2 * scale, 0.5)), -amount, 0
        )
    noise = _noise(height, width, rng) * np.float32(strength * rng.uniform(0.5, 6))
    return np.asarray(cv2.add(out, noise, dtype=cv2.CV_8U), dtype=np.uint8)


def _motion(length: float, angle: float) -> NDArray[np.float32]:
    """The kernel of a camera that moved `length` pixels while it exposed. Sums to 1."""
    size = 2 * math.ceil(length / 2) + 1
    centre = size // 2
    kernel = np.zeros((size, size), np.float32)
    for step in np.linspace(-length / 2, length / 2, 4 * size):
        kernel[round(centre + step * math.sin(angle)), round(centre + step * math.cos(angle))] += 1
    return np.asarray(kernel / kernel.sum(), np.float32)


def _noise(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sensor noise (H, W, 3) of deviation 1, mostly grey, as after a camera's own noise reduction.

    A tile repeated: nobody sees it, and drawing a whole photo of it would cost more than all the rest.
    """
    tile = 256
    grey = rng.standard_normal((tile, tile, 1), dtype=np.float32)
    colour = rng.standard_normal((tile, tile, 3), dtype=np.float32)
    noise = 0.85 * grey + 0.5 * colour
    return np.tile(noise, (-(-height // tile), -(-width // tile), 1))[:height, :width]
