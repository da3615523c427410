"""`damagewatch-train`: from photos to the folder of models that the service loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich import print as show

from damagewatch.vision.models import Models
from damagewatch_training import (
    calibrate,
    data,
    detector,
    embedder,
    evaluate,
    local_features,
    manifest,
    views,
)

Data = Annotated[Path, typer.Option("--data", help="The root of the photos.", exists=True, file_okay=False)]
Run = Annotated[Path, typer.Option(help="Where rendered views and checkpoints lie.")]
Folder = Annotated[Path, typer.Option("--models", help="The folder of models that the service loads.")]
Threads = Annotated[int, typer.Option(help="Threads of torch.", min=1)]
Seed = Annotated[int, typer.Option(help="All chance comes from it.")]
Record = Annotated[bool, typer.Option("--record", help="Write the figures into the manifest.")]

RUN = Path("runs")
MODELS = Path("deploy/models")

app = typer.Typer(
    name="damagewatch-train",
    help="From photos to the folder of models that the service loads.\n\n"
    "In order: views, the teacher (see `views --help`), train, export, manifest, calibrate, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
train_app = typer.Typer(no_args_is_help=True, help="Train a network, or go on where a training was stopped.")
export_app = typer.Typer(no_args_is_help=True, help="Write an ONNX file, checked against torch.")
evaluate_app = typer.Typer(no_args_is_help=True, help="Measure the shipped models on val photos.")
app.add_typer(train_app, name="train")
app.add_typer(export_app, name="export")
app.add_typer(evaluate_app, name="evaluate")


@app.command("views")
def render_views(
    root: Data,
    run: Run = RUN,
    count: Annotated[int, typer.Option(help="Rephotographs of each window.", min=1)] = 6,
    seed: Seed = 1,
) -> None:
    """Render windows of all training photos, clean and photographed again, for the embedder.

    Then write the teacher's embeddings of them, in the teacher's own environment:
    `python -m damagewatch_training.teacher --model MODEL --data DATA --folder RUN`.
    """
    if not (run / "windows.npz").exists():
        views.list_windows(data.training_photos(root), run, seed)
    views.render(root, run, count, seed)


@train_app.command("detector")
def train_detector(
    root: Data,
    run: Run = RUN,
    epochs: Annotated[int, typer.Option(min=1)] = detector.Settings().epochs,
    threads: Threads = 2,
    seed: Seed = 1,
) -> None:
    """Train the detector on the photos with damage polygons."""
    torch.set_num_threads(threads)
    allowed = {photo.name for photo in data.training_photos(root)}
    photos = [photo for photo in data.damage_polygons(root, "train") if photo.name in allowed]
    detector.train(photos, run / "detector", detector.Settings(epochs=epochs, seed=seed))


@train_app.command("embedder")
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


@export_app.command("detector")
def export_detector(run: Run = RUN, folder: Folder = MODELS) -> None:
    """The detector's last checkpoint."""
    show(
        f"cosine to torch {detector.export(detector.trained(run / 'detector'), folder / 'detector.onnx'):.6f}"
    )


@export_app.command("embedder")
def export_embedder(run: Run = RUN, folder: Folder = MODELS) -> None:
    """The embedder's last checkpoint."""
    show(
        f"cosine to torch {embedder.export(embedder.trained(run / 'embedder'), folder / 'embedder.onnx'):.6f}"
    )


@export_app.command("local-features")
def export_local_features(folder: Folder = MODELS) -> None:
    """XFeat with its published weights."""
    show(f"cosine to torch {local_features.export(folder / 'xfeat.onnx'):.6f}")


@app.command("manifest")
def write_manifest(
    version: Annotated[str, typer.Argument(help="Of the set of models.")], folder: Folder = MODELS
) -> None:
    """Write manifest.json with the hashes of the exported files, and check that the service loads them."""
    manifest.write(folder, version)
    show(dict(Models.load(folder).versions))


@app.command("calibrate")
def fit_calibration(
    root: Data,
    folder: Folder = MODELS,
    photos: Annotated[int, typer.Option(help="How many train photos to look at.", min=50)] = 800,
    again: Annotated[int, typer.Option(help="How many of them to photograph again.", min=20)] = 300,
    seed: Seed = 3,
) -> None:
    """Fit the probability of one damage on pairs that the service would verify, and write it to the manifest."""
    known = data.pairs(root)
    chosen = calibrate.choose(data.train_split(root), known, photos, seed)
    evidence = calibrate.candidates(chosen, known, Models.load(folder), again, seed)
    fitted = calibrate.fitted(evidence)
    manifest.update(folder, "calibration", fitted.entry())
    show(fitted.quality)


@evaluate_app.command("detector")
def evaluate_detector(root: Data, folder: Folder = MODELS, record: Record = False) -> None:
    """Dice over the pixels of all val photos, and the share of their damages that the service reports."""
    figures = evaluate.detector(folder, data.damage_polygons(root, "val"))
    show(figures)
    if record:
        manifest.update(folder, "detector", {"quality": figures})


@evaluate_app.command("embedder")
def evaluate_embedder(
    root: Data,
    folder: Folder = MODELS,
    count: Annotated[int, typer.Option("--views", help="Rephotographs of each damage.", min=1)] = 2,
    seed: Seed = 7,
    record: Record = False,
) -> None:
    """Rank-1 and mAP on val damages photographed again, beside those of pooled ImageNet features."""
    task = evaluate.rephotographed(data.damage_polygons(root, "val"), count, seed)
    figures = {
        "shipped": evaluate.embedder(Models.load(folder).embedder.embed, task),
        "imagenet_efficientnet_lite0_224": evaluate.embedder(evaluate.imagenet_embedder(), task),
    }
    show(figures)
    if record:
        manifest.update(folder, "embedder", {"quality": figures})


@evaluate_app.command("pairs")
def evaluate_pairs(root: Data, folder: Folder = MODELS) -> None:
    """The share of the pairs judged by eye that alert, by verdict, of pairs with a val photo."""
    train = {photo.name for photo in data.train_split(root)}
    held_out = [pair for pair in data.pairs(root) if not {pair.a, pair.b} <= train]
    show(evaluate.pairs(folder, root, held_out))


@evaluate_app.command("returns")
def evaluate_returns(
    root: Data,
    folder: Folder = MODELS,
    count: Annotated[int, typer.Option("--photos", help="How many val photos.", min=50)] = 400,
    again: Annotated[int, typer.Option(help="How many of them come again.", min=20)] = 100,
    seed: Seed = 11,
) -> None:
    """Val photos that come again, rephotographed, a fifth of them mirrored: how many alert, and how many falsely."""
    photos = [*data.damage_polygons(root, "val"), *data.severity(root, "val")]
    chosen = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))[:count]]
    show(evaluate.returns(folder, chosen, data.pairs(root), again, seed))


def main() -> None:
    """Runs the command line."""
    app()
