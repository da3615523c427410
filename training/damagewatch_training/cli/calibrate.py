"""`damagewatch-train calibrate`: signals of a pair to a probability."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich import print as show

from damagewatch.cli.failure import Failure
from damagewatch.vision.models import Models
from damagewatch_training.cli.parameters import MODELS, Data, Folder, Seed
from damagewatch_training.data import sources
from damagewatch_training.evaluate.kept import keeping

KEPT = Path("runs/kept")
PAGE = Path("runs/calibration.html")


def fit_calibration(
    root: Data,
    folder: Folder = MODELS,
    judged: Annotated[
        Path | None,
        typer.Option(
            help="More pairs judged by eye: CSV with columns a, b, verdict. None: training/data-lists, if there.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    photos: Annotated[int, typer.Option(help="How many train photos to look at.", min=50)] = 1500,
    again: Annotated[int, typer.Option(help="How many of them to photograph again.", min=20)] = 300,
    returning: Annotated[
        float,
        typer.Option(
            help="Share of the photos in the field that show a damage seen before.", min=1e-5, max=0.5
        ),
    ] = 0.003,
    page: Annotated[Path, typer.Option(help="Where the reliability plot goes.")] = PAGE,
    keep: Annotated[Path, typer.Option(help="Where answers of the models are kept for the next run.")] = KEPT,
    seed: Seed = 3,
) -> None:
    """Fit the probability of one damage on pairs that the service would verify, and write it to the manifest.

    The figures are of pairs held back from the fit: the photos are parted in five, copies together.

    Example: damagewatch-train calibrate --data photos --page runs/calibration.html
    """
    from damagewatch_training.calibrate import evidence, fit, reliability  # scikit-learn takes seconds
    from damagewatch_training.export import manifest

    known = [*sources.pairs(root), *(sources.read_pairs(judged) if judged else sources.judged())]
    chosen = evidence.choose(sources.train_split(root), known, photos, seed)
    if not chosen:
        raise Failure(f"{root} holds no photos of the split train")
    models = keeping(Models.load(folder), keep)
    seen = evidence.gather(chosen, known, models, again, seed, os.cpu_count() or 1)
    fitted = fit.fitted(seen, sources.groups(known), returning, seed=seed)
    calibration = fitted.calibration
    reliability.write(
        page, fitted.bins, fitted.quality, calibration.base_rate, calibration.thresholds.same_damage
    )
    manifest.update(folder, "calibration", fitted.entry())
    show(
        fitted.quality | {"base_rate": calibration.base_rate, "threshold": calibration.thresholds.same_damage}
    )
    for one in fitted.bins:
        show(
            f"probability {one.least:g} to {one.most:g}: {one.pairs} pairs, said {one.said:.3f},"
            f" true {one.true:.3f}"
        )
    show(f"reliability plot: {page}")
