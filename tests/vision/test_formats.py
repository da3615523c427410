from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import Reason, Refused
from damagewatch.vision import exif, formats
from damagewatch.vision.formats import Format, Header, Limits, read_header

from . import pictures


def reason_of(content: bytes, limits: Limits | None = None) -> Reason:
    with pytest.raises(Refused) as refused:
        read_header(content, limits or Limits())
    assert refused.value.stage == "decode"
    assert refused.value.detail
    return refused.value.reason


@pytest.mark.parametrize(
    ("ending", "name"), [(".jpg", Format.JPEG), (".png", Format.PNG), (".webp", Format.WEBP)]
)
@given(st.integers(1, 90), st.integers(1, 90))
def test_size_is_read_from_what_opencv_writes(ending: str, name: Format, width: int, height: int) -> None:
    content = pictures.encoded(pictures.scene(width, height), ending)
    assert read_header(content, Limits()) == Header(name, width, height)


@given(st.integers(1, 2**31), st.integers(1, 2**31))
def test_giant_png_header_is_refused_before_its_data(width: int, height: int) -> None:
    content = pictures.png(width, height, 8, 2, b"")
    limits = Limits(max_pixels=10_000)
    if width * height <= 10_000:
        assert read_header(content, limits) == Header(Format.PNG, width, height)
    else:
        assert reason_of(content, limits) is Reason.TOO_MANY_PIXELS


@given(st.integers(1, 2**14 - 1), st.integers(1, 2**14 - 1))
def test_webp_lossless_header(width: int, height: int) -> None:
    bits = struct.pack("<BI", 0x2F, (width - 1) | (height - 1) << 14)
    content = (
        b"RIFF" + struct.pack("<I", 12 + len(bits) + 1) + b"WEBP" + struct.pack("<4sI", b"VP8L", 5) + bits
    )
    header = read_header(content + b"\0", Limits(max_pixels=2**30))
    assert (header.width, header.height) == (width, height)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"BM" + bytes(60), "BMP"),
        (b"II*\0" + bytes(20), "TIFF"),
        (b"MM\0*" + bytes(20), "TIFF"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<?xml version='1.0'?><svg xmlns='x'>", "SVG"),
        (b"\0\0\0\x18ftypavif" + bytes(20), "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0avifmif1" + bytes(20), "AVIF"),
    ],
)
def test_other_formats_are_named(content: bytes, name: str) -> None:
    with pytest.raises(Refused) as refused:
        read_header(content, Limits())
    assert refused.value.reason is Reason.FORMAT_UNSUPPORTED
    assert refused.value.detail.startswith(name)


def test_heic_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "heic_available", lambda: False)
    with pytest.raises(Refused) as refused:
        read_header(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), Limits())
    assert refused.value.reason is Reason.FORMAT_UNSUPPORTED
    assert "damagewatch[heic]" in refused.value.detail


def test_empty_large_and_foreign_bytes() -> None:
    assert reason_of(b"") is Reason.PHOTO_EMPTY
    assert reason_of(bytes(101), Limits(max_bytes=100)) is Reason.PHOTO_TOO_LARGE
    assert reason_of(b"hello, this is no picture") is Reason.NOT_AN_IMAGE
    assert reason_of(b"\xff") is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_cut_short_anywhere_it_is_refused(ending: str) -> None:
    content = pictures.encoded(pictures.scene(97, 61), ending)
    for length in range(16, len(content) - 1, 7):
        assert reason_of(content[:length]) is Reason.TRUNCATED, length


def test_bytes_behind_the_end_are_no_harm() -> None:
    content = pictures.encoded(pictures.scene(40, 30))
    assert read_header(content + bytes(1000) + b"\xff\xda" * 100, Limits()).width == 40


def test_scans_are_counted_through_restart_markers_and_stuffed_bytes() -> None:
    image = pictures.scene(160, 120)
    content = pictures.encoded(image, ".jpg", 1, 100, 4, 2)  # quality 100, a restart after every second block
    assert b"\xff\xd0" in content
    assert b"\xff\x00" in content
    assert read_header(content, Limits(max_scans=1)).width == 160
    once = pictures.progressive(image)
    scans = sum(1 for marker, _, _ in formats._jpeg_segments(once) if marker == 0xDA)
    assert scans > 1
    assert read_header(pictures.many_scans(once, 64 - scans), Limits()).width == 160
    assert reason_of(pictures.many_scans(once, 65 - scans)) is Reason.TOO_MANY_SCANS


def test_scans_inside_a_comment_do_not_count_but_cannot_hide_either() -> None:
    content = pictures.encoded(pictures.scene(40, 30))
    comment = b"\xff\xfe" + struct.pack(">H", 202) + b"\xff\xda" * 100
    assert read_header(content[:2] + comment + content[2:], Limits()).width == 40
    once = pictures.progressive(pictures.scene(40, 30))
    stray = once[:-2] + b"stray bytes" + pictures.many_scans(once, 70)[len(once) - 2 :]
    assert reason_of(stray) is Reason.TOO_MANY_SCANS


@pytest.mark.parametrize("frame", [b"\xff\xc0", b"\xff\xc2"])
def test_jpeg_without_pixels(frame: bytes) -> None:
    make = pictures.encoded if frame == b"\xff\xc0" else pictures.progressive
    content = bytearray(make(pictures.scene(40, 30)))
    at = content.index(frame) + 5
    content[at : at + 4] = struct.pack(">HH", 0, 30)
    assert reason_of(bytes(content)) is Reason.DIMENSIONS_INVALID


def test_png_and_webp_without_pixels() -> None:
    assert reason_of(pictures.png(0, 5, 8, 2, b"")) is Reason.DIMENSIONS_INVALID
    lossy = bytearray(pictures.encoded(pictures.scene(40, 30), ".webp", 64, 80))
    at = lossy.index(b"\x9d\x01\x2a") + 3
    lossy[at : at + 2] = bytes(2)
    assert reason_of(bytes(lossy)) is Reason.DIMENSIONS_INVALID


def test_long_thin_photos_are_bounded() -> None:
    assert read_header(pictures.png(1, 10_000, 8, 2, b""), Limits()).height == 10_000
    assert reason_of(pictures.png(1, 100_000, 8, 2, b"")) is Reason.DIMENSIONS_INVALID


def test_floods_of_segments_end_soon() -> None:
    segments = b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + b"\xff\xd9"
    assert reason_of(segments) is Reason.CORRUPT
    empty = pictures.png(4, 4, 8, 2, b"", pictures.chunk(b"tEXt", b"") * 30_000)
    assert reason_of(empty) is Reason.CORRUPT


@given(
    st.binary(max_size=400),
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP", b""]),
)
def test_any_bytes_are_read_or_refused(tail: bytes, head: bytes) -> None:
    try:
        header = read_header(head + tail, Limits())
    except Refused:
        return
    assert header.width > 0
    assert header.height > 0


@given(st.integers(1, 8), st.sampled_from("<>"))
def test_orientation_in_either_byte_order(value: int, order: str) -> None:
    assert exif.orientation(pictures.exif(value, order)) == value
    content = pictures.with_exif(pictures.encoded(pictures.scene(8, 6)), pictures.exif(value, order))
    assert read_header(content, Limits()).orientation == value


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0\xff\xff"]))
def test_any_exif_has_an_orientation(tail: bytes, head: bytes) -> None:
    assert 1 <= exif.orientation(head + tail) <= 8


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_orientation_out_of_range_is_upright(value: int) -> None:
    assert exif.orientation(pictures.exif(value)) == 1
