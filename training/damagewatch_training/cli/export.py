"""`damagewatch-train export` and `manifest`: what the service loads."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import print as show

from damagewatch.vision.models import Models
from damagewatch_training.cli.parameters import MODELS, RUN, Folder, Run
from damagewatch_training.detector import train as detector
from damagewatch_training.embedder import train as embedder
from damagewatch_training.export import local_features, manifest

app = typer.Typer(no_args_is_help=True, help="Write an ONNX file, checked against torch.")


@app.command("detector")
def export_detector(run: Run = RUN, folder: Folder = MODELS) -> None:
    """The detector's last checkpoint."""
    show(
        f"cosine to torch {detector.export(detector.trained(run / 'detector'), folder / 'detector.onnx'):.6f}"
    )


@app.command("embedder")
def export_embedder(run: Run = RUN, folder: Folder = MODELS) -> None:
    """The embedder's last checkpoint."""
    show(
        f"cosine to torch {embedder.export(embedder.trained(run / 'embedder'), folder / 'embedder.onnx'):.6f}"
    )


@app.command("local-features")
def export_local_features(folder: Folder = MODELS) -> None:
    """XFeat with its published weights."""
    show(f"cosine to torch {local_features.export(folder / 'xfeat.onnx'):.6f}")


def write_manifest(
    version: Annotated[str, typer.Argument(help="Of the set of models.")], folder: Folder = MODELS
) -> None:
    """Write manifest.json with the hashes of the exported files, and check that the service loads them."""
    manifest.write(folder, version)
    show(dict(Models.load(folder).versions))
