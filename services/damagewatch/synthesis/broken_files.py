"""Files that claim to be photos and are none, each with the reason for which it must be refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from damagewatch.domain import Reason


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """What to write, under what name, and why it must be refused."""

    name: str
    content: bytes
    reasons: frozenset[Reason]
    why: str


def broken_files(jpeg: bytes) -> Iterator[BrokenFile]:
    """One of each kind; `jpeg` is a good photo, to be cut off in the middle."""
    yield BrokenFile(
        "cut-off.jpg",
        jpeg[: len(jpeg) // 2],
        frozenset({Reason.TRUNCATED}),
        "half of a JPEG: the upload broke off",
    )
    yield BrokenFile(
        "note.jpg",
        b"The customer sends the photos by post.\n",
        frozenset({Reason.NOT_AN_IMAGE}),
        "a text named as a photo",
    )
    yield BrokenFile(
        "bomb.png",
        png_header(60_000, 60_000),
        frozenset({Reason.TOO_MANY_PIXELS}),
        "a PNG of a hundred bytes that would unpack to 3.6 thousand million pixels",
    )
    yield BrokenFile(
        "empty.jpg", b"", frozenset({Reason.PHOTO_EMPTY, Reason.PHOTO_MISSING}), "a file of no bytes"
    )
    picture = np.full((48, 64, 3), 128, np.uint8)
    done, gif = cv2.imencode(".gif", picture)
    if done:
        yield BrokenFile(
            "animation.gif", gif.tobytes(), frozenset({Reason.FORMAT_UNSUPPORTED}), "a GIF: not taken"
        )


def png_header(width: int, height: int) -> bytes:
    """A PNG that names this size and holds next to nothing (PNG specification, section 11.2.2)."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
