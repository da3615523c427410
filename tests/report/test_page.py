from __future__ import annotations

import base64
import dataclasses
import re
import struct
import uuid
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import (
    Alert,
    AlertKind,
    AlertSide,
    Box,
    DamageType,
    DependencyDownError,
    Severity,
    Signals,
)
from damagewatch.report import page, write_report
from damagewatch.report.elements import element, serialise, short
from damagewatch.report.pair import GAP, MOST_LINES, PANEL_HEIGHT, PANEL_WIDTH, draw, panels_of
from damagewatch.report.words import percent

NOW = datetime(2026, 3, 12, 14, 2, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)> & \0 \u202egpj.exe \ud800"


class Tree(HTMLParser):
    """What a browser would make of a page: the elements, and whether each was closed in its turn."""

    VOID = frozenset({"meta", "input", "br", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        assert len(dict(attrs)) == len(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self.open else ""

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def side(claim: str, box: Box, crop_box: Box, **changes: object) -> AlertSide:
    made = AlertSide(
        tenant="acme",
        claim_id=claim,
        photo_id=f"{claim}.jpg",
        damage_id=uuid.uuid5(uuid.NAMESPACE_URL, claim),
        sha256="ab" * 32,
        box=box,
        type=DamageType.DENT,
        severity=Severity.MODERATE,
        crop_uri=f"memory://{claim}",
        crop_box=crop_box,
        width=2000,
        height=1000,
        received_at=NOW,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def alert(**changes: object) -> Alert:
    made = Alert(
        alert_id=uuid.uuid4(),
        kind=AlertKind.SAME_DAMAGE,
        probability=0.97,
        mirrored=False,
        query=side("new", Box(400, 300, 500, 350), Box(200, 200, 680, 440)),
        match=side("old", Box(100, 100, 200, 200), Box(0, 0, 300, 600), received_at=NOW - timedelta(days=87)),
        signals=Signals(0.83, 231, 42, 0.72, 0.64, 0.91, 23),
        models={"detector": "fpn 1.2"},
        decided_at=NOW,
        homography=(1, 0, -300, 0, 1, -200, 0, 0, 1),
        points=((450, 320, 150, 120), (210, 210, 10, 10)),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def jpeg(width: int = 320, height: int = 160) -> bytes:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2] = (0, 0, 255)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def crops(uri: str) -> bytes:
    return jpeg()


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Tree]:
    def write(alerts: list[Alert], *args: object, **more: object) -> Tree:
        path = tmp_path / "evidence.html"
        write_report(path, alerts, *(args or (crops,)), **more)  # type: ignore[arg-type]
        assert [p.name for p in tmp_path.iterdir()] == ["evidence.html"]
        return Tree(path.read_text("utf-8"))

    return write


def test_a_page_says_what_an_investigator_needs(written: Callable[..., Tree]) -> None:
    one = alert()
    tree = written(
        [one],
        title="Monday's claims",
        summary=[("photos", "43"), ("planted returns found", "8 of 8")],
        rejected=[("C-9/broken.jpg", "truncated", "ends before its last row")],
        models={"embedder": "osnet 2.0"},
    )
    for said in (
        "Monday's claims",
        "8 of 8",
        "Same damage",
        "97 %",
        "moderate dent",
        "12 Mar 2026, 14:02 UTC",
        "87 days apart",
        "C-9/broken.jpg",
        "ends before its last row",
        "osnet 2.0",
        "fpn 1.2",
        *(
            str(value)
            for side in (one.query, one.match)
            for value in (side.claim_id, side.photo_id, side.damage_id)
        ),
        str(one.alert_id),
        "231",
        "42",
        "0.64",
        "23 of 64",
    ):
        assert said in tree.text, said


def test_the_page_is_whole_and_loads_nothing(written: Callable[..., Tree]) -> None:
    tree = written([alert(), alert(mirrored=True)], rejected=[("a", "b", "c")])
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in tree.elements
    }
    for tag, attributes in tree.elements:
        for name in ("src", "href", "srcset", "action", "data", "xlink:href", "poster"):
            value = attributes.get(name, "#")
            assert value.startswith(("#alert-", "data:image/jpeg;base64,")) or value == "#", (
                tag,
                name,
                value,
            )
        assert not any(name.startswith("on") for name in attributes)
    (policy,) = (meta["content"] for meta in tree.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy
    style = page.files("damagewatch.report").joinpath("style.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_is_described(written: Callable[..., Tree]) -> None:
    tree = written([alert()])
    (drawing,) = (svg for svg in tree.all("svg") if svg.get("role") == "img")
    assert drawing["aria-label"] == "Left: dent of claim new. Right: dent of claim old."


def test_no_alerts_is_said(written: Callable[..., Tree]) -> None:
    assert "nothing was seen before" in written([]).text


def test_hostile_names_are_text_and_nothing_else(written: Callable[..., Tree]) -> None:
    honest = written([alert()], rejected=[("a", "b", "c")], summary=[("a", "b")])
    hostile_side = dataclasses.replace(
        alert().query, tenant=HOSTILE, claim_id=HOSTILE, photo_id=HOSTILE, sha256=HOSTILE, crop_uri=HOSTILE
    )
    hostile = alert(query=hostile_side, models={HOSTILE: HOSTILE})
    tree = written(
        [hostile],
        title=HOSTILE,
        summary=[(HOSTILE, HOSTILE)],
        rejected=[(HOSTILE, HOSTILE, HOSTILE)],
        models={HOSTILE: HOSTILE},
    )
    assert [tag for tag, _ in tree.elements] == [tag for tag, _ in honest.elements]
    assert "<script>alert(1)</script>" in tree.text
    assert not {"\0", "\u202e", "\ud800"} & set(tree.text)


@given(st.text())
def test_any_text_survives_but_for_what_may_not_be_shown(text: str) -> None:
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    tree = Tree(serialise(element("p", element("b"), text, title=text)))
    assert tree.text == shown
    assert tree.all("p") == [{"title": shown}]


def test_long_names_are_cut() -> None:
    assert short("x" * 160) == "x" * 160
    assert short("x" * 10_000) == "x" * 160 + "…"


def test_pixels_land_where_the_picture_shows_them() -> None:
    one = alert()
    query, match = panels_of(one)
    assert (query.width, query.height) == (PANEL_WIDTH, PANEL_WIDTH / 2)  # 480 x 240
    assert (match.width, match.height) == (PANEL_HEIGHT / 2, PANEL_HEIGHT)  # 300 x 600
    assert query.y == (PANEL_HEIGHT - query.height) / 2
    assert query.place((200, 200)) == (0, query.y)
    assert query.place((680, 440)) == (PANEL_WIDTH, query.y + query.height)
    assert query.place((440, 320)) == pytest.approx((PANEL_WIDTH / 2, query.y + query.height / 2))
    assert match.place((0, 600)) == (PANEL_WIDTH + GAP, PANEL_HEIGHT)


def test_a_mirrored_query_is_drawn_mirrored_with_its_points() -> None:
    """With the homography of a pure mirroring, every line of a mirrored pair is level."""
    query = side("new", Box(100, 300, 300, 400), Box(0, 200, 1000, 700))
    match = side("old", Box(1700, 300, 1900, 400), Box(1000, 200, 2000, 700))
    points = tuple((float(x), 450.0, 2000.0 - x, 450.0) for x in (50, 150, 250, 900))
    one = alert(
        mirrored=True, query=query, match=match, points=points, homography=(1, 0, 0, 0, 1, 0, 0, 0, 1)
    )
    left, right = panels_of(one)
    for x, y, u, v in points:
        (a, b), (c, d) = left.place((x, y)), right.place((u, v))
        assert (a - left.x, b) == pytest.approx((c - right.x, d))
    drawing, lines = draw(one, crops)
    assert lines == 4
    pictures = list(drawing.iter("image"))
    assert ["scale(-1 1)" in picture.get("transform", "") for picture in pictures] == [True, False]
    # The projected damage of the query covers the damage of the match.
    groups = {group.get("class"): group for group in drawing.iter("g")}
    projected = groups["projected"].find("polygon")
    box = [group for group in drawing.iter("g") if group.get("class") == "box"][1].find("polygon")
    assert projected is not None and box is not None
    assert sorted(projected.get("points", "").split()) == sorted(box.get("points", "").split())


def test_points_on_the_damage_stand_out_and_those_outside_the_crops_are_left_out() -> None:
    one = alert(points=((450, 320, 150, 120), (210, 210, 10, 10), (0, 0, 10, 10), (450, 320, 900, 900)))
    drawing, lines = draw(one, crops)
    assert lines == 2
    kinds = [group.get("class") for group in drawing.iter("g")]
    assert kinds.count("on-damage") == 1
    assert kinds.count("around") == 1


def test_many_points_are_thinned_evenly_and_the_page_says_so(written: Callable[..., Tree]) -> None:
    points = tuple((200.0 + i / 10, 300.0, 10.0, 10.0) for i in range(1000))
    drawing, lines = draw(alert(points=points), crops)
    assert lines == MOST_LINES
    starts = [float(line.get("x1", "nan")) for line in drawing.iter("line")]
    assert (min(starts), max(starts)) == (0, pytest.approx(99.9, abs=0.01))
    assert f"{MOST_LINES} of 1000 matched points" in written([alert(points=points)]).text


@pytest.mark.parametrize(
    "homography", [(), (1.0,) * 9, (0.0,) * 9, (float("nan"),) * 9, (1, 0, 0, 0, 1, 0, 0.1, 0, -40)]
)
def test_a_homography_that_shows_nothing_is_not_drawn(homography: tuple[float, ...]) -> None:
    drawing, _ = draw(alert(homography=homography), crops)
    assert "projected" not in {group.get("class") for group in drawing.iter("g")}
    assert "nan" not in serialise(drawing)


@pytest.mark.parametrize(
    "failure", [FileNotFoundError("erased"), ValueError("elsewhere"), DependencyDownError("evidence", "down")]
)
def test_a_crop_that_is_gone_leaves_its_place(written: Callable[..., Tree], failure: Exception) -> None:
    def gone(uri: str) -> bytes:
        raise failure

    tree = written([alert()], gone)
    assert tree.all("image") == []
    assert tree.text.count("no longer kept") == 2


@pytest.mark.parametrize("content", [b"", b"<svg onload=alert(1)>", jpeg()[:40]])
def test_what_is_no_picture_is_not_embedded(written: Callable[..., Tree], content: bytes) -> None:
    assert written([alert()], lambda uri: content).all("image") == []


def test_pictures_are_scaled_down_and_hold_only_pixels() -> None:
    large = jpeg(2400, 1200)
    with_comment = large[:2] + b"\xff\xfe\x00\x0ccanary-gps" + large[2:]
    drawing, _ = draw(alert(), lambda uri: with_comment)
    for image in drawing.iter("image"):
        content = base64.b64decode(image.get("href", "").removeprefix("data:image/jpeg;base64,"))
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (450, 900, 3)
        assert picture[200, 100].tolist() == pytest.approx([0, 0, 255], abs=4)
        assert b"canary" not in content


def test_a_page_has_an_end_and_keeps_the_most_probable(
    written: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MOST_ALERTS", 3)
    alerts = [alert(probability=p) for p in (0.5, 0.99, 0.6, 0.98, 0.7)]
    tree = written(alerts)
    assert len(tree.all("article")) == 3
    assert "3 most probable of 5" in tree.text
    shown = re.findall(r"([\d.]+) % probable", tree.text)
    assert shown == ["99", "98", "70"]


def test_a_page_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "evidence.html"
    path.write_text("old")

    def interrupted(uri: str) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(path, [alert()], interrupted)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("evidence.html", "old")]


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (1, "100 %"), (0.973, "97 %"), (0.9996, "99.9 %"), (0.994, "99.4 %"), (0.0001, "0.1 %")],
)
def test_what_is_not_certain_is_never_called_so(share: float, said: str) -> None:
    assert percent(share) == said


def test_a_crop_of_more_pixels_than_may_be_decoded_leaves_its_place(written: Callable[..., Tree]) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    )
    assert written([alert()], lambda uri: bomb).text.count("no longer kept") == 2
