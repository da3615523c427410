"""Draws the dashboards from a Prometheus' answers, one SVG each: what an operator sees, for the documentation.

python deploy/grafana/pictures.py http://127.0.0.1:9090 docs/dashboards --minutes 30
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from generate import DASHBOARDS, Dashboard, Panel, Row

JOB: Final = "damagewatch-matcher"
COLUMN: Final = 50
"""Pixels of one of Grafana's 24 columns."""
LINE: Final = 22
POINTS: Final = 120
COLOURS: Final = ("#3274d9", "#e0752d", "#37872d", "#b877d9", "#c4162a", "#1f9e9e", "#8f6b00", "#705da0")
MOST_SERIES: Final = 8

Series = tuple[str, list[tuple[float, float]]]


def step(begin: float, end: float) -> float:
    """Seconds between two points of a line."""
    return max(1.0, (end - begin) / POINTS)


def ask(address: str, expr: str, begin: float, end: float) -> list[Any]:
    """What Prometheus answers over a span of time, in about 120 steps."""
    given = {"query": expr, "start": begin, "end": end, "step": step(begin, end)}
    url = f"{address}/api/v1/query_range?{urllib.parse.urlencode(given)}"
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the address is the caller's
        return list(json.load(answer)["data"]["result"])


def series_of(panel: Panel, address: str, begin: float, end: float) -> list[Series]:
    """The panel's lines: what each is called, and its points (time, value)."""
    found: list[Series] = []
    for query in panel.queries:
        expr = query.expr.replace("$__rate_interval", "1m").replace("$job", JOB).replace("$instance", ".*")
        for line in ask(address, expr, begin, end):
            name = query.legend
            for label, value in line["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            points = [(float(t), float(v)) for t, v in line["values"]]
            found.append((name, [point for point in points if math.isfinite(point[1])]))
    return [line for line in found if line[1]]


def shown(value: float, unit: str) -> str:
    """A value with its unit."""
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "s" if value < 1:
            return f"{1000 * value:.3g} ms"
        case "s":
            return f"{value:.3g} s"
        case "bytes" | "Bps":
            end = "/s" if unit == "Bps" else ""
            power = min(int(math.log(value, 1024)), 3) if value >= 1 else 0
            return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}{end}"
        case "reqps" | "ops":
            return f"{value:.3g}/s"
        case "cpm":
            return f"{value:.3g}/min"
        case _:
            return f"{value:.4g}"


def draw(dashboard: Dashboard, address: str, begin: float, end: float) -> str:
    """The dashboard as SVG."""
    parts: list[str] = []
    y = 34
    for row in dashboard.rows:
        parts.append(f'<text x="8" y="{y + 15}" class="row">{escape(row.title)}</text>')
        y += LINE
        for panel, x, top, width, height in places(row, y):
            parts.append(f'<svg x="{x}" y="{top}" width="{width}" height="{height}">')
            parts += drawn(panel, series_of(panel, address, begin, end), width, height, begin, end)
            parts.append("</svg>")
        y = max(top + height for _, _, top, _, height in places(row, y)) + 4
    width = 24 * COLUMN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" font-family="sans-serif">',
            "<style>.row{font-size:13px;font-weight:bold;fill:#555}.title{font-size:12px;fill:#222}"
            ".small{font-size:10px;fill:#666}.big{font-size:24px}</style>",
            f'<rect width="{width}" height="{y}" fill="#f4f5f5"/>',
            f'<text x="8" y="22" font-size="16" fill="#222">{escape(dashboard.title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def places(row: Row, y: int) -> Iterator[tuple[Panel, int, int, int, int]]:
    """Each panel of a row with x, y, width and height in pixels."""
    x, height = 0, 0
    for panel in row.panels:
        if x + panel.width > 24:
            x, y = 0, y + height
        height = 70 if panel.kind == "stat" else 190
        yield panel, x * COLUMN + 3, y + 3, panel.width * COLUMN - 6, height - 6
        x += panel.width


