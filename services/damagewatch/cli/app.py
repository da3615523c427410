"""The application: its commands, and how mistakes are told."""

from __future__ import annotations

import os
import sys

import typer

import damagewatch
from damagewatch.cli import (
    broker,
    capacity,
    compare,
    deadletters,
    demo,
    index,
    inspect,
    photos,
    reindex,
    replay,
    scan,
    shadow,
    stream,
)
from damagewatch.cli.failure import code_of, explain
from damagewatch.cli.output import note

app = typer.Typer(
    name="damagewatch",
    help=(
        "The same damage, photographed again, found in another claim.\n\n"
        "damagewatch reads the stream of claim photos from Kafka, finds every damage, remembers it, and "
        "publishes an alert the moment a damage has been seen before in another claim.\n\n"
        "Start with `damagewatch demo`; without Kafka, with `damagewatch scan DIR`."
    ),
    rich_markup_mode="markdown",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"damagewatch {damagewatch.version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print it and exit."
    ),
) -> None:
    pass


for commands in (
    demo,
    stream,
    deadletters,
    index,
    scan,
    photos,
    compare,
    broker,
    inspect,
    capacity,
    reindex,
    replay,
    shadow,
):
    commands.register(app)


def main() -> None:
    """Runs the command line: exit code 0 good, 1 failed, 2 wrong usage; 130 after Ctrl-C."""
    try:
        app()
    except (KeyboardInterrupt, EOFError):
        sys.exit(130)
    except Exception as error:
        reason = explain(error)
        if reason is None or _debugging():
            raise
        note(f"damagewatch: {reason}")
        sys.exit(code_of(error))


def _debugging() -> bool:
    """DAMAGEWATCH_DEBUG by itself: the other settings may be what is wrong."""
    return os.environ.get("DAMAGEWATCH_DEBUG", "").lower() in {"1", "true", "t", "yes", "y", "on"}
