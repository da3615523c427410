"""The whole of `damagewatch-train`."""

from __future__ import annotations

import sys

import typer

from damagewatch.cli.failure import code_of, explain
from damagewatch.cli.output import note
from damagewatch_training.cli import calibrate, data, evaluate, export, look, retrieval, statistics, train
from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.experiment.config import ConfigError
from damagewatch_training.experiment.record import OtherExperiment

app = typer.Typer(
    name="damagewatch-train",
    help="From photos to the folder of models that the service loads.\n\n"
    "In order: views, the teacher (see `views --help`), train, export, manifest, calibrate, evaluate.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.app, name="data")
app.command("views")(data.render_views)
app.add_typer(train.app, name="train")
app.add_typer(export.app, name="export")
app.command("manifest")(export.write_manifest)
app.command("card")(export.write_card)
app.command("statistics")(statistics.measure_statistics)
app.command("calibrate")(calibrate.fit_calibration)
app.add_typer(evaluate.app, name="evaluate")
app.command("compare")(retrieval.compare)
app.command("activation-maps")(look.activation_maps)
app.command("project")(look.project)


def main() -> None:
    """Runs the command line: exit code 0 good, 1 failed, 2 wrong usage; 130 after Ctrl-C."""
    try:
        app()
    except (KeyboardInterrupt, EOFError):
        sys.exit(130)
    except Exception as error:
        reason = (
            str(error)
            if isinstance(error, DataRefusedError | ConfigError | OtherExperiment)
            else explain(error)
        )
        if reason is None:
            raise
        note(f"damagewatch-train: {reason}")
        sys.exit(2 if isinstance(error, ConfigError) else code_of(error))
