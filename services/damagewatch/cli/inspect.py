"""Commands that show what is set up: settings and models."""

from __future__ import annotations

from typing import Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.parameters import Json
from damagewatch.settings import Settings, rows

PANEL = "Set-up"

models_app = typer.Typer(no_args_is_help=True, help="The shipped models: what they are, whether whole.")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=PANEL)(settings)
    app.add_typer(models_app, name="models", rich_help_panel=PANEL)


def settings(
    json: Json = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only those not at their default.")] = False,
) -> None:
    """Print every setting: its environment variable, value, default and meaning. Secrets are masked.

    Examples:

      damagewatch settings --changed

      DAMAGEWATCH_INDEX__URL=http://qdrant:6334 damagewatch settings
    """
    shown = [row for row in rows(Settings()) if not changed or row[1] != row[2]]
    if json:
        for variable, value, default, meaning in shown:
            output.json_line({"variable": variable, "value": value, "default": default, "meaning": meaning})
        return
    output.table(("variable", "value", "default", "meaning"), shown)


@models_app.command("list")
def list_models(json: Json = False) -> None:
    """Print the models, their versions, and the quality that was measured."""
    from damagewatch.vision.manifest import read_manifest

    parts = read_manifest(Settings().models.directory).models
    if json:
        for part, model in parts.items():
            output.json_line({"part": part, "version": model.version} | model.model_dump(mode="json"))
        return
    output.table(
        ("part", "name", "version", "file", "measured"),
        [
            (part, model.name, model.version, model.file, _measured(model.quality))
            for part, model in parts.items()
        ],
    )


@models_app.command("verify")
def verify_models() -> None:
    """Check every model file against the manifest: its hash, its inputs and outputs, and that it runs."""
    from damagewatch.assembly import load_models
    from damagewatch.vision.manifest import ModelRefusedError

    configured = Settings()
    try:
        models = load_models(configured)
    except ModelRefusedError as error:
        raise Failure(str(error)) from None
    for part, version in models.versions.items():
        output.line(f"{part}\t{version}\tok")


def _measured(quality: object) -> str:
    if not isinstance(quality, dict):
        return ""
    figures = {name: value for name, value in quality.items() if isinstance(value, int | float | str)}
    return ", ".join(f"{name} {value}" for name, value in figures.items())
