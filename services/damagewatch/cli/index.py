"""`damagewatch index`: copies of what is remembered, and its tidying up."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.settings import Settings

index_app = typer.Typer(
    no_args_is_help=True,
    help="The index in a folder (DAMAGEWATCH_INDEX__PATH), while no matcher has it open: copies, tidying up.\n\n"
    "An index on a Qdrant server is copied by the server's own snapshots: see docs/runbooks/disaster-recovery.md.",
)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(index_app, name="index", rich_help_panel="Set-up")


@index_app.command("backup")
def backup(
    target: Annotated[Path, typer.Argument(help="A new folder for the copy.", show_default=False)],
) -> None:
    """Copy the index to a new folder, with a digest of every file. Stop the matcher first.

    The crops of the evidence store are not part of it: copy them by the means of their store.

    Examples:

      damagewatch index backup /backup/index-2026-11-23
    """
    from damagewatch.index import backup as copies

    try:
        taken = copies.take(_folder(Settings()), target)
    except copies.BackupError as error:
        raise Failure(str(error)) from None
    output.line(
        f"{taken.files} files, {taken.size / 1e6:.1f} MB in {target}, taken at {taken.taken_at.isoformat()}"
    )


@index_app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(help="A copy that `backup` took.", show_default=False)],
) -> None:
    """Bring a copy back, checked file by file. The folder of the index must be empty or missing.

    What arrived after the copy was taken comes back with `damagewatch replay --since` that time, as long as Kafka
    still holds it. Claims erased since then are in the copy: erase them again.

    Examples:

      damagewatch index restore /backup/index-2026-11-23
    """
    from damagewatch.index import backup as copies

    settings = Settings()
    try:
        taken = copies.restore(source, _folder(settings))
    except copies.BackupError as error:
        raise Failure(str(error)) from None
    output.line(f"{taken.files} files, {taken.size / 1e6:.1f} MB in {settings.index.path}")
    output.note(f"now start the matcher, then: damagewatch replay --since {taken.taken_at.isoformat()}")


@index_app.command("optimize")
def optimize() -> None:
    """Tidy up now what a running matcher tidies up every hour: erased damages leave every file.

    Examples:

      damagewatch index optimize
    """
    from damagewatch.assembly import load_models, open_index

    settings = Settings()
    _folder(settings)
    with closing(open_index(settings, load_models(settings))) as index:
        index.optimize()
        output.line(f"{index.count()} damages")


def _folder(settings: Settings) -> Path:
    if settings.index.url is not None:
        raise Failure(
            "DAMAGEWATCH_INDEX__URL names a Qdrant server, which tidies up and takes snapshots by itself: see "
            "docs/runbooks/disaster-recovery.md"
        )
    return settings.index.path
