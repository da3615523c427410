"""`damagewatch reindex`: to a new embedder while the stream runs."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.parameters import Json
from damagewatch.domain import DependencyDownError
from damagewatch.settings import Settings

if TYPE_CHECKING:
    from damagewatch.index import ActiveCollection, RebuildableIndex
    from damagewatch.pipeline.backfill import Backfill
    from damagewatch.vision.models import Models

HELP = """To a new embedder while the stream runs: no pair missed, nothing stopped.

An embedder's vectors mean nothing to another one, so each has a collection of its own, and one is active: searched.

1. Restart every matcher with DAMAGEWATCH_MODELS__NEXT naming the folder of the new models. From then on each photo
   is remembered in both collections. All matchers first, then the next step.

2. `damagewatch reindex run` carries the old damages over, from their crops in the evidence store. It may be stopped
   and run again. (Where the index is in a folder, the matcher that has it open does this by itself.)

3. `damagewatch reindex compare` asks both the same questions; `damagewatch models shadow` compares their alerts.

4. `damagewatch reindex switch` makes the new collection active: every matcher searches it within a second. `--back`
   turns back, at any time before step 5: from then on the new photos are in the new collection alone.

5. Restart the matchers with DAMAGEWATCH_MODELS__DIRECTORY naming the new models, and without __NEXT.

6. `damagewatch reindex drop` removes the old collection.
"""

reindex_app = typer.Typer(no_args_is_help=True, help=HELP)

Rate = Annotated[
    float | None,
    typer.Option(
        min=0, help="Damages a second; 0: as fast as it goes. Unset: the setting.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(reindex_app, name="reindex", rich_help_panel="Set-up")


class _Both(NamedTuple):
    used: Models
    following: Models


class _Sides(NamedTuple):
    old: RebuildableIndex
    new: RebuildableIndex
    active: ActiveCollection
    old_name: str
    new_name: str
    backfill: Backfill


@reindex_app.command("run")
def run(rate: Rate = None) -> None:
    """Carry the damages of the collection in use over to the next models' one, until none is missing.

    Examples:

      DAMAGEWATCH_MODELS__NEXT=models-2 damagewatch reindex run --rate 50
    """
    settings = Settings()
    with _opened(settings, _both(settings), rate) as sides:
        if sides.active.get() == sides.old_name:
            sides.backfill.withdraw()
        walk = 0
        while True:
            walk += 1
            total = sides.old.count()
            with output.progress("damages") as bar:
                task = bar.add_task(f"walk {walk}", total=total)
                done = sides.backfill.walk(lambda seen, task=task: bar.update(task, completed=seen))  # type: ignore[misc]
            output.note(f"walk {walk}: {done.seen} damages, {done.written} carried over, {done.lost} lost")
            if done.lost and not done.written:
                raise Failure(
                    f"{done.lost} damages cannot be carried over: their crops are gone (see the log). Send their "
                    "photos again, or go on without them: `damagewatch reindex switch --force`"
                )
            if not done.missing:
                break
        output.line(f"all {done.seen} damages are in {sides.new_name}")


@reindex_app.command("status")
def status(json: Json = False) -> None:
    """Print which collection is active, how many damages each has, and how many the next one lacks.

    Examples:

      damagewatch reindex status --json
    """
    from damagewatch.pipeline.backfill import count_missing

    settings = Settings()
    row: dict[str, object]
    try:
        with _opened(settings, _both(settings)) as sides:
            row = {
                "active": sides.active.get(),
                "in_use": sides.old_name,
                "next": sides.new_name,
                "damages": sides.old.count(),
                "carried_over": sides.new.count(),
                "missing": count_missing(sides.old, sides.new),
            }
    except DependencyDownError:
        row = _told(settings)
        if not row:
            raise
        if "collection" not in row:
            output.note(
                "a process has the index open that has not carried everything over yet; is it a matcher with "
                "DAMAGEWATCH_MODELS__NEXT?"
            )
    if json:
        output.json_line(row)
    else:
        output.table(("what", "value"), list(row.items()))


@reindex_app.command("compare")
def compare(
    queries: Annotated[int, typer.Option(min=1, help="How many damages to ask with.")] = 200,
    json: Json = False,
) -> None:
    """Ask both collections for the ten damages nearest to the same ones, and print how far they agree.

    They need not agree: a better embedder finds others. A share near 0 tells that something is wrong.

    Examples:

      damagewatch reindex compare --queries 500
    """
    from damagewatch.pipeline import backfill

    settings = Settings()
    with _opened(settings, _both(settings)) as sides:
        try:
            found = backfill.compare(sides.old, sides.new, queries)
        except ValueError as error:
            raise Failure(str(error)) from None
    row = {"queries": found.queries, "shared": round(found.shared, 4), "first": round(found.first, 4)}
    if json:
        output.json_line(row)
        return
    output.table(
        ("what", "value"),
        [
            ("damages asked with", row["queries"]),
            ("share of the ten nearest that both find", row["shared"]),
            ("share with the same photo nearest", row["first"]),
        ],
    )


@reindex_app.command("switch")
def switch(
    back: Annotated[bool, typer.Option("--back", help="To the collection of the models in use.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Though damages are missing from it.")] = False,
) -> None:
    """Make the next models' collection active: all matchers search it within a second.

    Refused while it lacks damages that the other one has, since pairs would be missed; so is the way back.

    Examples:

      damagewatch reindex switch

      damagewatch reindex switch --back
    """
    from damagewatch.assembly import collection_of, open_active

    settings = Settings()
    both = _both(settings)
    target = collection_of(both.used if back else both.following)
    if not force:
        missing = _missing(settings, both, back)
        if missing and back:
            raise Failure(
                f"{missing} damages are in the other collection alone, written by matchers with one set of models: "
                "to search without them, --force"
            )
        if missing:
            raise Failure(f"{missing} damages are not in {target} yet: `damagewatch reindex run`, or --force")
    open_active(settings, both.used).set(target)
    output.line(f"active: {target}")


@reindex_app.command("drop")
def drop(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove the collection that is not active, with all that it holds.

    The matchers must have been restarted with one set of models: those that write to both would wait for it.

    Examples:

      damagewatch reindex drop --yes
    """
    settings = Settings()
    with _opened(settings, _both(settings)) as sides:
        active = sides.active.get()
        doomed = {sides.old_name: sides.new, sides.new_name: sides.old}.get(active or "")
        if doomed is None:
            raise Failure(f"the active collection, {active}, is neither of these models: nothing was removed")
        name = sides.old_name if doomed is sides.old else sides.new_name
        if not yes and not typer.confirm(f"Remove {name} with {doomed.count()} damages?"):
            raise Failure("nothing was removed")
        doomed.drop()
    output.line(f"removed {name}")


