"""The report of one method on one task: figures, plots, and contact sheets to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from damagewatch.report.elements import Element
from damagewatch_training.evaluate import metrics, page
from damagewatch_training.evaluate.protocol import Measured, beyond_noise, difference
from damagewatch_training.evaluate.task import Task, crop

SHOWN = 12
SIDE = 180

DEFINITIONS = (
    "any_hit_at_k: the share of queries with a right item among the first k (the CMC of Market-1501). "
    "all_hits_at_k: the share whose first k hold as many right items as they can, min(k, n) of n. "
    "map: the mean average precision, not interpolated. "
    "pooled_ap and recall_at_precision: all pairs of all queries under one threshold; pairs of equal score lie on "
    "one side of it. "
    "feasible: what a perfect ranking reaches at k. "
    "In brackets: 95 % of a bootstrap over damages. Junk (other damages on the query's own photo) is left out of "
    "rankings, neither right nor wrong; of equally similar items the wrong ones come first."
)
HEADLINE = (
    *(f"any_hit_at_{k}" for k in metrics.KS),
    "map",
    "pooled_ap",
    *(f"recall_at_precision_{round(100 * p)}" for p in metrics.PRECISIONS),
    f"candidate_recall_at_{metrics.CANDIDATES}",
)


def rows(measured: Measured) -> list[tuple[str, str, str]]:
    """Name, figure and interval of every figure."""
    told = []
    for name in measured.figures:
        low, high = measured.interval(name)
        told.append((name, f"{measured.value(name):.4f}", f"{low:.4f} to {high:.4f}"))
    return told


def write(path: Path, measured: Measured, task: Task) -> None:
    """Writes the report of a method.

    Raises:
        OSError: The file cannot be written.
    """
    page.write(path, f"{measured.method} on {len(task.queries)} queries", _parts(measured, task))


def _parts(measured: Measured, task: Task) -> Iterator[Element]:
    yield page.paragraph(task.about)
    yield page.paragraph(DEFINITIONS)
    yield page.table(("figure", "value", "95 % interval"), rows(measured))
    ks, ranks = list(range(1, max(metrics.KS) + 1)), measured.ranks
    means = {
        "any hit": [float(ranks.any_hit(k).mean()) for k in ks],
        "all hits": [float(ranks.all_hits(k).mean()) for k in ks],
        "recall": [float(ranks.recall(k).mean()) for k in ks],
        "feasible recall": [float(ranks.feasible_recall(k).mean()) for k in ks],
        "F1": [float(ranks.f1(k).mean()) for k in ks],
        "feasible F1": [float(ranks.feasible_f1(k).mean()) for k in ks],
    }
    yield page.heading("At the first k of the ranking")
    yield page.plot({name: (ks, values) for name, values in means.items()}, "k", "share", max(ks))
    yield page.heading("Precision and recall of all pairs")
    yield page.plot(
        {measured.method: (measured.recall.tolist(), measured.precision.tolist())}, "recall", "precision"
    )
    for title, chosen in _sheets(measured, task):
        yield page.heading(title)
        yield page.sheet(_figure(measured, task, query) for query in chosen)


def _sheets(measured: Measured, task: Task) -> Iterator[tuple[str, Sequence[int]]]:
    asking = np.flatnonzero(task.relevant.any(axis=1))
    right = np.where(task.relevant, measured.similarity, -np.inf)[asking].max(axis=1)
    wrong = np.where(task.relevant | task.junk, -np.inf, measured.similarity)[asking].max(axis=1)
    margin = right - wrong
    order = np.argsort(margin, kind="stable")
    missed, found = order[margin[order] <= 0], order[margin[order] > 0]
    yield "The best: right, and far from all that is wrong", asking[found[::-1][:SHOWN]].tolist()
    yield "Near misses: something wrong came first, by little", asking[missed[::-1][:SHOWN]].tolist()
    yield "The worst: something wrong came first, by much", asking[missed[:SHOWN]].tolist()
    yield "Hardly found: right, by little", asking[found[:SHOWN]].tolist()


def _figure(measured: Measured, task: Task, query: int) -> tuple[str, tuple[page.Image, ...]]:
    """A query, what came first, and the right item."""
    scores = np.where(task.junk[query], -np.inf, measured.similarity[query])
    first = int(scores.argmax())
    right = int(np.where(task.relevant[query], scores, -np.inf).argmax())
    rank = 1 + int((scores[~task.relevant[query]] >= scores[right]).sum())
    shown = [task.queries[query], *(task.gallery[g] for g in dict.fromkeys((first, right)))]
    caption = f"{shown[0].name}; first {task.gallery[first].name} ({scores[first]:.3f})"
    if first != right:
        caption += f"; right {task.gallery[right].name} ({scores[right]:.3f}), rank {rank}"
    return caption, tuple(crop(item, SIDE) for item in shown)


def best_of(measured: Sequence[Measured], name: str) -> Measured:
    """The method with the highest figure."""
    return max(measured, key=lambda one: one.value(name))


def comparison(measured: Sequence[Measured], names: Sequence[str] = HEADLINE) -> list[list[str]]:
    """A row for each method: each figure with its interval.

    A figure is marked `*` where it is better than every other method's beyond noise, and `=` where it is the best or
    cannot be told from the best: 95 % of a paired bootstrap over damages.
    """
    table = []
    for one in measured:
        cells = [one.method]
        for name in names:
            best = best_of(measured, name)
            others = [other for other in measured if other is not one]
            mark = ""
            if others and all(beyond_noise(one, other, name) for other in others):
                mark = "*"
            elif one is best or not beyond_noise(best, one, name):
                mark = "="
            low, high = one.interval(name)
            cells.append(f"{one.value(name):.3f}{mark} [{low:.3f}, {high:.3f}]")
        table.append(cells)
    return table


def against(measured: Sequence[Measured], names: Sequence[str] = HEADLINE) -> list[list[str]]:
    """How far the first method is above each other one, with the interval of the difference."""
    first, *others = measured
    table = []
    for other in others:
        cells = [f"{first.method} above {other.method}"]
        for name in names:
            gain, low, high = difference(first, other, name)
            cells.append(f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]")
        table.append(cells)
    return table


def write_comparison(path: Path, measured: Sequence[Measured], task: Task) -> None:
    """Writes the page of several methods on one task.

    Raises:
        OSError: The file cannot be written.
    """
    ks = list(range(1, max(metrics.KS) + 1))
    marks = (
        "* better than every other method beyond noise; = the best, or not to be told from it (a paired bootstrap "
        "over damages, 95 %)."
    )
    cmc = {one.method: (ks, [float(one.ranks.any_hit(k).mean()) for k in ks]) for one in measured}
    curve = {one.method: (one.recall.tolist(), one.precision.tolist()) for one in measured}
    parts = [
        page.paragraph(task.about),
        page.paragraph(DEFINITIONS),
        page.paragraph(marks),
        page.table(("method", *HEADLINE), comparison(measured)),
        page.table(("difference", *HEADLINE), against(measured)),
        page.heading("Any hit among the first k"),
        page.plot(cmc, "k", "share of queries", max(ks)),
        page.heading("Precision and recall of all pairs"),
        page.plot(curve, "recall", "precision"),
    ]
    page.write(path, f"{len(measured)} methods on {len(task.queries)} queries", parts)
