import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from damagewatch_training.evaluate import report
from damagewatch_training.evaluate.methods import unit
from damagewatch_training.evaluate.protocol import Measured, beyond_noise, difference, measure
from damagewatch_training.evaluate.task import Item, Task

from ..vision.pictures import scene

DAMAGES = 40


def task(file: Path = Path("none")) -> Task:
    """Two queries for each of many damages."""
    owner = np.repeat(np.arange(DAMAGES), 2)
    relevant = owner[:, None] == np.arange(DAMAGES)
    queries = tuple(Item(f"q{i}", file) for i in range(len(owner)))
    gallery = tuple(Item(f"g<b>{i}", file) for i in range(DAMAGES))
    return Task(queries, gallery, relevant, np.zeros_like(relevant), owner, "by hand & more")


def method(name: str, noise: float, seed: int = 0, made: Task | None = None) -> Measured:
    rng = np.random.default_rng(seed)
    right = np.eye(DAMAGES)
    features = np.vstack([np.repeat(right, 2, axis=0), right]) + noise * rng.standard_normal(
        (3 * DAMAGES, DAMAGES)
    )
    return measure(name, unit(features), made or task(), resamples=200)


def test_a_perfect_method_has_nothing_left_to_gain() -> None:
    perfect = method("perfect", 0.0)
    for name in report.HEADLINE:
        assert perfect.value(name) == 1
        assert perfect.interval(name) == (1, 1)


def test_an_interval_holds_the_figure_and_is_narrower_for_more_damages() -> None:
    noisy = method("noisy", 0.35)
    low, high = noisy.interval("any_hit_at_1")
    assert low < noisy.value("any_hit_at_1") < high
    # A standard error of a mean over 40 damages, each of them 0, 1/2 or 1.
    assert high - low < 4 * 0.5 / np.sqrt(DAMAGES)


def test_better_beyond_noise() -> None:
    good, bad = method("good", 0.2), method("bad", 0.6)
    assert beyond_noise(good, bad, "map")
    assert not beyond_noise(bad, good, "map")
    assert not beyond_noise(good, good, "map")
    gain, low, high = difference(good, bad, "map")
    assert low <= gain <= high
    assert gain == pytest.approx(good.value("map") - bad.value("map"))


def test_a_comparison_marks_the_better_and_what_cannot_be_told_from_it() -> None:
    rows = report.comparison([method("a", 0.25), method("b", 0.25, seed=1), method("c", 0.9)], ("map",))
    assert [("=" in row[1], "*" in row[1]) for row in rows] == [(True, False), (True, False), (False, False)]
    rows = report.comparison([method("a", 0.2), method("c", 0.9)], ("map",))
    assert [("=" in row[1], "*" in row[1]) for row in rows] == [(False, True), (False, False)]


def test_the_report_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), scene(80, 60))
    made = task(tmp_path / "p.png")
    report.write(tmp_path / "r" / "report.html", method("noisy <i>", 0.4, made=made), made)
    page = (tmp_path / "r" / "report.html").read_text()
    assert "by hand &amp; more" in page
    assert "<b>" not in page and "<i>" not in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert set(re.findall(r'src="(.{15})', page)) == {"data:image/jpeg"}
    assert page.count("<svg") == 2
    for title in ("The best", "Near misses", "The worst"):
        assert title in page


def test_the_page_of_a_comparison(tmp_path: Path) -> None:
    report.write_comparison(tmp_path / "c.html", [method("a", 0.2), method("b", 0.6)], task())
    page = (tmp_path / "c.html").read_text()
    assert "a above b" in page
    assert page.count("<polyline") == 4