def drawn(
    panel: Panel, lines: Sequence[Series], width: int, height: int, begin: float, end: float
) -> Iterator[str]:
    """One panel."""
    yield f'<rect width="{width}" height="{height}" fill="white" stroke="#ddd"/>'
    yield f'<text x="8" y="16" class="title">{escape(panel.title)}</text>'
    if not lines:
        yield f'<text x="{width / 2}" y="{height / 2 + 8}" class="small" text-anchor="middle">no data</text>'
    elif panel.kind == "stat":
        name, points = lines[-1]
        if name:
            yield f'<text x="8" y="{height - 8}" class="small">{escape(name)}</text>'
        value = points[-1][1]
        colour = next((colour for limit, colour in reversed(panel.limits) if value >= limit), "#37872d")
        yield f'<text x="{width / 2}" y="{height - 18}" class="big" fill="{colour}" text-anchor="middle">'
        yield f"{escape(shown(value, panel.unit))}</text>"
    elif panel.kind == "bargauge":
        yield from bars(panel, lines, width, height)
    else:
        yield from curves(panel, lines, width, height, begin, end)


def bars(panel: Panel, lines: Sequence[Series], width: int, height: int) -> Iterator[str]:
    """The buckets of a histogram, taken apart, by their upper end."""
    buckets = sorted((float(name), points[-1][1]) for name, points in lines)
    counts = [value - (buckets[i - 1][1] if i else 0.0) for i, (_, value) in enumerate(buckets)]
    most, thick = max(*counts, 1e-9), (height - 30) / len(buckets)
    for index, ((top, _), count) in enumerate(zip(buckets, counts, strict=True)):
        y = 24 + index * thick
        long = max(0.0, count / most) * (width - 110)
        yield f'<text x="34" y="{y + thick - 4:.1f}" class="small" text-anchor="end">{top:g}</text>'
        yield f'<rect x="40" y="{y:.1f}" width="{long:.1f}" height="{thick - 2:.1f}" fill="{COLOURS[0]}"/>'
        yield f'<text x="{45 + long:.1f}" y="{y + thick - 4:.1f}" class="small">{shown(count, panel.unit)}</text>'


def curves(
    panel: Panel, lines: Sequence[Series], width: int, height: int, begin: float, end: float
) -> Iterator[str]:
    """Lines over time with a scale and a legend."""
    if panel.stacked:
        lines = list(stack(lines))
    left, top, bottom, right = 62, 26, height - 38, width - 8
    most = max(panel.maximum or 0.0, *(value for _, points in lines for _, value in points)) or 1.0
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        yield f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>'
        label = escape(shown(share * most, panel.unit))
        yield f'<text x="{left - 4}" y="{y + 3:.1f}" class="small" text-anchor="end">{label}</text>'
    for share in (0.0, 0.5, 1.0):
        moment = time.strftime("%H:%M", time.gmtime(begin + share * (end - begin)))
        x, anchor = left + share * (right - left), ("start", "middle", "end")[round(2 * share)]
        yield f'<text x="{x:.0f}" y="{bottom + 12}" class="small" text-anchor="{anchor}">{moment}</text>'
    ranked = sorted(lines, key=lambda line: -line[1][-1][1])[:MOST_SERIES]
    legend = left
    for (name, points), colour in zip(ranked, COLOURS, strict=False):
        path, last = "", -math.inf
        for t, v in points:  # a line ends where there was no answer
            x, y = left + (t - begin) / (end - begin) * (right - left), bottom - v / most * (bottom - top)
            path += f"{'L' if t - last < 2 * step(begin, end) else 'M'}{x:.1f} {y:.1f}"
            last = t
        yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
        if legend + 6 * len(name) < width:
            yield f'<text x="{legend}" y="{height - 8}" class="small" style="fill:{colour}">{escape(name)}</text>'
        legend += 6 * len(name) + 14


def stack(lines: Sequence[Series]) -> Iterator[Series]:
    """Each line on top of those before it."""
    below: dict[float, float] = {}
    for name, points in sorted(lines):
        below |= {t: below.get(t, 0.0) + v for t, v in points}
        yield name, [(t, below[t]) for t, _ in points]


def main() -> int:
    """Draws every dashboard."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prometheus", help="its address, such as http://127.0.0.1:9090")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--minutes", type=float, default=30.0, help="how far to look back")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    end = time.time()
    for dashboard in DASHBOARDS:
        picture = draw(dashboard, given.prometheus, end - 60 * given.minutes, end)
        (given.folder / f"{dashboard.name}.svg").write_text(picture, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
