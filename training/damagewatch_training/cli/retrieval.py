"""`damagewatch-train evaluate METHOD` and `compare`: one task, one protocol, every method."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray

from damagewatch.cli.output import note, progress, table
from damagewatch.vision.manifest import FILE
from damagewatch_training.cli.parameters import Record, Seed, Threads
from damagewatch_training.data import sources
from damagewatch_training.data.dataset import load
from damagewatch_training.evaluate import report
from damagewatch_training.evaluate.methods import check, features
from damagewatch_training.evaluate.protocol import RESAMPLES, Measured, measure
from damagewatch_training.evaluate.task import Task, labelled, real, rephotographed

R = TypeVar("R")

Method = Annotated[
    str,
    typer.Argument(
        help="A folder of models or of an exported experiment, an ONNX file, features in a .npz (`name`, `x`) or "
        ".npy (rows as `evaluate items` lists them), phash, or imagenet."
    ),
]
Root = Annotated[
    Path | None, typer.Option("--data", help="The root of the photos.", exists=True, file_okay=False)
]
Query = Annotated[
    Path | None, typer.Option(help="Folder of queries, of any domain.", exists=True, file_okay=False)
]
Gallery = Annotated[Path | None, typer.Option(help="Folder of references.", exists=True, file_okay=False)]
Labels = Annotated[
    Path | None,
    typer.Option(help="CSV (query, reference) of what belongs together.", exists=True, dir_okay=False),
]
Second = Annotated[
    Literal["made", "real"],
    typer.Option(help="The second photos: rephotographs, or those that a data set holds of one damage."),
]
Views = Annotated[int, typer.Option(help="Rephotographs of each damage.", min=1)]
Others = Annotated[int, typer.Option(help="Gallery items of other photos, at most.", min=0)]
Known = Annotated[
    list[Path],
    typer.Option(
        help="CSV of further pairs judged by eye (a, b, verdict), beside those of the data.",
        exists=True,
        dir_okay=False,
    ),
]
Keep = Annotated[Path, typer.Option(help="Where rephotographs and features are kept for later runs.")]
Resamples = Annotated[int, typer.Option(help="Of the bootstrap over damages.", min=100)]

KEEP = Path("runs/kept")


def evaluate_method(
    method: Method,
    root: Root = None,
    query: Query = None,
    gallery: Gallery = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="Folder for figures.json and report.html.")] = Path(
        "runs/evaluate"
    ),
    second: Second = "made",
    known: Known = [],  # noqa: B006 - how Typer wants a repeated option
    views: Views = 2,
    others: Others = 4000,
    resamples: Resamples = RESAMPLES,
    record: Record = False,
    keep: Keep = KEEP,
    threads: Threads = 2,
    seed: Seed = 7,
) -> None:
    """How well a method finds a damage again, among thousands.

    With --data: labelled damages of the val split, each photographed again, among all other damages, damaged parts
    and random windows; with --second real, damages of which the data set holds several photos. With --query,
    --gallery and --labels: pictures of any domain (shoeprints, footprints).

    any_hit_at_k: the share of queries with a right item among the first k. all_hits_at_k: the share whose first k
    hold as many right items as they can, min(k, n) of n. Other damages on the query's own photo are left out of the
    ranking (junk, as in Market-1501). Intervals: 95 % of a bootstrap over damages.

    Examples:

    damagewatch-train evaluate deploy/models --data photos

    damagewatch-train evaluate teacher.npz --data photos

    damagewatch-train evaluate phash --query crime-scene --gallery shoes --labels table.csv
    """
    check(method)
    if record and not (Path(method) / FILE).exists():
        raise typer.BadParameter(f"{method} is no folder of models", param_hint="--record")
    task = make_task(
        root, query, gallery, labels, second, known=known, views=views, others=others, keep=keep, seed=seed
    )
    measured = _measured(method, task, keep, threads, resamples)
    told = report.rows(measured)
    table(("figure", "value", "95 % interval"), told)
    _write_figures(out, [measured], task)
    report.write(out / "report.html", measured, task)
    if record:
        from damagewatch_training.export import manifest  # which needs torch

        quality = {name: round(measured.value(name), 4) for name in report.HEADLINE}
        about = {"queries": len(task.queries), "gallery": len(task.gallery), "task": task.sha256[:12]}
        manifest.update(Path(method), "embedder", {"quality": quality | about})
    note(f"written: {out / 'report.html'}")


def compare(
    methods: Annotated[
        list[str], typer.Argument(help="Methods as `evaluate` takes them, the one in question first.")
    ],
    root: Root = None,
    query: Query = None,
    gallery: Gallery = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="Folder for figures.json and report.html.")] = Path(
        "runs/compare"
    ),
    second: Second = "made",
    known: Known = [],  # noqa: B006 - how Typer wants a repeated option
    views: Views = 2,
    others: Others = 4000,
    resamples: Resamples = RESAMPLES,
    keep: Keep = KEEP,
    threads: Threads = 2,
    seed: Seed = 7,
) -> None:
    """A table over methods and experiments: same data, same protocol.

    * marks a figure that is better than every other method's beyond noise; = the best, or what cannot be told from
    it: 95 % of a bootstrap over damages, the same ones for all methods.

    Example: damagewatch-train compare deploy/models imagenet teacher.npz phash --data photos
    """
    for method in methods:
        check(method)
    task = make_task(
        root, query, gallery, labels, second, known=known, views=views, others=others, keep=keep, seed=seed
    )
    measured = [_measured(method, task, keep, threads, resamples) for method in methods]
    table(("method", *report.HEADLINE), report.comparison(measured))
    _write_figures(out, measured, task)
    report.write_comparison(out / "report.html", measured, task)
    note(f"written: {out / 'report.html'}")


def list_items(
    file: Annotated[Path, typer.Argument(help="CSV to write.")],
    root: Root = None,
    query: Query = None,
    gallery: Gallery = None,
    labels: Labels = None,
    second: Second = "made",
    known: Known = [],  # noqa: B006 - how Typer wants a repeated option
    views: Views = 2,
    others: Others = 4000,
    keep: Keep = KEEP,
    seed: Seed = 7,
) -> None:
    """What a task holds, for a method that runs elsewhere: name, file and window of each item, in order.

    The window is in pixels of the upright photo, half open. Write `name` and `x` to a .npz, and evaluate that.

    Example: damagewatch-train evaluate items items.csv --data photos
    """
    task = make_task(
        root, query, gallery, labels, second, known=known, views=views, others=others, keep=keep, seed=seed
    )
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(("name", "file", "x0", "y0", "x1", "y1"))
        for item in task.items:
            box = item.window
            corners = ("", "", "", "") if box is None else (box.x0, box.y0, box.x1, box.y1)
            writer.writerow((item.name, item.file.resolve(), *corners))
    note(f"{len(task.queries)} queries, then {len(task.gallery)} items of the gallery: {file}")


def make_task(
    root: Path | None,
    query: Path | None,
    gallery: Path | None,
    labels: Path | None,
    second: Literal["made", "real"] = "made",
    *,
    known: Sequence[Path] = (),
    views: int = 2,
    others: int = 4000,
    keep: Path = KEEP,
    seed: int = 7,
) -> Task:
    """The task that the options name, with progress.

    Raises:
        typer.BadParameter: They name none.
        DataRefusedError: It cannot be made.
    """
    folders = (query, gallery, labels)
    if root is not None and folders == (None, None, None):
        if second == "real":
            return real(load(root))
        asked = sources.damage_polygons(root, "val")
        rest = [*sources.train_split(root), *sources.severity(root, "val")]
        pairs = sources.pairs(root, known)
        made = rephotographed(asked, rest, pairs, keep, views, others, seed)
        return _last(made, len(asked), "photographing again")
    if root is None and query is not None and gallery is not None and labels is not None:
        return labelled(query, gallery, labels)
    raise typer.BadParameter("give either --data, or all of --query, --gallery and --labels")


def vectors(method: str, task: Task, keep: Path, threads: int) -> NDArray[np.float32]:
    """The features of a task's items, with progress."""
    return _last(features(method, task, keep, threads), len(task.items), method)


def _measured(method: str, task: Task, keep: Path, threads: int, resamples: int) -> Measured:
    return measure(method, vectors(method, task, keep, threads), task, resamples)


def _last(steps: Iterable[object | R], total: int, doing: str) -> R:
    """What comes last, with progress until then."""
    with progress("done") as bar:
        shown = bar.add_task(doing, total=total)
        for done, step in enumerate(steps, 1):
            last = step
            bar.update(shown, completed=step if isinstance(step, int) else min(done, total))
        bar.update(shown, completed=total)
    return last  # type: ignore[return-value]


def _write_figures(out: Path, measured: Sequence[Measured], task: Task) -> None:
    figures = {
        "task": {
            "about": task.about,
            "sha256": task.sha256,
            "queries": len(task.queries),
            "gallery": len(task.gallery),
        },
        "methods": {
            one.method: {
                name: {
                    "value": round(one.value(name), 5),
                    "interval": [round(v, 5) for v in one.interval(name)],
                }
                for name in one.figures
            }
            for one in measured
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
