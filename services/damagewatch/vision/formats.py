"""What a photo's bytes claim to be, read from their headers before any decoder sees them.

JPEG, PNG and WebP are taken. Everything here is hostile input: each walk is bounded in steps, and refuses
with `domain.Refused` (stage "decode"), never with anything else.
"""

from __future__ import annotations

import importlib.util
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from damagewatch.domain import Reason, Refused
from damagewatch.vision import DEFAULT_MAX_PIXELS, exif

STAGE = "decode"

_MAX_SEGMENTS = 20_000
"""Steps of one walk: a 20 MB photo has a few hundred JPEG segments or a few thousand PNG chunks."""


class Format(StrEnum):
    """An image format that is recognised, by its usual name."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"
    HEIC = "HEIC"
    AVIF = "AVIF"
    GIF = "GIF"
    TIFF = "TIFF"
    BMP = "BMP"
    JPEG_2000 = "JPEG 2000"
    JPEG_XL = "JPEG XL"
    PSD = "PSD"
    PDF = "PDF"
    SVG = "SVG"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a photo may cost. `max_bytes` of the file, `max_pixels` decoded, `max_side` of width and height in
    pixels, `max_scans` of a JPEG (200 kB of empty scans decode for 17 s)."""

    max_bytes: int = 20_000_000
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_side: int = 65_535
    max_scans: int = 64


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says: size in pixels as stored, before the EXIF `orientation` (1 to 8) is applied."""

    format: Format
    width: int
    height: int
    orientation: int = 1


def sniff(content: bytes) -> Format | None:
    """The format that the first bytes name, or None."""
    if content[4:8] == b"ftyp":
        return _sniff_boxes(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return Format.WEBP
    for magic, name in _MAGIC:
        if content.startswith(magic):
            return name
    return Format.SVG if _SVG.match(content[:1024]) else None


_MAGIC = (
    (b"\xff\xd8\xff", Format.JPEG),
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"GIF87a", Format.GIF),
    (b"GIF89a", Format.GIF),
    (b"II*\x00", Format.TIFF),
    (b"MM\x00*", Format.TIFF),
    (b"II+\x00", Format.TIFF),
    (b"MM\x00+", Format.TIFF),
    (b"BM", Format.BMP),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Format.JPEG_2000),
    (b"\xff\x4f\xff\x51", Format.JPEG_2000),
    (b"\xff\x0a", Format.JPEG_XL),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", Format.JPEG_XL),
    (b"8BPS", Format.PSD),
    (b"%PDF-", Format.PDF),
)
_SVG = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<svg[\s>]", re.DOTALL)
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))


def _sniff_boxes(content: bytes) -> Format | None:
    """HEIC or AVIF by the brands of an ISO base media file (ISO/IEC 14496-12, 4.3)."""
    size = min(int.from_bytes(content[:4], "big"), 256, len(content))
    brands = {content[8:12], *(content[at : at + 4] for at in range(16, size - 3, 4))}
    if brands & _AVIF_BRANDS:
        return Format.AVIF
    return Format.HEIC if brands & _HEIC_BRANDS else None


def heic_available() -> bool:
    """Whether the optional extra `heic` (pillow-heif, whose wheels are GPL) is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def refused(reason: Reason, detail: str) -> Refused:
    """The refusal of a photo at this stage."""
    return Refused(reason, detail, STAGE)


def read_header(content: bytes, limits: Limits) -> Header:
    """Reads and bounds a photo's header.

    HEIC is passed on with a size of 0x0 where its extra is installed: its own library reads the header.

    Raises:
        Refused: empty, too large, not an image, of another format, broken, cut short, of no or too many
            pixels, or a JPEG of too many scans.
    """
    if not content:
        raise refused(Reason.PHOTO_EMPTY, "the photo has no bytes")
    if len(content) > limits.max_bytes:
        raise refused(
            Reason.PHOTO_TOO_LARGE, f"{len(content):,} bytes; at most {limits.max_bytes:,} are taken"
        )
    found = sniff(content)
    if found is None:
        raise refused(Reason.NOT_AN_IMAGE, f"begins with {content[:8].hex(' ')}: no known image format")
    if found is Format.HEIC and heic_available():
        return Header(found, 0, 0)
    reader = _READERS.get(found)
    if reader is None:
        advice = "; install damagewatch[heic] to decode it" if found is Format.HEIC else ""
        raise refused(Reason.FORMAT_UNSUPPORTED, f"{found} is not taken, only JPEG, PNG and WebP{advice}")
    try:
        header = reader(content, limits)
    except (struct.error, IndexError):
        raise refused(Reason.TRUNCATED, f"the {found} ends within a header") from None
    check_size(header.width, header.height, limits)
    return header


def check_size(width: int, height: int, limits: Limits) -> None:
    """Refuses sizes without pixels and with too many.

    Raises:
        Refused: DIMENSIONS_INVALID or TOO_MANY_PIXELS.
    """
    if width < 1 or height < 1:
        raise refused(Reason.DIMENSIONS_INVALID, f"{width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise refused(
            Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels; at most {limits.max_pixels:,} are taken"
        )
    if max(width, height) > limits.max_side:
        raise refused(
            Reason.DIMENSIONS_INVALID, f"{width} x {height} pixels; a side may have {limits.max_side:,}"
        )


# JPEG (ITU-T T.81, annex B). In entropy-coded data FF is followed by 00 or by a restart marker; the next FF
# followed by anything else is a marker. libjpeg skips stray bytes between segments in the same way.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SOI, _EOI, _SOS, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01


