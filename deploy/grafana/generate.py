"""Writes the dashboards: `python deploy/grafana/generate.py`; with `--check` it says whether they are current.

Classic JSON, which Grafana 10 to 13 load. Every panel has a title, a description and a unit; every query names the
job, and the instance where its series have one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "dashboards"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24
HEIGHT: Final = 8

JOB: Final = 'job="$job"'
ABORTED: Final = 'outcome="aborted"'
ALL: Final = 'job="$job", instance=~"$instance"'


@dataclass(frozen=True)
class Query:
    """PromQL and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel. `unit` is one of Grafana's ids; `limits` are (value, colour) steps above green."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    limits: tuple[tuple[float, str], ...] = ()
    stacked: bool = False
    maximum: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One page; its `name` is its file's and its uid's."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...] = field(default=())


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """The sum of a counter's rates."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{_and(labels)}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "", labels: str = "") -> str:
    """A quantile of a histogram, over all chosen workers."""
    grouped = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({share}, sum by ({grouped}) "
        f"(rate({histogram}_bucket{{{_and(labels)}}}[$__rate_interval])))"
    )


def _and(labels: str) -> str:
    return f"{ALL}, {labels}" if labels else ALL


LATE: Final = Panel(
    "Photos decided later than 60 s",
    "Share of the photos decided within the window that came more than 60 s before. The objective allows 1 %.",
    "percentunit",
    (
        Query(f"job:damagewatch_photos_late:ratio_rate5m{{{JOB}}}", "5 minutes"),
        Query(f"job:damagewatch_photos_late:ratio_rate1h{{{JOB}}}", "1 hour"),
        Query(f"job:damagewatch_photos_late:ratio_rate3d{{{JOB}}}", "3 days"),
    ),
    limits=((0.01, "orange"), (0.144, "red")),
)
LETTERS: Final = Panel(
    "Records dead-lettered",
    "Share of the committed records that ended as dead letters. The objective allows 0.5 %.",
    "percentunit",
    (
        Query(f"job:damagewatch_dead_letters:ratio_rate5m{{{JOB}}}", "5 minutes"),
        Query(f"job:damagewatch_dead_letters:ratio_rate1h{{{JOB}}}", "1 hour"),
        Query(f"job:damagewatch_dead_letters:ratio_rate3d{{{JOB}}}", "3 days"),
    ),
    limits=((0.005, "orange"), (0.072, "red")),
)
OLDEST: Final = Panel(
    "Oldest photo not decided",
    "Age of the oldest record that is read and not committed, of all workers.",
    "s",
    (Query(f"max(damagewatch_oldest_uncommitted_seconds{{{ALL}}})", "oldest"),),
    limits=((60, "orange"), (300, "red")),
)
FLOW: Final = Panel(
    "Photos in and out",
    "Records read from the stream, and records whose outputs were committed, each second.",
    "reqps",
    (
        Query(rate("damagewatch_records_received_total"), "in"),
        Query(rate("damagewatch_records_committed_total"), "out"),
    ),
)
LAG: Final = Panel(
    "Lag",
    "Records not yet committed, by partition.",
    "short",
    (Query(f"sum by (partition) (damagewatch_lag_records{{{ALL}}})", "{{partition}}"),),
    stacked=True,
)

OVERVIEW: Final = Dashboard(
    "overview",
    "damagewatch: overview",
    "Whether photos are decided in time, what is found, and what is wrong.",
    (
        Row(
            "At a glance",
            (
                Panel(
                    "Workers up",
                    "Matchers that answer Prometheus.",
                    "short",
                    (Query(f"sum(up{{{ALL}}})"),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Paused",
                    "Workers that take no photos now.",
                    "short",
                    (Query(f"sum(damagewatch_paused{{{ALL}}})"),),
                    kind="stat",
                    width=4,
                    limits=((1, "red"),),
                ),
                Panel(
                    "Lag",
                    "Records not yet committed.",
                    "short",
                    (Query(f"sum(damagewatch_lag_records{{{ALL}}})"),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Late photos, 3 days",
                    "Share decided later than 60 s; the objective allows 1 %.",
                    "percentunit",
                    (Query(f"job:damagewatch_photos_late:ratio_rate3d{{{JOB}}}"),),
                    kind="stat",
                    width=4,
                    limits=((0.01, "red"),),
                ),
                Panel(
                    "Dead letters, 3 days",
                    "Share of all records; the objective allows 0.5 %.",
                    "percentunit",
                    (Query(f"job:damagewatch_dead_letters:ratio_rate3d{{{JOB}}}"),),
                    kind="stat",
                    width=4,
                    limits=((0.005, "red"),),
                ),
                Panel(
                    "Damages remembered",
                    "Points of the index, all tenants; workers that share an index tell the same number.",
                    "short",
                    (Query(f"max(damagewatch_index_points{{{ALL}}})"),),
                    kind="stat",
                    width=4,
                ),
            ),
        ),
        Row("Objectives", (LATE, LETTERS, OLDEST)),
        Row(
            "Stream",
            (
                FLOW,
                LAG,
                Panel(
                    "Prometheus' alerts",
                    "Our alerts that fire now; each has a page in docs/runbooks.",
                    "short",
                    (
                        Query(
                            'count by (alertname) (ALERTS{alertname=~"Damagewatch.*", '
                            'alertstate="firing", job=~"$job|qdrant|"})',
                            "{{alertname}}",
                        ),
                    ),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "What is found",
            (
                Panel(
                    "Damages seen before",
                    "Alerts decided each minute, by kind.",
                    "cpm",
                    (Query(f"60 * {rate('damagewatch_alerts_total', 'kind')}", "{{kind}}"),),
                    stacked=True,
                ),
                Panel(
                    "Dead letters",
                    "Records that can never be processed, each minute, by reason.",
                    "cpm",
                    (Query(f"60 * {rate('damagewatch_dead_letters_total', 'reason')} > 0", "{{reason}}"),),
                    stacked=True,
                ),
                Panel(
                    "Records published",
                    "Outputs committed each second, by topic.",
                    "reqps",
                    (Query(rate("damagewatch_outputs_committed_total", "topic"), "{{topic}}"),),
                ),
            ),
        ),
    ),
)

MATCHER: Final = Dashboard(
    "matcher",
    "damagewatch: matcher",
    "Where the time of a photo goes, what fills up, and what the processes use.",
    (
        Row(
            "Time",
            (
                Panel(
                    "From arrival to decision",
                    "Seconds from the record's timestamp to the decision.",
                    "s",
                    (
                        Query(quantile(0.5, "damagewatch_end_to_end_seconds"), "half"),
                        Query(quantile(0.95, "damagewatch_end_to_end_seconds"), "95 %"),
                        Query(quantile(0.99, "damagewatch_end_to_end_seconds"), "99 %"),
                    ),
                ),
                Panel(
                    "Stages, mean",
                    "Seconds that a step takes: look and its steps for a photo, judge and its steps for a batch.",
                    "s",
                    (
                        Query(
                            f"{rate('damagewatch_stage_seconds_sum', 'stage')} / "
                            f"{rate('damagewatch_stage_seconds_count', 'stage')}",
                            "{{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Stages, 95 %",
                    "Seconds within which 95 of 100 of a step's runs end.",
                    "s",
                    (Query(quantile(0.95, "damagewatch_stage_seconds", "stage"), "{{stage}}"),),
                ),
                Panel(
                    "Threads by stage",
                    "Seconds spent in each step a second: threads that are at it at a time.",
                    "short",
                    (
                        Query(
                            rate("damagewatch_stage_seconds_sum", "stage", 'stage!~"look|judge"'), "{{stage}}"
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Photos a batch",
                    "Mean size of the micro-batches.",
                    "short",
                    (
                        Query(
                            f"{rate('damagewatch_batch_photos_sum')} / {rate('damagewatch_batch_photos_count')}",
                            "photos",
                        ),
                    ),
                ),
                Panel(
                    "Commits, 95 %",
                    "Seconds within which 95 of 100 transactions are committed.",
                    "s",
                    (Query(quantile(0.95, "damagewatch_transaction_seconds"), "commit"),),
                ),
            ),
        ),
        Row(
            "What fills up",
            (
                Panel(
                    "Queues",
                    "Share of each queue's room that is taken, of the fullest worker. photos at 1: it is full.",
                    "percentunit",
                    (Query(f"max by (queue) (damagewatch_queue_fill_ratio{{{ALL}}})", "{{queue}}"),),
                    maximum=1,
                ),
                Panel(
                    "In flight",
                    "Records read and not yet finished.",
                    "short",
                    (Query(f"sum by (instance) (damagewatch_in_flight_photos{{{ALL}}})", "{{instance}}"),),
                    stacked=True,
                ),
                Panel(
                    "Bytes in flight",
                    "Bytes of the records read and not yet finished.",
                    "bytes",
                    (Query(f"sum by (instance) (damagewatch_in_flight_bytes{{{ALL}}})", "{{instance}}"),),
                    stacked=True,
                ),
                LAG,
                OLDEST,
                Panel(
                    "Bytes in",
                    "Bytes of the records read, each second.",
                    "Bps",
                    (Query(rate("damagewatch_received_bytes_total"), "in"),),
                ),
            ),
        ),
        Row(
            "Group and transactions",
            (
                Panel(
                    "Transactions",
                    "Transactions that ended each second, by outcome.",
                    "ops",
                    (Query(rate("damagewatch_transactions_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "Rebalances",
                    "Times that a worker's partitions became others, within the last 15 minutes.",
                    "short",
                    (
                        Query(
                            f"sum by (instance) (increase(damagewatch_rebalances_total{{{ALL}}}[15m]))",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Partitions",
                    "Partitions of each worker: they should be spread evenly.",
                    "short",
                    (Query(f"sum by (instance) (damagewatch_assigned_partitions{{{ALL}}})", "{{instance}}"),),
                    stacked=True,
                ),
                Panel(
                    "Results dropped",
                    "Results dropped each second, as their partition was taken away meanwhile; another worker makes "
                    "them again.",
                    "ops",
                    (Query(rate("damagewatch_stale_results_total"), "dropped"),),
                ),
                Panel(
                    "Since the last commit",
                    "Seconds since a worker committed; it grows while nothing comes.",
                    "s",
                    (
                        Query(
                            f"time() - (damagewatch_last_commit_timestamp_seconds{{{ALL}}} > 0)",
                            "{{instance}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Processes",
            (
                Panel(
                    "CPU",
                    "Cores used by each worker.",
                    "short",
                    (Query(rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
                ),
                Panel(
                    "Memory",
                    "Resident memory of each worker.",
                    "bytes",
                    (Query(f"process_resident_memory_bytes{{{ALL}}}", "{{instance}}"),),
                ),
                Panel(
                    "Age",
                    "Seconds since each worker was started.",
                    "s",
                    (Query(f"time() - process_start_time_seconds{{{ALL}}}", "{{instance}}"),),
                ),
            ),
        ),
    ),
)

MODELS: Final = Dashboard(
    "models",
    "damagewatch: models and drift",
    "Which models judge, and whether the photos are still like those that they were measured on.",
    (
        Row(
            "Which",
            (
                Panel(
                    "Models",
                    "Name and hash of each model; more than one row: workers judge differently.",
                    "short",
                    (
                        Query(
                            f"count by (detector, embedder, local_features, calibration) "
                            f"(damagewatch_models_info{{{ALL}}})",
                            "{{detector}} · {{embedder}} · {{local_features}} · {{calibration}}",
                        ),
                    ),
                    kind="stat",
                    width=16,
                ),
                Panel(
                    "Refused",
                    "Workers whose models do not fit their manifest.",
                    "short",
                    (Query(f"sum(damagewatch_models_refused{{{ALL}}})"),),
                    kind="stat",
                    width=4,
                    limits=((1, "red"),),
                ),
                Panel(
                    "Versions",
                    "Workers by version of damagewatch.",
                    "short",
                    (Query(f"count by (version) (damagewatch_build_info{{{ALL}}})", "{{version}}"),),
                    kind="stat",
                    width=4,
                ),
            ),
        ),
        Row(
            "Photos",
            (
                Panel(
                    "Distance of the mean embedding",
                    "Of recent photos from the reference's, in units of the reference's spread. Chance alone gives "
                    "0.03 for a thousand photos of different claims.",
                    "short",
                    (Query(f"damagewatch_embedding_mean_shift_ratio{{{ALL}}}", "{{instance}}"),),
                    limits=((0.4, "red"),),
                ),
                Panel(
                    "Spread of the embeddings",
                    "Of recent photos over the reference's: 1 is the same, less is more alike.",
                    "short",
                    (Query(f"damagewatch_embedding_spread_ratio{{{ALL}}}", "{{instance}}"),),
                ),
                Panel(
                    "Photos without damage",
                    "Share of the photos in which the detector finds nothing.",
                    "percentunit",
                    (
                        Query(
                            f"{rate('damagewatch_photos_without_damage_total')} / {rate('damagewatch_photos_total')}",
                            "now",
                        ),
                        Query(f"job:damagewatch_photos_without_damage:ratio_rate6h{{{JOB}}}", "6 hours"),
                        Query(f"job:damagewatch_photos_without_damage:ratio_rate7d{{{JOB}}}", "7 days"),
                    ),
                    maximum=1,
                ),
            ),
        ),
        Row(
            "Verdicts",
            (
                Panel(
                    "Damages a photo",
                    "Damages found in a photo, by type.",
                    "short",
                    (
                        Query(
                            f"{rate('damagewatch_damages_total', 'type')} / ignoring (type) group_left "
                            f"{rate('damagewatch_photos_total')}",
                            "{{type}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Detector's scores",
                    "Damages found within the last hour, by their score.",
                    "short",
                    (
                        Query(
                            f"sum by (le) (increase(damagewatch_damage_score_ratio_bucket{{{ALL}}}[1h]))",
                            "{{le}}",
                        ),
                    ),
                    kind="bargauge",
                ),
                Panel(
                    "Alerts' probabilities",
                    "Alerts within the last day, by their probability.",
                    "short",
                    (
                        Query(
                            f"sum by (le) (increase(damagewatch_alert_probability_ratio_bucket{{{ALL}}}[1d]))",
                            "{{le}}",
                        ),
                    ),
                    kind="bargauge",
                ),
                Panel(
                    "Alerts a photo",
                    "Alerts decided for each photo, by kind.",
                    "short",
                    (
                        Query(
                            f"{rate('damagewatch_alerts_total', 'kind')} / ignoring (kind) group_left "
                            f"{rate('damagewatch_photos_total')}",
                            "{{kind}}",
                        ),
                    ),
                ),
                Panel(
                    "Score, median",
                    "Half of the damages found have a higher score, half a lower.",
                    "percentunit",
                    (Query(quantile(0.5, "damagewatch_damage_score_ratio"), "median"),),
                    maximum=1,
                ),
                Panel(
                    "Damages remembered",
                    "Points of the index, all tenants.",
                    "short",
                    (Query(f"max(damagewatch_index_points{{{ALL}}})", "points"),),
                ),
            ),
        ),
    ),
)

DEPENDENCIES: Final = Dashboard(
    "dependencies",
    "damagewatch: dependencies",
    "Kafka, the index and the stores, as the matchers meet them.",
    (
        Row(
            "Do they answer",
            (
                Panel(
                    "Dependencies",
                    "1 while a dependency answers every worker.",
                    "short",
                    (Query(f"min by (dependency) (damagewatch_dependency_up{{{ALL}}})", "{{dependency}}"),),
                    maximum=1,
                ),
                Panel(
                    "Retries",
                    "Times that a dependency was tried again, each minute.",
                    "cpm",
                    (Query(f"60 * {rate('damagewatch_retries_total', 'dependency')}", "{{dependency}}"),),
                ),
                Panel(
                    "Paused",
                    "1 while a worker takes no photos.",
                    "short",
                    (Query(f"damagewatch_paused{{{ALL}}}", "{{instance}}"),),
                    maximum=1,
                ),
                Panel(
                    "Pauses",
                    "Pauses that began within the last 15 minutes.",
                    "short",
                    (
                        Query(
                            f"sum by (instance) (increase(damagewatch_pauses_total{{{ALL}}}[15m]))",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Stopped for good",
                    "1 where the breaker waits for a person: nearly everything became a dead letter.",
                    "short",
                    (Query(f"damagewatch_stopped{{{ALL}}}", "{{instance}}"),),
                    maximum=1,
                ),
                Panel(
                    "Qdrant servers",
                    "Servers that answer Prometheus; none where the index is in the matcher's process.",
                    "short",
                    (Query('sum by (instance) (up{job="qdrant"})', "{{instance}}"),),
                ),
            ),
        ),
        Row(
            "How fast",
            (
                Panel(
                    "Index, 95 %",
                    "Seconds within which 95 of 100 calls of a batch end.",
                    "s",
                    (
                        Query(
                            quantile(
                                0.95,
                                "damagewatch_stage_seconds",
                                "stage",
                                'stage=~"upsert|search|read|flush"',
                            ),
                            "{{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Kafka commits, 95 %",
                    "Seconds within which 95 of 100 transactions are committed.",
                    "s",
                    (Query(quantile(0.95, "damagewatch_transaction_seconds"), "commit"),),
                ),
                Panel(
                    "Transactions aborted",
                    "Share of the transactions that failed; their photos are read again.",
                    "percentunit",
                    (
                        Query(
                            f"{rate('damagewatch_transactions_total', labels=ABORTED)} / "
                            f"{rate('damagewatch_transactions_total')}",
                            "aborted",
                        ),
                    ),
                    maximum=1,
                ),
            ),
        ),
    ),
)

DASHBOARDS: Final = (OVERVIEW, MATCHER, MODELS, DEPENDENCIES)


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    """The JSON of a dashboard."""
    return {
        "uid": f"damagewatch-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["damagewatch"],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "damagewatch",
                "tags": ["damagewatch"],
                "asDropdown": False,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "templating": {"list": list(_variables())},
        "panels": list(_panels(dashboard.rows)),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    for name, label, query, more in (
        ("job", "Job", "label_values(damagewatch_build_info, job)", {}),
        (
            "instance",
            "Worker",
            'label_values(damagewatch_build_info{job="$job"}, instance)',
            {
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            },
        ),
    ):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
            **more,
        }


def _panels(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            number += 1
            tall = 4 if panel.kind == "stat" else HEIGHT
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            height = tall
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": tall})
            x += panel.width
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in panel.limits]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "instant": panel.kind != "timeseries",
                "range": panel.kind == "timeseries",
            }
            for index, query in enumerate(panel.queries)
        ],
    }
    match panel.kind:
        case "timeseries":
            custom: dict[str, Any] = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
            if panel.stacked:
                custom["stacking"] = {"mode": "normal"}
            if panel.limits:
                custom["thresholdsStyle"] = {"mode": "line"}
            defaults["custom"] = custom
            made["options"] = {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case "stat":
            named = any(query.legend for query in panel.queries)
            made["options"] = {
                "colorMode": "value",
                "graphMode": "none",
                "reduceOptions": {"calcs": ["lastNotNull"]},
                "textMode": "value_and_name" if named else "value",
            }
        case "bargauge":
            # Buckets are cumulative: Grafana takes them apart where the format says so.
            made["targets"] = [target | {"format": "heatmap"} for target in made["targets"]]
            made["options"] = {
                "orientation": "horizontal",
                "displayMode": "basic",
                "reduceOptions": {"calcs": ["lastNotNull"]},
            }
    return made


def files() -> dict[Path, str]:
    """What each file should hold."""
    return {
        FOLDER / f"{dashboard.name}.json": json.dumps(rendered(dashboard), indent=2, ensure_ascii=False)
        + "\n"
        for dashboard in DASHBOARDS
    }


def main(arguments: Sequence[str]) -> int:
    """Writes the dashboards, or checks them."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path} is not current: run python {Path(__file__).name}", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
