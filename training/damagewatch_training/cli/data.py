"""`damagewatch-train data`, and the views that the embedder trains on."""

from __future__ import annotations

from typing import Annotated

import typer

from damagewatch_training.cli.parameters import RUN, Data, Run, Seed
from damagewatch_training.data import sources
from damagewatch_training.embedder import views

app = typer.Typer(no_args_is_help=True, help="Photos, labels and pairs: brought in, checked, cut, split.")


def render_views(
    root: Data,
    run: Run = RUN,
    count: Annotated[int, typer.Option(help="Rephotographs of each window.", min=1)] = 6,
    seed: Seed = 1,
) -> None:
    """Render windows of all training photos, clean and photographed again, for the embedder.

    Then write the teacher's embeddings of them, in the teacher's own environment:
    `python -m damagewatch_training.embedder.teacher --model MODEL --data DATA --folder RUN`.
    """
    if not (run / "windows.npz").exists():
        views.list_windows(sources.training_photos(root), run, seed)
    views.render(root, run, count, seed)
