"""deploy/grafana: what a person needs on a panel is there, and every query names what the code exports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .test_prometheus import RECORDED, check_names, selectors

HERE = Path(__file__).parents[2] / "deploy/grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in (HERE / "dashboards").glob("*.json")}
UNITS = {"short", "s", "bytes", "Bps", "percentunit", "reqps", "ops", "cpm"}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


EVERY = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in panels(dashboard)]
each_panel = pytest.mark.parametrize(
    ("name", "panel"), EVERY, ids=[f"{name}-{panel['title']}" for name, panel in EVERY]
)
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)


def filled(expr: str) -> str:
    """A query as Grafana sends it."""
    return (
        expr.replace("$__rate_interval", "1m")
        .replace("$job", "damagewatch-matcher")
        .replace("$instance", ".*")
    )


def test_they_are_current() -> None:
    said = subprocess.run([sys.executable, HERE / "generate.py", "--check"], capture_output=True, check=False)
    assert said.returncode == 0, said.stderr.decode()


def test_there_is_one_for_each_concern() -> None:
    assert DASHBOARDS.keys() == {"overview", "matcher", "models", "dependencies"}


@each_dashboard
def test_a_dashboard_is_named_fixed_and_choosable(dashboard: dict[str, Any]) -> None:
    assert dashboard["title"]
    assert dashboard["description"]
    assert dashboard["uid"]
    assert dashboard["editable"] is False
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for name in ("job", "instance"):
        assert variables[name]["datasource"]["uid"] == "${datasource}"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


@each_dashboard
def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@each_panel
def test_a_panel_says_what_it_shows_and_in_which_unit(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@each_panel
def test_a_query_is_answerable_and_follows_the_chosen_job_and_worker(
    name: str, panel: dict[str, Any]
) -> None:
    for target in panel["targets"]:
        check_names(filled(target["expr"]))
        asked = list(selectors(filled(target["expr"])))
        for series, matchers in asked:
            labels = {label for label, _ in matchers}
            assert "job" in labels, target["expr"]
            if series not in RECORDED and series not in {"ALERTS"} and ("job", "qdrant") not in matchers:
                assert "instance" in labels, target["expr"]
        # A counter means nothing but by its rate, and a rate needs the interval that fits the zoom.
        bare = re.sub(r"\[[^]]*\]", "[]", target["expr"])
        for counter in re.findall(r"(\w+_total|\w+_(?:bucket|sum|count))\{", bare):
            assert re.search(rf"(rate|increase)\({counter}\{{", bare), target["expr"]
        assert all(
            window == "$__rate_interval" for window in re.findall(r"rate\([^[]*\[([^]]*)\]", target["expr"])
        )


def test_what_is_provisioned_is_what_is_here() -> None:
    sources = yaml.safe_load((HERE / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert [source["type"] for source in sources] == ["prometheus"]
    (provider,) = yaml.safe_load((HERE / "provisioning/dashboards/damagewatch.yml").read_text())["providers"]
    assert provider["allowUiUpdates"] is False
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"  # where deploy/compose puts them
