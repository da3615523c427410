"""Two crops side by side as one SVG: the damages outlined, the matched points joined by lines."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from damagewatch.domain import Alert, AlertSide, Box, DependencyDownError, Point
from damagewatch.report.elements import Element, element, short

Crops = Callable[[str], bytes]
"""The bytes of a crop by its address; raises ValueError, OSError or DependencyDownError where there are none."""

LONGEST_SIDE: Final = 900
"""Pixels: larger crops are scaled down, so that a page stays light."""
JPEG_QUALITY: Final = 82

PANEL_WIDTH: Final = 480.0
PANEL_HEIGHT: Final = 400.0
GAP: Final = 40.0
"""The drawing's own units; it scales with the page."""

MOST_LINES: Final = 60
"""More lines than this hide the picture; those drawn are spread evenly over all matched points."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Where one crop is drawn: `crop_box` in pixels of its photo, the rest in units of the drawing."""

    crop_box: Box
    x: float
    y: float
    width: float
    height: float
    mirrored: bool = False

    def place(self, point: Point) -> Point:
        """A pixel of the photo, in the drawing."""
        u = (point[0] - self.crop_box.x0) / max(self.crop_box.width, 1e-9)
        v = (point[1] - self.crop_box.y0) / max(self.crop_box.height, 1e-9)
        return self.x + (1 - u if self.mirrored else u) * self.width, self.y + v * self.height

    def shows(self, point: Point) -> bool:
        """Whether a pixel of the photo lies in the crop."""
        box = self.crop_box
        return box.x0 <= point[0] <= box.x1 and box.y0 <= point[1] <= box.y1


def panels_of(alert: Alert) -> tuple[Panel, Panel]:
    """Both crops scaled to fit, their middles on one line. A mirrored query is drawn as it was compared."""
    sizes = [_fitted(side.crop_box) for side in (alert.query, alert.match)]
    height = max(h for _, h in sizes)
    (width_a, height_a), (width_b, height_b) = sizes
    return (
        Panel(
            alert.query.crop_box,
            PANEL_WIDTH - width_a,
            (height - height_a) / 2,
            width_a,
            height_a,
            alert.mirrored,
        ),
        Panel(alert.match.crop_box, PANEL_WIDTH + GAP, (height - height_b) / 2, width_b, height_b),
    )


def draw(alert: Alert, crops: Crops) -> tuple[Element, int]:
    """The drawing of an alert's two crops, and how many of its matched points are joined in it."""
    query, match = panels_of(alert)
    height = max(query.y + query.height, match.y + match.height)
    lines = [
        (query.place((a, b)), match.place((c, d)), _inside(alert.query.box, (a, b)))
        for a, b, c, d in alert.points
        if query.shows((a, b)) and match.shows((c, d))
    ]
    if len(lines) > MOST_LINES:
        lines = [lines[round(i)] for i in np.linspace(0, len(lines) - 1, MOST_LINES)]
    title = _title(alert)
    drawing = element(
        "svg",
        element("title", title),
        _picture(alert.query, query, crops),
        _picture(alert.match, match, crops),
        element(
            "g",
            *(_line(*line) for line in lines if not line[2]),
            *(_line(*line) for line in lines if line[2]),
            class_="points",
        ),
        element(
            "g",
            _projected(alert, match),
            _outline(_corners(alert.query.box), query, "box"),
            _outline(_corners(alert.match.box), match, "box"),
            class_="boxes",
        ),
        viewBox=f"0 0 {2 * PANEL_WIDTH + GAP:g} {height:.1f}",
        role="img",
        aria_label=title,
    )
    return drawing, len(lines)


def _title(alert: Alert) -> str:
    sides = [f"{side.type.value} of claim {short(side.claim_id)}" for side in (alert.query, alert.match)]
    return f"Left: {sides[0]}{', shown mirrored' if alert.mirrored else ''}. Right: {sides[1]}."


def _fitted(box: Box) -> tuple[float, float]:
    width, height = max(box.width, 1.0), max(box.height, 1.0)
    scale = min(PANEL_WIDTH / width, PANEL_HEIGHT / height)
    return width * scale, height * scale


def _picture(side: AlertSide, panel: Panel, crops: Crops) -> Element:
    place = {"x": panel.x, "y": panel.y, "width": panel.width, "height": panel.height}
    address = _data_uri(side.crop_uri, crops)
    if address is None:
        return element(
            "g",
            element("rect", class_="missing", **place),
            element(
                "text",
                "The picture is no longer kept",
                class_="missing",
                x=panel.x + panel.width / 2,
                y=panel.y + panel.height / 2,
                text_anchor="middle",
            ),
        )
    picture = element("image", href=address, preserveAspectRatio="none", **place)
    if panel.mirrored:
        picture.set("transform", f"translate({2 * panel.x + panel.width:.2f} 0) scale(-1 1)")
    return picture


def _data_uri(uri: str, crops: Crops) -> str | None:
    """The crop, at most `LONGEST_SIDE` pixels long, inside its own address; None where it cannot be had."""
    try:
        content = crops(uri)
    except (ValueError, OSError, DependencyDownError):
        return None
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:  # of more pixels than OpenCV may decode here
        return None
    if picture is None:
        return None
    height, width = picture.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    # Encoded anew in any case: the page then holds pixels and nothing else that came with the file.
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")


def _line(start: Point, end: Point, on_damage: bool) -> Element:
    kind = "on-damage" if on_damage else "around"
    return element(
        "g",
        element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1]),
        element("circle", cx=start[0], cy=start[1], r=2.2),
        element("circle", cx=end[0], cy=end[1], r=2.2),
        class_=kind,
    )


def _corners(box: Box) -> list[Point]:
    return [(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]


def _inside(box: Box, point: Point) -> bool:
    return box.x0 <= point[0] <= box.x1 and box.y0 <= point[1] <= box.y1


def _outline(corners: list[Point], panel: Panel, kind: str) -> Element:
    """A light line on a dark one, to be seen on any paint."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(panel.place, corners))
    return element(
        "g", element("polygon", points=path, class_="halo"), element("polygon", points=path), class_=kind
    )


def _projected(alert: Alert, match: Panel) -> Element | None:
    """Where the query's damage lies in the other picture, by the geometry that was found."""
    if len(alert.homography) != 9:
        return None
    homography = np.array(alert.homography).reshape(3, 3)
    corners = np.array([(x, y, 1.0) for x, y in _corners(alert.query.box)])
    if alert.mirrored:
        corners[:, 0] = alert.query.width - corners[:, 0]
    with np.errstate(all="ignore"):
        projected = corners @ homography.T
        flat = projected[:, :2] / projected[:, 2:]
    limit = 2 * max(alert.match.width, alert.match.height)
    behind = (projected[:, 2] * projected[0, 2] <= 0).any()
    if behind or not np.isfinite(flat).all() or (np.abs(flat) > limit).any():
        return None
    if cv2.contourArea(flat.astype(np.float32)) < 1:
        return None
    outline = _outline([(float(x), float(y)) for x, y in flat], match, "projected")
    place = {"x": match.x, "y": match.y, "width": match.width, "height": match.height}
    # Clipped to the picture, which the damage may reach beyond.
    return element("svg", outline, viewBox=" ".join(f"{v:.2f}" for v in place.values()), **place)
