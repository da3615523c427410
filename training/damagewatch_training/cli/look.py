"""`damagewatch-train activation-maps` and `project`: looking into an embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from damagewatch.cli.output import note, progress
from damagewatch_training.cli.parameters import Seed, Threads
from damagewatch_training.cli.retrieval import (
    KEEP,
    Gallery,
    Keep,
    Labels,
    Method,
    Query,
    Root,
    Second,
    make_task,
    vectors,
)
from damagewatch_training.evaluate import page
from damagewatch_training.evaluate.methods import embedder
from damagewatch_training.evaluate.task import Item, Task, crop
from damagewatch_training.look import occlusion, projection

SIDE, THUMBNAIL = 240, 64


def activation_maps(
    method: Method,
    root: Root = None,
    query: Query = None,
    gallery: Gallery = None,
    labels: Labels = None,
    second: Second = "made",
    count: Annotated[int, typer.Option(help="Queries that are looked at.", min=1)] = 12,
    out: Annotated[Path, typer.Option(help="The page that is written.")] = Path("runs/activation-maps.html"),
    keep: Keep = KEEP,
    seed: Seed = 7,
) -> None:
    """Where an embedder looks: what of the likeness of two pictures is lost where one is covered.

    For queries by chance and their right answers: red where covering a fifth of the width and height loses most. Each
    takes the embedder 200 times.

    Example: damagewatch-train activation-maps deploy/models --data photos
    """
    embed = embedder(method)
    task = make_task(root, query, gallery, labels, second=second, keep=keep, seed=seed)
    asking = np.flatnonzero(task.relevant.any(axis=1))
    chosen = sorted(np.random.default_rng(seed).permutation(asking)[:count].tolist())
    figures = []
    with progress("queries") as bar:
        shown = bar.add_task("covering", total=len(chosen))
        for number in chosen:
            right = int(task.relevant[number].argmax())
            one, other = crop(task.queries[number], SIDE), crop(task.gallery[right], SIDE)
            a, b = occlusion.vector(embed, one), occlusion.vector(embed, other)
            losses = occlusion.lost(embed, one, b), occlusion.lost(embed, other, a)
            most = max(float(loss.max()) for loss in losses)
            names = f"{task.queries[number].name} and {task.gallery[right].name}"
            caption = f"{names}: cosine {float(a @ b):.3f}, most lost {most:.3f}"
            maps = occlusion.shown(one, losses[0], most), occlusion.shown(other, losses[1], most)
            figures.append((caption, (one, maps[0], other, maps[1])))
            bar.advance(shown)
    words = (
        "Each figure: a query and where its likeness to the right answer rests; the answer and where its likeness to "
        "the query rests. Blue: nothing is lost when it is covered. Red: the most of both pictures."
    )
    page.write(out, f"Where {method} looks", [page.paragraph(words), page.sheet(figures)])
    note(f"written: {out}")


def project(
    method: Method,
    root: Root = None,
    query: Query = None,
    gallery: Gallery = None,
    labels: Labels = None,
    second: Second = "made",
    count: Annotated[int, typer.Option("--items", help="Pictures on the map, at most.", min=3)] = 2000,
    by: Annotated[
        Literal["tsne", "pca"], typer.Option(help="t-SNE keeps near what is near; PCA is exact and quick.")
    ] = "tsne",
    out: Annotated[Path, typer.Option(help="The page that is written.")] = Path("runs/map.html"),
    keep: Keep = KEEP,
    threads: Threads = 2,
    seed: Seed = 7,
) -> None:
    """An interactive map of the embeddings of a task, with thumbnails: one HTML file, to be opened anywhere.

    Queries and gallery items by chance, each query with its right answers. The page loads nothing from elsewhere.

    Example: damagewatch-train project deploy/models --data photos
    """
    task = make_task(root, query, gallery, labels, second=second, keep=keep, seed=seed)
    found = vectors(method, task, keep, threads)
    chosen = _chosen(task, count, seed)
    kept = found[chosen]
    flat = projection.principal(kept) if by == "pca" else projection.neighbourly(kept, seed)
    points = []
    with progress("pictures") as bar:
        shown = bar.add_task("thumbnails", total=len(chosen))
        for index in chosen:
            item = task.items[index]
            picture = page.data_uri(crop(item, THUMBNAIL), THUMBNAIL)
            points.append(projection.Point(item.name, _group(item, index < len(task.queries)), picture))
            bar.advance(shown)
    projection.write(out, f"{method}: {len(points)} pictures", points, flat, projection.nearest(kept))
    note(f"written: {out}")


def _chosen(task: Task, count: int, seed: int) -> list[int]:
    """Indices of items: queries with their right answers for half of them, then any."""
    rng, queries = np.random.default_rng(seed), len(task.queries)
    first: dict[int, None] = {}
    for query in rng.permutation(queries).tolist():
        if len(first) >= count // 2:
            break
        first |= dict.fromkeys([query, *(queries + np.flatnonzero(task.relevant[query])).tolist()])
    rest = [i for i in rng.permutation(len(task.items)).tolist() if i not in first]
    return sorted([*first, *rest][:count])


def _group(item: Item, asks: bool) -> str:
    return "queries" if asks else str(Path(item.name.partition("#")[0]).parent)
