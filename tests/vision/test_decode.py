from __future__ import annotations

import io
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.domain import Reason, Refused
from damagewatch.vision.decode import WORKING_SIDE, decode
from damagewatch.vision.formats import Limits

from . import pictures


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_orientation_is_undone(ending: str) -> None:
    """Each stored form of one scene, tagged with how it was turned, comes back upright."""
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:20, :32], upright[:20, 32:], upright[20:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    for orientation, image in stored.items():
        content = pictures.encoded(np.ascontiguousarray(image), ending)
        tiff = pictures.exif(orientation)
        if ending == ".jpg":
            content = pictures.with_exif(content, tiff)
        elif ending == ".png":
            content = content[:33] + pictures.chunk(b"eXIf", tiff) + content[33:]
        else:
            content = _webp_with_exif(content, image.shape[1], image.shape[0], tiff)
        photo = decode(content)
        assert (photo.width, photo.height, photo.scale) == (64, 40, 1)
        assert np.abs(photo.image.astype(int) - upright).mean() < 8, orientation


def _webp_with_exif(content: bytes, width: int, height: int, tiff: bytes) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"VP8X" + (10).to_bytes(4, "little") + bytes([8, 0, 0, 0]) + size + content[12:]
    body += b"EXIF" + len(tiff).to_bytes(4, "little") + tiff + b"\0" * (len(tiff) % 2)
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("width", "reduction"), [(1280, 1), (2559, 1), (2560, 2), (2563, 2), (5200, 4), (10241, 8)]
)
def test_large_photos_are_reduced_but_never_below_the_working_side(
    ending: str, width: int, reduction: int
) -> None:
    image = cv2.resize(pictures.scene(640, 60), (width, 90))
    photo = decode(pictures.encoded(image, ending))
    assert (photo.width, photo.height, photo.scale) == (width, 90, 1 / reduction)
    assert photo.image.shape == (-(-90 // reduction), -(-width // reduction), 3)
    assert max(photo.image.shape) >= min(width, WORKING_SIDE)
    padded = np.pad(image, ((0, -90 % reduction), (0, -width % reduction), (0, 0)), "edge")
    blocks = padded.reshape(padded.shape[0] // reduction, reduction, -1, reduction, 3).mean((1, 3))
    assert np.abs(photo.image - blocks).mean() < 4


def test_kinds_of_pixels() -> None:
    red = decode(pictures.CMYK_JPEG).image
    assert red.shape == (16, 16, 3)
    assert np.abs(red.reshape(-1, 3).mean(0) - (0, 0, 255)).max() < 8
    grey = decode(pictures.encoded(np.full((9, 7), 90, np.uint8))).image
    assert grey.shape == (9, 7, 3)
    assert np.abs(grey.astype(int) - 90).max() <= 2
    deep = np.full((9, 7, 3), 0x8040, np.uint16)
    assert (decode(pictures.encoded(deep, ".png")).image == 0x80).all()
    clear = np.full((9, 7, 4), (10, 20, 30, 128), np.uint8)
    assert (decode(pictures.encoded(clear, ".png")).image == (10, 20, 30)).all()
    palette_free = pictures.png(8, 2, 1, 0, b"\0\xf0" * 2)
    assert decode(palette_free).image[0, :, 0].tolist() == [255] * 4 + [0] * 4


@pytest.mark.parametrize("ending", [".webp", ".png"])
def test_of_an_animation_the_first_frame_is_taken(ending: str) -> None:
    photo = decode(pictures.animation(ending))
    assert (photo.width, photo.height) == (30, 20)


def test_animated_gif_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        decode(pictures.animation(".gif"))
    assert refused.value.reason is Reason.FORMAT_UNSUPPORTED


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2)])
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_odd_sizes(size: tuple[int, int], ending: str) -> None:
    photo = decode(pictures.encoded(np.full((size[1], size[0], 3), 100, np.uint8), ending))
    assert (photo.width, photo.height) == size
    assert abs(photo.image.mean() - 100) < 3


def test_heic_where_its_extra_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the optional extra heic is not installed")
    red = np.full((40, 64, 3), (200, 30, 30), np.uint8)
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB", (64, 40), red.tobytes()).save(file, quality=90)
    content = file.getvalue()
    photo = decode(content)
    assert (photo.width, photo.height) == (64, 40)
    assert np.abs(photo.image.astype(int) - (30, 30, 200)).max() < 8
    for broken, limits in ((content[:-5], Limits()), (content, Limits(max_pixels=100))):
        with pytest.raises(Refused):
            decode(broken, limits)


SEEDS = {
    "jpeg": pictures.encoded(pictures.scene(75, 50)),
    "progressive": pictures.progressive(pictures.scene(75, 50)),
    "restarts": pictures.encoded(pictures.scene(75, 50), ".jpg", 4, 2),
    "exif": pictures.with_exif(pictures.encoded(pictures.scene(75, 50)), pictures.exif(6)),
    "cmyk": pictures.CMYK_JPEG,
    "png": pictures.encoded(pictures.scene(75, 50), ".png"),
    "webp": pictures.encoded(pictures.scene(75, 50), ".webp"),
    "lossy webp": pictures.encoded(pictures.scene(75, 50), ".webp", 64, 70),
    "animated webp": pictures.animation(".webp"),
    "animated png": pictures.animation(".png"),
}


@settings(max_examples=400)
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_broken_photos_are_decoded_or_refused(name: str, data: st.DataObject) -> None:
    content = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 8), "damages")):
        at = data.draw(st.integers(0, len(content) - 1), "at")
        how = data.draw(st.sampled_from(("flip", "cut", "drop", "insert", "repeat")), "how")
        if how == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7), "bit")
        elif how == "cut" and at > 8:
            del content[at:]
        elif how == "drop":
            del content[at : at + data.draw(st.integers(1, 20), "length")]
        elif how == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=20), "inserted")
        elif how == "repeat":
            content[at:at] = content[at : at + 200]
        if not content:
            break
    try:
        photo = decode(bytes(content), Limits(max_pixels=100_000))
    except Refused as refused:
        assert refused.stage == "decode"
    else:
        assert photo.image.dtype == np.uint8
        assert photo.image.shape == (photo.height, photo.width, 3)


@pytest.mark.parametrize(
    ("first", "told"),
    [("", "refused"), ("import cv2; ", "set OPENCV_IO_MAX_IMAGE_PIXELS")],
    ids=["ours", "cv2"],
)
def test_opencv_itself_refuses_too_many_pixels_or_the_start_fails(first: str, told: str) -> None:
    """In a process of its own: the limit is read at OpenCV's import, and must be ours by then."""
    program = (
        f"{first}from damagewatch.vision.decode import check_pixel_limit\n"
        "try: check_pixel_limit()\n"
        "except RuntimeError as error: print(error)\n"
        "else: print('refused')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENCV_IO_MAX_IMAGE_PIXELS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert told in done.stdout
