"""Pictures for the tests: drawn, encoded, and broken in many ways."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import ClaimImage

Image = NDArray[np.uint8]

# 16 x 16 pixels of pure red, four channels of an Adobe CMYK.
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwAQCwwODAoQDg0OEhEQExgoGhgWFhgxIyUdKDozPTw5Mzg3QEhcTkBEV0U3OFBtUVdfYmdoZz5N"
    "cXlwZHhcZWdj/8AAFAgAEAAQBEMRAE0RAFkRAEsRAP/EAB8AAAEFAQEBAQEBAAAAAAAAAAABAgMEBQYHCAkKC//EALUQAAIBAwMCBAMF"
    "BQQEAAABfQECAwAEEQUSITFBBhNRYQcicRQygZGhCCNCscEVUtHwJDNicoIJChYXGBkaJSYnKCkqNDU2Nzg5OkNERUZHSElKU1RVVldY"
    "WVpjZGVmZ2hpanN0dXZ3eHl6g4SFhoeIiYqSk5SVlpeYmZqio6Slpqeoqaqys7S1tre4ubrCw8TFxsfIycrS09TV1tfY2drh4uPk5ebn"
    "6Onq8fLz9PX29/j5+v/aAA4EQwBNAFkASwAAPwD0CvP68/r0Ciiiiiiiiiiiiv/Z"
)


def scene(width: int = 640, height: int = 480, seed: int = 0) -> Image:
    """Shapes of many colours on a shaded ground: texture that local features hold on to."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[None] * np.linspace(0.7, 1.2, height)[:, None]
    image = np.repeat(np.clip(ramp, 0, 255)[..., None], 3, axis=2).astype(np.uint8)
    for _ in range(90):
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = int(rng.integers(6, max(8, min(width, height) // 7)))
        if rng.random() < 0.5:
            cv2.circle(image, (x, y), size, colour, -1, cv2.LINE_AA)
        else:
            corners = np.array([x, y]) + rng.integers(-size, size + 1, (4, 2))
            cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    return image


def encoded(image: NDArray[Any], ending: str = ".jpg", *parameters: int) -> bytes:
    return cv2.imencode(ending, image, list(parameters))[1].tobytes()


def progressive(image: Image) -> bytes:
    return encoded(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def animation(ending: str, frames: int = 3) -> bytes:
    """Frames of grey 60, 120, 180 ..."""
    made = cv2.Animation()
    made.frames = [np.full((20, 30, 4), 60 * (i + 1), np.uint8) for i in range(frames)]
    made.durations = [100] * frames
    return cv2.imencodeanimation(ending, made)[1].tobytes()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + data + chunk(b"IEND", b"")


def exif(orientation: int, order: str = ">") -> bytes:
    """A TIFF block with one tag."""
    mark = b"MM" if order == ">" else b"II"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)


def with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def many_scans(jpeg: bytes, count: int) -> bytes:
    """The last scan of a progressive JPEG, again and again."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


def claim_image(content: bytes, claim: str = "claim-1", photo: str = "photo-1") -> ClaimImage:
    return ClaimImage("tenant", claim, photo, content)
