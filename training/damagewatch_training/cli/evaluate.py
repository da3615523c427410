"""`damagewatch-train evaluate`: what methods and models are worth."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from rich import print as show

from damagewatch.vision.models import Models
from damagewatch_training.cli import chain
from damagewatch_training.cli.parameters import MODELS, Data, Folder, Record, Seed
from damagewatch_training.data import sources
from damagewatch_training.evaluate import shipped as evaluate
from damagewatch_training.export import manifest

app = typer.Typer(no_args_is_help=True, help="Measure methods, experiments and the shipped models.")
app.command("stream")(chain.evaluate_stream)
app.command("copies")(chain.evaluate_copies)


@app.command("detector")
def evaluate_detector(root: Data, folder: Folder = MODELS, record: Record = False) -> None:
    """Dice over the pixels of all val photos, and the share of their damages that the service reports."""
    figures = evaluate.detector(folder, sources.damage_polygons(root, "val"))
    show(figures)
    if record:
        manifest.update(folder, "detector", {"quality": figures})


@app.command("embedder")
def evaluate_embedder(
    root: Data,
    folder: Folder = MODELS,
    count: Annotated[int, typer.Option("--views", help="Rephotographs of each damage.", min=1)] = 2,
    seed: Seed = 7,
    record: Record = False,
) -> None:
    """Rank-1 and mAP on val damages photographed again, beside those of pooled ImageNet features."""
    task = evaluate.rephotographed(sources.damage_polygons(root, "val"), count, seed)
    figures = {
        "shipped": evaluate.embedder(Models.load(folder).embedder.embed, task),
        "imagenet_efficientnet_lite0_224": evaluate.embedder(evaluate.imagenet_embedder(), task),
    }
    show(figures)
    if record:
        manifest.update(folder, "embedder", {"quality": figures})


@app.command("pairs")
def evaluate_pairs(root: Data, folder: Folder = MODELS) -> None:
    """The share of the pairs judged by eye that alert, by verdict, of pairs with a val photo."""
    train = {photo.name for photo in sources.train_split(root)}
    held_out = [pair for pair in sources.pairs(root) if not {pair.a, pair.b} <= train]
    show(evaluate.pairs(folder, root, held_out))


@app.command("returns")
def evaluate_returns(
    root: Data,
    folder: Folder = MODELS,
    count: Annotated[int, typer.Option("--photos", help="How many val photos.", min=50)] = 400,
    again: Annotated[int, typer.Option(help="How many of them come again.", min=20)] = 100,
    seed: Seed = 11,
) -> None:
    """Val photos that come again, rephotographed, a fifth of them mirrored: how many alert, and how many falsely."""
    photos = [*sources.damage_polygons(root, "val"), *sources.severity(root, "val")]
    chosen = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))[:count]]
    show(evaluate.returns(folder, chosen, sources.pairs(root), again, seed))
