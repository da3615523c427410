"""`damagewatch capacity`, and that docs/capacity.md shows what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from damagewatch.cli.app import app
from damagewatch.cli.failure import Failure

PAGE = Path(__file__).parents[2] / "docs/capacity.md"


def printed(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["capacity", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--years", "1", "--tenants", "20"),
        ("--photos-per-day", "5000", "--photos-per-day", "50000"),
        ("--show-costs",),
    ],
)
def test_the_page_shows_what_is_printed(arguments):
    page = PAGE.read_text()
    for line in printed(*arguments):
        assert "| " + " | ".join(line.split("\t")) + " |" in page


def test_json_has_the_plan_of_each_demand():
    plans = [
        json.loads(line) for line in printed("--json", "--photos-per-day", "1000", "--photos-per-day", "1e6")
    ]
    assert [plan["photos_a_day"] for plan in plans] == [1000, 1e6]
    assert [plan["search"] for plan in plans] == ["exact", "graph"]


def test_a_cost_of_ones_own_counts():
    dear, cheap = (
        json.loads(printed("--json", "--photos-per-day", "1e7", "--cost", f"cpu_ms={ms}")[0])
        for ms in (100, 50)
    )
    assert cheap["pods"] == pytest.approx(dear["pods"] / 2, abs=1)


@pytest.mark.parametrize("cost", ["cpu=1", "cpu_ms=fast", "cpu_ms=0", "cpu_ms=nan", "judging=1.1", "cpu_ms"])
def test_a_cost_that_is_none_is_refused_by_name(cost):
    with pytest.raises(Failure, match=f"--cost {cost}"):
        CliRunner().invoke(app, ["capacity", "--cost", cost], catch_exceptions=False)


def test_simulation_shows_where_it_stops():
    pytest.importorskip("simpy")
    head, *rows = (line.split("\t") for line in printed("--simulate"))
    assert head[0] == "pods"
    largest = [float(row[-1]) for row in rows]
    smallest = [float(row[1]) for row in rows]
    assert smallest[-1] == pytest.approx(smallest[-2], rel=0.05), (
        "36 pods do no more than 24 partitions allow"
    )
    assert smallest[3] > 8 * smallest[0]
    assert max(largest) < 6, "48 CPUs, and 11 core-seconds a photo"
    page = PAGE.read_text()
    for row in rows:
        assert "| " + " | ".join(row) + " |" in page
