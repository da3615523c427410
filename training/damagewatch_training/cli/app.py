"""The whole of `damagewatch-train`."""

from __future__ import annotations

import typer

from damagewatch_training.cli import calibrate, data, evaluate, export, train

app = typer.Typer(
    name="damagewatch-train",
    help="From photos to the folder of models that the service loads.\n\n"
    "In order: views, the teacher (see `views --help`), train, export, manifest, calibrate, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.app, name="data")
app.command("views")(data.render_views)
app.add_typer(train.app, name="train")
app.add_typer(export.app, name="export")
app.command("manifest")(export.write_manifest)
app.command("calibrate")(calibrate.fit_calibration)
app.add_typer(evaluate.app, name="evaluate")


def main() -> None:
    """Runs the command line."""
    app()
