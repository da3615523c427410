"""Wraps the rules of deploy/prometheus as a PrometheusRule. With --check only tells whether rules.yaml is current."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
RULES = HERE.parents[2] / "deploy/prometheus/rules"


def resource() -> str:
    """The custom resource, as YAML."""
    groups = [
        group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]
    ]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "damagewatch"},
        "spec": {"groups": groups},
    }
    head = "# From deploy/prometheus/rules by `make rules`: change those.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, width=118, allow_unicode=True)


def main() -> int:
    """Writes rules.yaml, or checks it."""
    target = HERE / "rules.yaml"
    current = target.exists() and target.read_text() == resource()
    if "--check" in sys.argv[1:]:
        if not current:
            print("k8s/components/monitoring/rules.yaml is not current: make rules", file=sys.stderr)
        return 0 if current else 1
    target.write_text(resource())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
