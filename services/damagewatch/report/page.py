"""Writes the evidence page: one HTML file with everything inside, without scripts, readable offline and on paper."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

from damagewatch.domain import Alert, AlertKind, AlertSide
from damagewatch.report import words
from damagewatch.report.elements import Element, element, serialise, short
from damagewatch.report.pair import Crops, draw

MOST_ALERTS: Final = 200
"""Alerts on one page; the most probable ones. Each takes some 200 kB."""

# Nothing may be fetched, run or sent, whatever an alert says.
POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def write_report(
    path: Path,
    alerts: Sequence[Alert],
    crops: Crops,
    *,
    title: str = "damagewatch",
    summary: Sequence[tuple[str, str]] = (),
    rejected: Sequence[tuple[str, str, str]] = (),
    models: Mapping[str, str] | None = None,
) -> None:
    """Write the page, replacing what was there once it is complete.

    Args:
        path: The file.
        alerts: What was found. The page shows the most probable ones first, at most `MOST_ALERTS`.
        crops: The picture behind an address (`EvidenceStore.read`).
        title: What the page is about.
        summary: Figures for the top: what, and how many.
        rejected: Photos that could not be processed: name, reason, detail.
        models: Version of each model; those of the alerts where not given.

    Raises:
        OSError: The file cannot be written.
    """
    shown = sorted(alerts, key=lambda alert: -alert.probability)[:MOST_ALERTS]
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(f'<!doctype html>\n<html lang="en">\n{serialise(_head(title))}\n<body>\n')
            for part in _top(title, alerts, shown, summary):
                file.write(serialise(part) + "\n")
            for number, alert in enumerate(shown, 1):
                file.write(serialise(_article(number, alert, crops)) + "\n")
            for part in _end(rejected, models if models is not None else _models_of(alerts)):
                file.write(serialise(part) + "\n")
            file.write("</body>\n</html>\n")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _head(title: str) -> Element:
    style = element("style")
    style.text = files(__package__).joinpath("style.css").read_text("utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", short(title)),
        style,
    )


def _top(
    title: str, alerts: Sequence[Alert], shown: Sequence[Alert], summary: Sequence[tuple[str, str]]
) -> Iterator[Element]:
    yield element("h1", short(title))
    yield element(
        "p",
        f"Damages and photos that were seen before in another claim. Written {words.moment(datetime.now(UTC))}.",
        class_="soft",
    )
    if summary:
        yield element(
            "dl",
            *(element("div", element("dt", short(a)), element("dd", short(b))) for a, b in summary),
            class_="tiles",
        )
    yield element("h2", "Alerts")
    if not alerts:
        yield element("p", "None: nothing was seen before.")
        return
    counts = Counter(alert.kind for alert in alerts)
    yield element(
        "p",
        "; ".join(f"{counts[kind]} {words.KINDS[kind][0].lower()}" for kind in AlertKind if counts[kind])
        + ". ",
        f"The {len(shown)} most probable of {len(alerts)} are shown; the alert topic and `--json` have all. "
        if len(shown) < len(alerts)
        else None,
        "An alert is a hint, and a person decides.",
        class_="soft",
    )
    heads = (
        ("", "number"),
        ("Kind", ""),
        ("Probability", "number"),
        ("New claim", ""),
        ("Seen before in", ""),
    )
    yield element(
        "table",
        element(
            "thead", element("tr", *(element("th", text, class_=kind, scope="col") for text, kind in heads))
        ),
        element("tbody", *(_row(number, alert) for number, alert in enumerate(shown, 1))),
        class_="index",
    )
    yield element(
        "div",
        *(
            element("label", element("input", id=f"show-{name}", type="checkbox", checked=""), f" {text}")
            for name, text in (("points", "matched points"), ("boxes", "damages"))
        ),
        class_="switches",
    )


def _row(number: int, alert: Alert) -> Element:
    return element(
        "tr",
        element("td", element("a", str(number), href=f"#alert-{number}"), class_="number"),
        element("td", words.KINDS[alert.kind][0], ", mirrored" if alert.mirrored else None),
        element("td", words.percent(alert.probability), class_="number"),
        element("td", _id(alert.query.claim_id)),
        element("td", _id(alert.match.claim_id)),
    )


def _article(number: int, alert: Alert, crops: Crops) -> Element:
    name, meaning = words.KINDS[alert.kind]
    drawing, lines = draw(alert, crops)
    return element(
        "article",
        element(
            "header",
            element(
                "h3",
                f"{number}. {name}: ",
                _id(alert.query.claim_id),
                " and ",
                _id(alert.match.claim_id),
                " ",
                element("span", "mirrored", class_="tag") if alert.mirrored else None,
            ),
            element(
                "div",
                words.percent(alert.probability),
                " ",
                element("small", "probable"),
                class_="probability",
            ),
        ),
        element("p", meaning, _mirrored_note(alert), class_="soft"),
        element("figure", drawing, _caption(alert, lines)),
        _sides(alert),
        element(
            "dl",
            *(
                element(
                    "div",
                    element("dt", found.meaning),
                    element(
                        "dd",
                        found.figure,
                        element("meter", value=min(max(found.share, 0.0), 1.0), aria_hidden="true"),
                    ),
                )
                for found in words.findings(alert.signals, alert.mirrored)
            ),
            class_="findings",
        ),
        _details(alert),
        id=f"alert-{number}",
    )


def _mirrored_note(alert: Alert) -> str | None:
    if not alert.mirrored:
        return None
    return " One of the two photos was mirrored left to right; the left one is shown mirrored back."


def _caption(alert: Alert, lines: int) -> Element:
    def key(kind: str, text: str) -> Element:
        return element("span", text, class_=f"key {kind}")

    return element(
        "figcaption",
        key("box", "damage"),
        key("projected", "where the left damage lies in the right picture")
        if len(alert.homography) == 9
        else None,
        key("on-damage", "matched point on the damage") if lines else None,
        key("around", "around it") if lines else None,
        f"{lines} of {len(alert.points)} matched points are drawn." if lines < len(alert.points) else None,
    )


def _sides(alert: Alert) -> Element:
    pair = (alert.query, alert.match)
    rows: list[tuple[str, list[Element | str]]] = [
        ("Claim", [_id(side.claim_id) for side in pair]),
        ("Photo", [_id(side.photo_id) for side in pair]),
        ("Shows", [words.damage(side.type, side.severity) for side in pair]),
        ("Received", [words.moment(side.received_at) for side in pair]),
    ]
    apart = words.apart(alert)
    return element(
        "table",
        element(
            "thead",
            element(
                "tr",
                element("th", scope="col"),
                element("th", "Left: this photo", scope="col"),
                element("th", "Right: seen before", f" ({apart})" if apart else None, scope="col"),
            ),
        ),
        element("tbody", *(_fact(name, cells) for name, cells in rows)),
        class_="sides",
    )


def _details(alert: Alert) -> Element:
    pair = (alert.query, alert.match)
    rows: list[tuple[str, list[Element | str]]] = [
        ("Damage id", [_id(str(side.damage_id)) for side in pair]),
        ("Tenant", [_id(side.tenant) for side in pair]),
        ("Position", [_position(side) for side in pair]),
        ("SHA-256", [_id(side.sha256) for side in pair]),
        ("Crop", [_id(side.crop_uri) for side in pair]),
    ]
    return element(
        "details",
        element("summary", "Identifiers and versions"),
        element("table", element("tbody", *(_fact(name, cells) for name, cells in rows)), class_="sides"),
        element(
            "p",
            "Alert ",
            _id(str(alert.alert_id)),
            f", decided {words.moment(alert.decided_at)} by {_versions(alert.models)}.",
            class_="soft",
        ),
    )


def _end(rejected: Sequence[tuple[str, str, str]], models: Mapping[str, str]) -> Iterator[Element]:
    if rejected:
        yield element("h2", f"Photos that could not be processed: {len(rejected)}")
        yield element(
            "table",
            element(
                "thead",
                element("tr", *(element("th", h, scope="col") for h in ("Photo", "Reason", "Detail"))),
            ),
            element(
                "tbody",
                *(
                    element(
                        "tr",
                        element("td", _id(name)),
                        element("td", short(reason).replace("_", " ")),
                        element("td", short(detail)),
                    )
                    for name, reason, detail in rejected
                ),
            ),
        )
    yield element(
        "footer",
        f"Models: {_versions(models)}. " if models else None,
        "Made by damagewatch. This page holds its pictures and loads nothing.",
    )


def _fact(name: str, cells: Sequence[Element | str]) -> Element:
    return element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells))


def _position(side: AlertSide) -> str:
    box = side.box
    return (
        f"x {box.x0:.0f} to {box.x1:.0f}, y {box.y0:.0f} to {box.y1:.0f} "
        f"in a photo of {side.width} x {side.height} pixels"
    )


def _id(name: str) -> Element:
    return element("bdi", short(name), class_="id")


def _versions(models: Mapping[str, str]) -> str:
    return (
        ", ".join(f"{short(name)} {short(version)}" for name, version in models.items()) or "unnamed models"
    )


def _models_of(alerts: Sequence[Alert]) -> Mapping[str, str]:
    return alerts[0].models if alerts else {}
