"""`damagewatch-train evaluate`: what methods and models are worth."""

from __future__ import annotations

from typing import Any

import typer
from rich import print as show
from typer.core import TyperGroup

from damagewatch_training.cli import chain, retrieval
from damagewatch_training.cli.parameters import MODELS, Data, Folder, Record
from damagewatch_training.data import sources
from damagewatch_training.evaluate import detection

METHOD = "method"


class _MethodByDefault(TyperGroup):
    """`evaluate deploy/models` is `evaluate method deploy/models`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = [METHOD, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MethodByDefault,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Measure methods, experiments and the shipped models.\n\n"
    "`evaluate METHOD` is short for `evaluate method METHOD`.\n\n"
    "Example: damagewatch-train evaluate deploy/models --data photos",
)
app.command(METHOD)(retrieval.evaluate_method)
app.command("items")(retrieval.list_items)
app.command("stream")(chain.evaluate_stream)
app.command("copies")(chain.evaluate_copies)
app.command("pairs")(chain.evaluate_pairs)


@app.command("detector")
def evaluate_detector(root: Data, folder: Folder = MODELS, record: Record = False) -> None:
    """Dice over the pixels of all val photos, and the share of their damages that the service reports."""
    figures = detection.detector(folder, sources.damage_polygons(root, "val"))
    show(figures)
    if record:
        from damagewatch_training.export import manifest  # which needs torch

        manifest.update(folder, "detector", {"quality": figures})
