"""The reference of all metrics, docs/metrics.md: `python -m damagewatch.telemetry.reference > docs/metrics.md`."""

from __future__ import annotations

import numpy as np

from damagewatch.telemetry.drift import LEAST, WINDOW, Drift
from damagewatch.telemetry.metrics import LABELS, Described, Metrics

_INTRODUCTION = f"""\
# Metrics

<!-- Written by `python -m damagewatch.telemetry.reference > docs/metrics.md`: change the code, not this page. -->

The matcher answers Prometheus on `/metrics` of its telemetry port (`DAMAGEWATCH_TELEMETRY__PORT`, 9464), and
probes on `/livez` and `/readyz`. Scrape configuration, rules and alerts are in
[deploy/prometheus](../deploy/prometheus), dashboards in [deploy/grafana](../deploy/grafana), what to do about
each alert in [runbooks](runbooks).

Counters of *decisions* count a photo again when it is read again after an aborted transaction; those of what was
*committed* do not. No label holds a claim, a photo or a tenant: the number of series is bounded by the code.

A histogram has the series `_bucket`, `_sum` and `_count`. The two of the embedding's drift look at the last
{WINDOW:,} photos of a worker, tell NaN before {LEAST} were seen, and are absent where the models' manifest has no
`embedder.statistics` (`damagewatch-train statistics` writes them).

| metric | type | labels | meaning |
|---|---|---|---|
"""

_LABELS = """
| label | holds |
|---|---|
"""

_LIBRARY = """
Beside them the client library's own: `process_*` (CPU seconds, resident memory, open files, start time) and
`python_*` (version, garbage collection).
"""


def described() -> list[Described]:
    """Every metric that a matcher may have."""
    metrics = Metrics()
    metrics.drift(Drift(np.zeros(1, np.float32), 1.0, window=1))
    return metrics.described


def markdown() -> str:
    """The page."""
    rows = (
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.meaning} |\n"
        for each in described()
    )
    labels = (f"| `{name}` | {meaning} |\n" for name, meaning in LABELS.items())
    return _INTRODUCTION + "".join(rows) + _LABELS + "".join(labels) + _LIBRARY


if __name__ == "__main__":
    print(markdown(), end="")
