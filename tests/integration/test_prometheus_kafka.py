"""A real Prometheus scrapes a matcher at work: every rule and every panel is answered, and shows what happened."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from trials.photos import TrialSet
from trials.stand import CHECKOUT, Matcher, Stream

from damagewatch.broker.record import OutgoingRecord

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

JOB = "damagewatch-matcher"
DASHBOARDS = sorted((CHECKOUT / "deploy/grafana/dashboards").glob("*.json"))


def program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: deploy/prometheus/fetch.sh gets it where there is apt-get")
    return found


@dataclass
class Prometheus:
    """Its address, and what the matcher that it scraped had told at the end."""

    address: str
    exposition: str = ""

    def get(self, path: str, **arguments: str) -> Any:
        asked = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[Any]:
        return list(self.get("query", query=expr)["result"])


@pytest.fixture(scope="module")
def watched(
    make_stream: Callable[..., Stream], photos: TrialSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus with the rules of deploy/, after it has watched a matcher for a while, and still does."""
    binary = program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    here = shutil.copytree(CHECKOUT / "deploy/prometheus", folder / "configuration")
    stream = make_stream(partitions=2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    with Matcher(stream) as matcher:
        (here / "targets/matcher.yml").write_text(
            yaml.safe_dump([{"targets": [f"127.0.0.1:{matcher.port}"]}])
        )
        # As it is shipped, but looking oftener, and asking no name server for containers.
        given = yaml.safe_load((here / "prometheus.yml").read_text())
        given["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        for job in given["scrape_configs"]:
            job.pop("dns_sd_configs", None)
        (here / "prometheus.yml").write_text(yaml.safe_dump(given))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={here / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            _wait(lambda: _is_up(prometheus), 60)
            # In two helpings, with something refused among them: rates need counters that move.
            half = len(photos.photos) // 2
            stream.publish(photos.photos[:half])
            stream.wait(matcher, half)
            stream.send([OutgoingRecord(stream.topics.images, b"claim", b"\xff\xff\xff")])
            stream.publish(photos.photos[half:])
            stream.wait(matcher, len(photos.photos) + 1)
            _wait(lambda: _value(prometheus, "sum(damagewatch_photos_total)") == len(photos.photos), 30)
            _wait(lambda: bool(prometheus.query("job:damagewatch_dead_letters:ratio_rate5m > 0")), 30)
            prometheus.exposition = matcher.ask("/metrics")[1]
            yield prometheus
        finally:
            process.terminate()
            process.wait(20)


def _wait(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def _is_up(prometheus: Prometheus) -> bool:
    try:
        return _value(prometheus, f'up{{job="{JOB}"}}') == 1
    except OSError:
        return False


def _value(prometheus: Prometheus, expr: str) -> float | None:
    answer = prometheus.query(expr)
    return float(answer[0]["value"][1]) if answer else None


def test_promtool_finds_nothing_wrong_with_what_the_matcher_tells(watched: Prometheus) -> None:
    said = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=watched.exposition,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_rule_is_evaluated_without_error(watched: Prometheus) -> None:
    groups = watched.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 30
    _wait(lambda: all(rule["health"] != "unknown" for rule in rules), 1)
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_nothing_is_wrong_with_a_matcher_that_works(watched: Prometheus) -> None:
    firing = {alert["labels"]["alertname"] for alert in watched.get("alerts")["alerts"]}
    assert firing <= {"DamagewatchDeadLetters"}  # one of 25; pending at most, as there are too few


@pytest.mark.parametrize("path", DASHBOARDS, ids=[path.stem for path in DASHBOARDS])
def test_every_panel_is_answered(watched: Prometheus, path: Path) -> None:
    empty: list[str] = []
    for panel in json.loads(path.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "2m").replace("$job", JOB)
            if not watched.query(expr.replace("$instance", ".*")):
                empty.append(panel["title"])
    # Nothing fires, and no Qdrant server is there; all else has data.
    assert set(empty) <= {"Prometheus' alerts", "Qdrant servers"}


def test_it_shows_what_happened(watched: Prometheus, photos: TrialSet) -> None:
    count = len(photos.photos)
    for expr, expected in {
        "damagewatch_records_received_total": count + 1,
        "damagewatch_records_committed_total": count + 1,
        "damagewatch_end_to_end_seconds_count": count,
        "sum(damagewatch_dead_letters_total)": 1,
        'damagewatch_dead_letters_total{reason="message_unreadable"}': 1,
        'damagewatch_outputs_committed_total{topic=~".*detections"}': count,
        "sum(damagewatch_lag_records)": 0,
        "damagewatch_oldest_uncommitted_seconds": 0,
        "damagewatch_in_flight_photos": 0,
        "min(damagewatch_dependency_up)": 1,
        "damagewatch_assigned_partitions": 2,
    }.items():
        _wait(lambda expr=expr, expected=expected: _value(watched, expr) == expected, 10)  # type: ignore[misc]
    for expr in (
        "sum(damagewatch_alerts_total)",
        "damagewatch_index_points",
        "damagewatch_batch_photos_sum",
        'damagewatch_stage_seconds_count{stage="verify"}',
        'damagewatch_stage_seconds_count{stage="look"}',
        'damagewatch_transactions_total{outcome="committed"}',
        "damagewatch_rebalances_total",
        "process_resident_memory_bytes{job='damagewatch-matcher'}",
    ):
        # The index is counted every 15 seconds.
        _wait(lambda expr=expr: (_value(watched, expr) or 0) > 0, 40)  # type: ignore[misc]


def test_the_dashboards_can_be_drawn_from_its_answers(watched: Prometheus, tmp_path: Path) -> None:
    drawer = CHECKOUT / "deploy/grafana/pictures.py"
    subprocess.run(
        [sys.executable, drawer, watched.address, tmp_path, "--minutes", "2"], check=True, timeout=60
    )
    for path in DASHBOARDS:
        text = (tmp_path / f"{path.stem}.svg").read_text("utf-8")
        titles = {each.text for each in ElementTree.fromstring(text).iter() if each.get("class") == "title"}
        panels = [panel for panel in json.loads(path.read_text("utf-8"))["panels"] if panel["type"] != "row"]
        assert titles == {panel["title"] for panel in panels}
        assert text.count("no data") < len(panels) / 2
