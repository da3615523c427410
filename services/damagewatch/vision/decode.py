"""From bytes to an upright image, at the smallest scale that the models can use."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Reason, Refused
from damagewatch.vision.formats import Format, Limits, check_size, read_header, refused

WORKING_SIDE = 1280
"""Pixels: the longer side of a decoded photo is reduced by 2, 4 or 8, but never below this."""

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded photo.

    `image` uint8 (h, w, 3) BGR, upright, perhaps reduced; `width` and `height` are the full upright size in
    pixels, in which all coordinates are given; `scale` is image pixels per photo pixel: 1, 1/2, 1/4 or 1/8.
    """

    image: NDArray[np.uint8]
    width: int
    height: int
    scale: float


def decode(content: bytes, limits: Limits | None = None) -> Photo:
    """Decodes a photo: JPEG reduced in the DCT domain where it is large, EXIF orientation applied, 8-bit BGR.

    Of an animation the first frame is taken; transparency is dropped.

    Raises:
        Refused: whatever is wrong with the bytes, by its own reason, stage "decode". Never anything else.
    """
    limits = limits or Limits()
    header = read_header(content, limits)
    if header.format is Format.HEIC:
        return _decode_heic(content, limits)
    reduction = _reduction(header.width, header.height)
    # Only JPEG is decoded at a fraction of its size; the others are reduced afterwards, by exact averages.
    in_decoder = reduction if header.format is Format.JPEG else 1
    try:
        image = cv2.imdecode(
            np.frombuffer(content, np.uint8), _REDUCED[in_decoder] | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise refused(Reason.CORRUPT, f"the {header.format} cannot be decoded: {error.err}") from None
    if image is None:
        raise refused(Reason.CORRUPT, f"the {header.format} cannot be decoded")
    expected = -(-header.width // in_decoder), -(-header.height // in_decoder)
    if (image.shape[1], image.shape[0]) != expected:
        raise refused(Reason.CORRUPT, f"the {header.format} holds another size than its header names")
    upright = _upright(_reduce(np.asarray(image, np.uint8), reduction // in_decoder), header.orientation)
    turned = header.orientation >= 5
    width, height = (header.height, header.width) if turned else (header.width, header.height)
    return Photo(upright, width, height, 1 / reduction)


def _reduction(width: int, height: int) -> int:
    return next((r for r in (8, 4, 2) if max(width, height) >= r * WORKING_SIDE), 1)


def _reduce(image: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    """Averages blocks of `by` x `by` pixels, the last ones filled up by repetition, as JPEG does."""
    if by == 1:
        return image
    bottom, right = -image.shape[0] % by, -image.shape[1] % by
    if bottom or right:
        image = np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
    size = image.shape[1] // by, image.shape[0] // by
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undoes an EXIF orientation: 5 to 8 swap the axes, then 2 to 4 and what remains of the others flip."""
    if orientation >= 5:
        image = np.asarray(cv2.transpose(image), np.uint8)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else np.asarray(cv2.flip(image, flip), np.uint8)


def _decode_heic(content: bytes, limits: Limits) -> Photo:
    """HEIC by the optional extra: libheif turns the image upright itself."""
    import pillow_heif

    try:
        stored = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=True, bgr_mode=True)
        check_size(stored.size[0], stored.size[1], limits)
        image = np.asarray(stored, np.uint8)
    except Refused:
        raise
    except Exception as error:  # of broken files it raises what its C code meets
        told = " ".join(str(error).split())
        raise refused(Reason.CORRUPT, f"the HEIC cannot be decoded: {told}") from None
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    image = np.ascontiguousarray(image[..., :3])
    height, width = image.shape[:2]
    reduction = _reduction(width, height)
    return Photo(_reduce(image, reduction), width, height, 1 / reduction)


def check_pixel_limit(limits: Limits | None = None) -> None:
    """Proves that OpenCV itself refuses an image of more than `max_pixels`: its limit is read at its import.

    Raises:
        RuntimeError: it decoded one. Something imported cv2 before damagewatch.vision, or the environment
            variable OPENCV_IO_MAX_IMAGE_PIXELS is higher than the limit that is configured.
    """
    width = 10_000
    height = (limits or Limits()).max_pixels // width + 1
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * height), 1)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    try:
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return
    if image is not None:
        raise RuntimeError(
            f"OpenCV decodes images of more than {(limits or Limits()).max_pixels:,} pixels: set "
            "OPENCV_IO_MAX_IMAGE_PIXELS to the limit, before anything imports cv2"
        )
