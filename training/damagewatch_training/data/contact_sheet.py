"""Many small pictures on few large ones, for looking through."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

COLUMNS, ROWS = 8, 6
SIDE = 180
_CAPTION = 18
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def write(cells: Iterable[tuple[Image, str]], folder: Path, stem: str = "sheet") -> list[Path]:
    """Writes pictures (uint8 (h, w, 3) BGR) with their captions to `folder`/`stem`-001.jpg and so on."""
    paths: list[Path] = []
    page: list[Image] = []
    for image, caption in cells:
        page.append(_cell(image, caption))
        if len(page) == COLUMNS * ROWS:
            paths.append(_write(page, folder, f"{stem}-{len(paths) + 1:03}.jpg"))
            page = []
    if page:
        paths.append(_write(page, folder, f"{stem}-{len(paths) + 1:03}.jpg"))
    return paths


def _cell(image: Image, caption: str) -> Image:
    cell = np.full((SIDE + _CAPTION, SIDE, 3), 255, np.uint8)
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cell[: size[1], : size[0]] = cv2.resize(image, size, interpolation=way)
    text = caption.encode("ascii", "replace").decode()
    cv2.putText(cell, text, (2, SIDE + 13), _FONT, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return cell


def _write(cells: list[Image], folder: Path, name: str) -> Path:
    blank = np.full_like(cells[0], 255)
    rows = -(-len(cells) // COLUMNS)
    filled = cells + [blank] * (rows * COLUMNS - len(cells))
    page = np.vstack([np.hstack(filled[row * COLUMNS : (row + 1) * COLUMNS]) for row in range(rows)])
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), page, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return folder / name