def _read_jpeg(content: bytes, limits: Limits) -> Header:
    width = height = scans = 0
    orientation = 1
    for marker, start, end in _jpeg_segments(content):
        if marker in _FRAMES and not width:
            height, width = struct.unpack_from(">HH", content, start + 1)
            check_size(width, height, limits)
        elif marker == _SOS:
            scans += 1
            if scans > limits.max_scans:
                raise refused(
                    Reason.TOO_MANY_SCANS, f"a JPEG of more than {limits.max_scans} scans is not taken"
                )
        elif marker == _APP1 and orientation == 1 and content[start : start + 6] == b"Exif\0\0":
            orientation = exif.orientation(content[start + 6 : end])
    if not width:
        raise refused(Reason.CORRUPT, "a JPEG without a frame header")
    if not scans:
        raise refused(Reason.CORRUPT, "a JPEG without a scan")
    return Header(Format.JPEG, width, height, orientation)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the parameters of each segment up to the end of the image."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        found = _NEXT_MARKER.search(content, position)
        if found is None:
            raise refused(Reason.TRUNCATED, "the JPEG ends without its end marker")
        marker, position = content[found.end() - 1], found.end()
        if marker == _EOI:
            return
        if marker == _TEM:
            continue
        if marker == _SOI or marker < 0xC0:  # libjpeg gives up here too, or would search within the segment
            raise refused(Reason.CORRUPT, f"a JPEG with the marker FF{marker:02X} at byte {found.start():,}")
        (length,) = struct.unpack_from(">H", content, position)
        if length < 2:
            raise refused(Reason.CORRUPT, f"a JPEG segment of length {length} at byte {found.start():,}")
        if position + length > len(content):
            raise refused(Reason.TRUNCATED, f"the JPEG ends within a segment at byte {found.start():,}")
        yield marker, position + 2, position + length
        position += length
    raise refused(Reason.CORRUPT, f"a JPEG of more than {_MAX_SEGMENTS:,} segments")


def _read_png(content: bytes, limits: Limits) -> Header:
    """PNG (W3C, third edition, 5): IHDR first, IEND last; of an animated one the first image is taken."""
    size: tuple[int, int] | None = None
    orientation, has_data, position = 1, False, 8
    for _ in range(_MAX_SEGMENTS):
        if position + 8 > len(content):
            raise refused(Reason.TRUNCATED, "the PNG ends without its end chunk")
        length, name = struct.unpack_from(">I4s", content, position)
        start, end = position + 8, position + 8 + length
        if size is None:
            if name != b"IHDR" or length != 13:
                raise refused(Reason.CORRUPT, "a PNG that does not begin with its header chunk")
            size = struct.unpack_from(">II", content, start)
            check_size(*size, limits)
        if end + 4 > len(content):
            raise refused(Reason.TRUNCATED, f"the PNG ends within the chunk at byte {position:,}")
        if name == b"IEND":
            if not has_data:
                raise refused(Reason.CORRUPT, "a PNG without image data")
            return Header(Format.PNG, *size, orientation)
        has_data = has_data or name == b"IDAT"
        if name == b"eXIf":
            orientation = exif.orientation(content[start:end])
        position = end + 4
    raise refused(Reason.CORRUPT, f"a PNG of more than {_MAX_SEGMENTS:,} chunks")


def _read_webp(content: bytes, limits: Limits) -> Header:
    """WebP (RFC 9649): a RIFF of chunks; VP8X holds the canvas, VP8 and VP8L the size of a simple file."""
    (length,) = struct.unpack_from("<I", content, 4)
    if length + 8 > len(content):
        raise refused(Reason.TRUNCATED, f"the WebP names {length + 8:,} bytes and has {len(content):,}")
    size: tuple[int, int] | None = None
    orientation, position, end = 1, 12, length + 8
    for _ in range(_MAX_SEGMENTS):
        if position + 8 > end:
            break
        name, length = struct.unpack_from("<4sI", content, position)
        start = position + 8
        if start + length > end:
            raise refused(Reason.TRUNCATED, f"the WebP ends within the chunk at byte {position:,}")
        if size is None:
            size = _webp_size(name, content[start : start + min(length, 10)])
            check_size(*size, limits)
        if name == b"EXIF":
            orientation = exif.orientation(content[start : start + length].removeprefix(b"Exif\0\0"))
        position = start + length + length % 2
    else:
        raise refused(Reason.CORRUPT, f"a WebP of more than {_MAX_SEGMENTS:,} chunks")
    if size is None:
        raise refused(Reason.CORRUPT, "a WebP without a chunk")
    return Header(Format.WEBP, *size, orientation)


def _webp_size(name: bytes, chunk: bytes) -> tuple[int, int]:
    """Width and height from the first chunk."""
    if name == b"VP8X":
        flags_and_canvas = struct.unpack("<IHBHB", chunk)
        _, width_low, width_high, height_low, height_high = flags_and_canvas
        return (width_low | width_high << 16) + 1, (height_low | height_high << 16) + 1
    if name == b"VP8L" and chunk[:1] == b"\x2f":
        (bits,) = struct.unpack_from("<I", chunk, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8 " and chunk[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", chunk, 6)
        return width & 0x3FFF, height & 0x3FFF
    raise refused(Reason.CORRUPT, "a WebP that does not begin with an image header")


_READERS: dict[Format, Callable[[bytes, Limits], Header]] = {
    Format.JPEG: _read_jpeg,
    Format.PNG: _read_png,
    Format.WEBP: _read_webp,
}
