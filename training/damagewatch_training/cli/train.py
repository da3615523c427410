"""`damagewatch-train train`: a network, or on from where a training was stopped."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from damagewatch_training.cli.parameters import RUN, Data, Run, Seed, Threads
from damagewatch_training.data import sources
from damagewatch_training.detector import train as detector
from damagewatch_training.embedder import train as embedder

app = typer.Typer(no_args_is_help=True, help="Train a network, or go on where a training was stopped.")


@app.command("detector")
def train_detector(
    root: Data,
    run: Run = RUN,
    epochs: Annotated[int, typer.Option(min=1)] = detector.Settings().epochs,
    threads: Threads = 2,
    seed: Seed = 1,
) -> None:
    """Train the detector on the photos with damage polygons."""
    torch.set_num_threads(threads)
    allowed = {photo.name for photo in sources.training_photos(root)}
    photos = [photo for photo in sources.damage_polygons(root, "train") if photo.name in allowed]
    detector.train(photos, run / "detector", detector.Settings(epochs=epochs, seed=seed))


@app.command("embedder")
def train_embedder(
    run: Run = RUN,
    steps: Annotated[int, typer.Option(min=1)] = embedder.Settings().steps,
    threads: Threads = 2,
    seed: Seed = 1,
) -> None:
    """Train OSNet x1_0 on rendered views and a teacher's embeddings of them."""
    torch.set_num_threads(threads)
    for file in ("views.npy", "teacher.npy"):
        if not (run / file).exists():
            raise typer.BadParameter(f"{run / file} is missing: see `damagewatch-train views --help`")
    embedder.train(run, run / "embedder", embedder.Settings(steps=steps, seed=seed))
