"""`damagewatch-train calibrate`: signals of a pair to a probability."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import print as show

from damagewatch.vision.models import Models
from damagewatch_training.calibrate import fit
from damagewatch_training.cli.parameters import MODELS, Data, Folder, Seed
from damagewatch_training.data import sources
from damagewatch_training.export import manifest


def fit_calibration(
    root: Data,
    folder: Folder = MODELS,
    photos: Annotated[int, typer.Option(help="How many train photos to look at.", min=50)] = 800,
    again: Annotated[int, typer.Option(help="How many of them to photograph again.", min=20)] = 300,
    seed: Seed = 3,
) -> None:
    """Fit the probability of one damage on pairs that the service would verify, and write it to the manifest."""
    known = sources.pairs(root)
    chosen = fit.choose(sources.train_split(root), known, photos, seed)
    evidence = fit.candidates(chosen, known, Models.load(folder), again, seed)
    fitted = fit.fitted(evidence)
    manifest.update(folder, "calibration", fitted.entry())
    show(fitted.quality)
