"""`damagewatch-train statistics`: what the service measures drift against."""

from __future__ import annotations

import random
from typing import Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.parameters import Paths
from damagewatch.folders import photos_in
from damagewatch.vision.models import Models
from damagewatch_training.cli.parameters import MODELS, Folder
from damagewatch_training.export import manifest
from damagewatch_training.export.statistics import TooFewPhotosError, measure

MAX_BYTES = 50_000_000


def measure_statistics(
    paths: Paths,
    folder: Folder = MODELS,
    photos: Annotated[int, typer.Option(help="Photos at most, chosen by chance.", min=200)] = 2000,
) -> None:
    """Measure where the embeddings of ordinary photos lie, and write it into the manifest (`embedder.statistics`).

    The service compares recent photos with it. Give photos as they are expected on the stream; after another
    embedder, measure again.

    Examples:

      damagewatch-train statistics claims/2026-10/
    """
    files = list(photos_in(paths))
    chosen = random.Random(0).sample(files, min(photos, len(files)))
    with output.progress() as bar:
        task = bar.add_task("embedding", total=len(chosen))
        contents = (file.read(MAX_BYTES) for file in chosen)
        try:
            found = measure(Models.load(folder), contents, lambda: bar.advance(task))
        except TooFewPhotosError as error:
            raise Failure(str(error)) from None
    manifest.update(folder, "embedder", {"statistics": found})
    output.note(f"{folder / 'manifest.json'}: {found['photos']} photos, spread {found['spread']:.3f}")
