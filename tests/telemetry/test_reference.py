from pathlib import Path

from damagewatch.telemetry.reference import described, markdown

PAGE = Path(__file__).parents[2] / "docs/metrics.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == markdown(), (
        "run: python -m damagewatch.telemetry.reference > docs/metrics.md"
    )


def test_every_metric_is_named_once() -> None:
    names = [metric.name for metric in described()]
    assert len(set(names)) == len(names) > 30
