"""Videos to photos: the sharpest frame of each window of time, without those that nearly repeat one kept before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.vision.formats import Limits
from damagewatch.vision.hashing import distance, perceptual_hashes
from damagewatch_training.data.importers.found import Found
from damagewatch_training.data.report import Report, Trouble

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
NEAR_COPY = 6
"""Bits of 64 in which the perceptual hashes of two frames differ at most that show nearly the same."""
_QUALITY = 95
_CONTAINERS = ((4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (8, b"AVI "))
"""MP4 and MOV, Matroska and WebM, AVI. Nothing else is given to FFmpeg: playlists name other files and hosts."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How frames are taken: `rate` windows a second; at most `frames` frames of a video are looked at."""

    rate: float = 1.0
    frames: int = 20_000


def read(videos: list[Path], pace: Pace, report: Report, limits: Limits | None = None) -> Iterator[Found]:
    """The photos of videos: each video is a claim of its own, named by its file."""
    for path in videos:
        kept: list[int] = []
        for seconds, frame in _sharpest(path, pace, report, limits or Limits()):
            looks = perceptual_hashes(frame)[0]
            if any(distance(looks, other) <= NEAR_COPY for other in kept):
                continue
            kept.append(looks)
            content = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
            yield Found(
                f"{path.stem}/{seconds:09.3f}.jpg", content, claim=path.stem, attributes={"video": path.name}
            )


def videos_in(paths: list[Path]) -> list[Path]:
    """The videos among `paths`, and in the folders among them."""
    found = []
    for path in paths:
        found += (
            sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if path.is_dir()
            else [path]
        )
    return found


def _sharpest(
    path: Path, pace: Pace, report: Report, limits: Limits
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Time in seconds and pixels (H, W, 3) BGR of the sharpest frame of each window."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        report.add(Trouble.VIDEO_UNREADABLE, path.name, f"{error.strerror}; left out")
        return
    if not any(start[at : at + len(mark)] == mark for at, mark in _CONTAINERS):
        report.add(Trouble.VIDEO_UNREADABLE, path.name, "neither MP4, MOV, MKV, WebM nor AVI; left out")
        return
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        width, height = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if not capture.isOpened() or not 0 < width * height <= limits.max_pixels:
            report.add(Trouble.VIDEO_UNREADABLE, path.name, f"{width:.0f} x {height:.0f} pixels; left out")
            return
        yield from _chosen(capture, path, pace, report)
    finally:
        capture.release()


def _chosen(
    capture: cv2.VideoCapture, path: Path, pace: Pace, report: Report
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if 1 <= fps <= 1000 else 25.0
    window, best, best_sharpness = 0, None, -1.0
    for index in range(pace.frames):
        read, pixels = capture.read()
        if not read:
            if index == 0:
                report.add(Trouble.VIDEO_UNREADABLE, path.name, "no frame can be decoded; left out")
            break
        seconds, frame = index / fps, np.asarray(pixels, np.uint8)
        if int(seconds * pace.rate) > window and best is not None:
            yield best
            window, best_sharpness = int(seconds * pace.rate), -1.0
        if (sharp := sharpness(frame)) > best_sharpness:
            best, best_sharpness = (seconds, frame), sharp
    else:
        report.add(Trouble.VIDEO_CUT, path.name, f"the first {pace.frames:,} frames are taken")
    if best is not None:
        yield best


def sharpness(frame: NDArray[np.uint8]) -> float:
    """The variance of the Laplacian of the grey frame, reduced to some 480 pixels: compares frames of one video."""
    scale = min(1.0, 480 / max(frame.shape[:2]))
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    return float(cv2.Laplacian(small, cv2.CV_32F).var())
