"""deploy/prometheus: every rule parses, fires and is silent as it should, and names what the code exports."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import generate_latest

from damagewatch.telemetry.metrics import LABELS, Metrics
from damagewatch.telemetry.reference import described

CHECKOUT = Path(__file__).parents[2]
HERE = CHECKOUT / "deploy/prometheus"
RUNBOOKS = CHECKOUT / "docs/runbooks"
OTHERS = {
    "up",  # of Prometheus
    "ALERTS",
    "process_cpu_seconds_total",  # of the client library
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "kube_pod_container_status_restarts_total",  # of kube-state-metrics, where there is one
}
"""Series that rules and dashboards use and that are not ours."""


def groups() -> list[dict[str, Any]]:
    files = sorted((HERE / "rules").glob("*.yml"))
    return [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]


RULES = [rule for group in groups() for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}


def exported() -> dict[str, tuple[str, ...]]:
    """Every series that a matcher exports, and its labels."""
    series: dict[str, tuple[str, ...]] = {}
    for metric in described():
        if metric.kind == "histogram":
            series[f"{metric.name}_bucket"] = (*metric.labels, "le")
            series[f"{metric.name}_sum"] = series[f"{metric.name}_count"] = metric.labels
        else:
            series[metric.name] = metric.labels
    return series


def selectors(query: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Name and matchers (label, value) of every series that a query asks for."""
    todo = [promql_parser.parse(query)]  # an error where it is no PromQL
    while todo:
        part = todo.pop()
        if isinstance(part, promql_parser.MatrixSelector):
            part = part.vector_selector
        if isinstance(part, promql_parser.VectorSelector):
            yield part.name, [(each.name, each.value) for each in part.matchers.matchers]
        inner = [getattr(part, name, None) for name in ("lhs", "rhs", "expr", "param")]
        todo += [each for each in (*inner, *getattr(part, "args", ())) if each is not None]


def check_names(query: str) -> None:
    """Every series is recorded, exported or known, and is asked for labels that it has."""
    known = exported()
    found = list(selectors(query))
    assert found, query
    for name, matchers in found:
        assert name in RECORDED | OTHERS | known.keys(), f"{name} in {query}"
        if name in known:
            assert {label for label, _ in matchers} <= {*known[name], "job", "instance"}, query


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_series_that_a_rule_names_is_there(rule: dict[str, Any]) -> None:
    check_names(rule["expr"])


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_bad_it_is_and_where_its_runbook_is(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Damagewatch([A-Z][a-z]+)+", alert["alert"])
    assert alert["labels"]["severity"] in {"page", "ticket"}
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    page = f"{alert['alert']}.md"
    assert notes["runbook_url"].endswith(f"/{page}")
    text = (RUNBOOKS / page).read_text()
    for heading in ("## Meaning", "## Checks", "## Remedies"):
        assert heading in text, f"{page} has no {heading}"


def test_every_alert_is_tried_firing_and_silent() -> None:
    fires: set[str] = set()
    silent = 0
    for path in (HERE / "tests").glob("*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case.get("promql_expr_test", ()):
                fires |= set(re.findall(r'alertname="(\w+)"', str(check["exp_samples"])))
                silent += not check["exp_samples"]
    assert fires == {alert["alert"] for alert in ALERTS}
    assert silent > len(fires)


def test_the_pages_of_alerts_that_are_no_more_are_gone() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("Damagewatch*.md")}
    assert pages == {alert["alert"] for alert in ALERTS}


@pytest.mark.timeout(300)
def test_the_rules_pass_promtool(tool: Any) -> None:
    said = subprocess.run(
        [tool("promtool"), "test", "rules", *map(str, sorted((HERE / "tests").glob("*.yml")))],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_configurations_pass_promtool(tool: Any, tmp_path: Path) -> None:
    promtool = tool("promtool")
    here = shutil.copytree(HERE, tmp_path / "prometheus")
    # Debian's build knows nothing of Kubernetes: all but the finding of pods is checked here.
    cluster = yaml.safe_load((here / "kubernetes.yml").read_text())
    for job in cluster["scrape_configs"]:
        for search in job.pop("kubernetes_sd_configs"):
            assert search["role"] == "pod"
            assert all(set(each) == {"role", "label"} for each in search["selectors"])
        job["static_configs"] = [{"targets": ["127.0.0.1:1"]}]
    (here / "kubernetes.yml").write_text(yaml.safe_dump(cluster))
    for name in ("prometheus.yml", "kubernetes.yml"):
        said = subprocess.run(
            [promtool, "check", "config", here / name], capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, said.stdout + said.stderr


def test_both_configurations_give_the_jobs_that_the_rules_ask_for() -> None:
    for name in ("prometheus.yml", "kubernetes.yml"):
        jobs = {job["job_name"] for job in yaml.safe_load((HERE / name).read_text())["scrape_configs"]}
        assert {"damagewatch-matcher", "qdrant"} <= jobs


def test_the_metrics_pass_promtool(tool: Any) -> None:
    said = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=generate_latest(Metrics("1.0").registry),
        capture_output=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_label_is_explained() -> None:
    assert {label for metric in described() for label in metric.labels} == LABELS.keys()