def _both(settings: Settings) -> _Both:
    """The models in use, and those to change over to."""
    from damagewatch.assembly import load_models, load_next_models

    used = load_models(settings)
    return _Both(used, load_next_models(settings, used))


@contextmanager
def _opened(settings: Settings, both: _Both, rate: float | None = None) -> Iterator[_Sides]:
    from damagewatch.assembly import collection_of, open_active, open_beside, open_evidence, open_index
    from damagewatch.pipeline.backfill import Backfill

    used, following = both
    evidence = open_evidence(settings)
    old = open_index(settings, used)
    try:
        new = open_beside(settings, following, old)
        try:
            speed = settings.models.carry_over_rate if rate is None else rate
            backfill = Backfill(old, new, evidence, following.embedder, speed)
            active = open_active(settings, used)
            yield _Sides(old, new, active, collection_of(used), collection_of(following), backfill)
        finally:
            new.close()
    finally:
        old.close()


def _missing(settings: Settings, both: _Both, back: bool) -> int:
    """Damages that the collection to come lacks, or (`back`) the one in use.

    Where a matcher has the folder open, what it wrote about that.
    """
    from damagewatch.assembly import collection_of
    from damagewatch.pipeline.backfill import count_missing

    try:
        with _opened(settings, both) as sides:
            return count_missing(sides.new, sides.old) if back else count_missing(sides.old, sides.new)
    except DependencyDownError:
        if settings.index.url is not None:
            raise
        told = _told(settings)
        if told.get("collection") == collection_of(both.following):
            return 0 if back else int(str(told["missing"]))  # who tells that writes to both
        raise Failure(
            "a process has the index open that has not carried everything over yet: try again later, and see that "
            "the matcher runs with DAMAGEWATCH_MODELS__NEXT, or --force"
        ) from None


def _told(settings: Settings) -> dict[str, object]:
    """What the matcher wrote that has the index's folder open; nothing where there is none."""
    from damagewatch.index.edge import FolderAlias
    from damagewatch.matcher.changeover import PROGRESS

    if settings.index.url is not None:
        return {}
    file: Path = settings.index.path / PROGRESS
    row: dict[str, object] = {"active": FolderAlias(settings.index.path).get()}
    with suppress(OSError, ValueError):
        row |= json_format.loads(file.read_text())
    return row
