"""The HTML page of an evaluation: one file with figures, plots and pictures inside, without scripts."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.report.elements import Element, element, serialise, short

Image = NDArray[np.uint8]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .25em .8em; text-align: right }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
.sheet { display: flex; flex-wrap: wrap; gap: 1em } figure { margin: 0; border: 1px solid #ccc; padding: .4em }
figure div { display: flex; gap: .3em }
figcaption { font-size: .8em; color: #555; max-width: 36em; overflow-wrap: anywhere }
svg { background: #fafafa; border: 1px solid #ccc } svg text { font: 12px system-ui, sans-serif }
"""
COLOURS = ("#1f5fa8", "#c8501e", "#2b8a3e", "#7a3b9e", "#8a6d1d", "#555555", "#b3246b", "#128a8a")

_SIDE = 180
_WIDTH, _HEIGHT, _MARGIN, _LEGEND = 520, 360, 48, 240


def write(path: Path, title: str, parts: Iterable[Element]) -> None:
    """Writes the page, replacing what was there once it is complete.

    Raises:
        OSError: The file cannot be written.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", " ".join(STYLE.split())),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(f'<!doctype html>\n<html lang="en">\n{serialise(head)}\n<body>\n')
            file.write(serialise(element("h1", title)) + "\n")
            file.writelines(serialise(part) + "\n" for part in parts)
            file.write("</body>\n</html>\n")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def heading(text: str) -> Element:
    """Of a section."""
    return element("h2", text)


def paragraph(text: str) -> Element:
    """Words."""
    return element("p", text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | float]]) -> Element:
    """Rows under their columns' names; the first column names the row."""
    head = element("tr", *(element("th", name) for name in columns))
    body = [element("tr", *(element("td", _cell(value)) for value in row)) for row in rows]
    return element("table", head, *body)


def _cell(value: str | float) -> str:
    return short(value) if isinstance(value, str) else f"{value:.4g}"


def sheet(figures: Iterable[tuple[str, Sequence[Image]]]) -> Element:
    """A contact sheet: for each figure its caption and its pictures, uint8 (H, W, 3) BGR, side by side."""
    shown = (
        element(
            "figure",
            element("div", *(picture(image) for image in images)),
            element("figcaption", caption),
        )
        for caption, images in figures
    )
    return element("div", *shown, class_="sheet")


def picture(image: Image, side: int = _SIDE) -> Element:
    """A small picture inside the page."""
    return element("img", src=data_uri(image, side), alt="")


def data_uri(image: Image, side: int) -> str:
    """A picture as a JPEG of at most `side` pixels, as an address that holds it."""
    scale = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def plot(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_name: str,
    y_name: str,
    x_most: float = 1.0,
) -> Element:
    """Lines (x, y) by name over x from 0 to `x_most` and y from 0 to 1."""

    def at(x: float, y: float) -> tuple[float, float]:
        return _MARGIN + x / x_most * (_WIDTH - 2 * _MARGIN), _HEIGHT - _MARGIN - y * (_HEIGHT - 2 * _MARGIN)

    drawn: list[Element] = []
    for step in range(6):
        (x, bottom), (left, y) = at(step / 5 * x_most, 0), at(0, step / 5)
        (right, top) = at(x_most, 1)
        drawn += [
            element("line", x1=x, y1=bottom, x2=x, y2=top, stroke="#ddd"),
            element("line", x1=left, y1=y, x2=right, y2=y, stroke="#ddd"),
            element("text", f"{step / 5 * x_most:g}", x=x, y=bottom + 16, text_anchor="middle"),
            element("text", f"{step / 5:g}", x=left - 6, y=y + 4, text_anchor="end"),
        ]
    for number, (name, (xs, ys)) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*pair) for pair in zip(xs, ys, strict=True)))
        drawn.append(element("polyline", points=points, fill="none", stroke=colour, stroke_width=1.8))
        drawn.append(
            element("text", short(name), x=_WIDTH - _MARGIN + 12, y=_MARGIN + 10 + 17 * number, fill=colour)
        )
    drawn.append(element("text", x_name, x=_WIDTH / 2, y=_HEIGHT - 10, text_anchor="middle"))
    drawn.append(element("text", y_name, x=14, y=_MARGIN - 16))
    width = _WIDTH + _LEGEND
    return element("svg", *drawn, viewBox=f"0 0 {width} {_HEIGHT}", width=width, height=_HEIGHT)
