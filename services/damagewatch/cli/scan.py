"""`damagewatch scan`: an archive searched for damages that were claimed twice, without Kafka."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.parameters import Json
from damagewatch.cli.telling import print_alert
from damagewatch.domain import Alert, Refused
from damagewatch.folders import PhotoFile, name_of, photos_in
from damagewatch.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel="Photos, without Kafka")(scan)


def scan(
    directory: Annotated[
        Path | None, typer.Argument(help="Folder of claims: one folder a claim.", show_default=False)
    ] = None,
    query: Annotated[
        Path | None, typer.Option(help="Photos that are searched for.", show_default=False)
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Photos among which they are searched.", show_default=False)
    ] = None,
    json: Json = False,
    report: Annotated[Path, typer.Option(help="The evidence page that is written.")] = Path(
        "damagewatch-evidence.html"
    ),
) -> None:
    """Find damages in an archive that were claimed twice.

    The photos go through the same pipeline as those of the stream. A photo that lies in DIR itself, in no
    claim's folder, is a claim of its own. With --query and --gallery every photo of the one is compared with
    all of the other.

    Examples:

      damagewatch scan claims/

      damagewatch scan claims/ --json | jq .probability

      damagewatch scan --query today/ --gallery archive/ --report found.html
    """
    from damagewatch.report import write_report
    from damagewatch.scan import open_scanner

    if (directory is None) == (query is None) or (query is None) != (gallery is None):
        raise typer.BadParameter("give a folder of claims, or both --query and --gallery")
    if directory is not None:
        searched, remembered = _claims(directory), list[PhotoFile]()
    else:
        assert query is not None
        assert gallery is not None
        searched, remembered = _told_apart(_claims(query), _claims(gallery), (query, gallery))
    alerts: list[Alert] = []
    refused: list[tuple[PhotoFile, Refused]] = []
    with open_scanner(Settings()) as (scanner, evidence, models), output.progress() as bar:
        task = bar.add_task("looking", total=len(searched) + len(remembered))
        for photo, reason in scanner.remember(remembered):
            bar.advance(task)
            if reason is not None:
                refused.append((photo, reason))
        for scanned in scanner.search(searched) if gallery else scanner.scan(searched):
            bar.advance(task)
            if isinstance(scanned.verdict, Refused):
                refused.append((scanned.photo, scanned.verdict))
                continue
            for alert in scanned.verdict.alerts:
                alerts.append(alert)
                print_alert(alert, json=json)
        rejected = [(str(photo.path), reason.reason.value, reason.detail) for photo, reason in refused]
        write_report(
            report,
            alerts,
            evidence.read,
            title=f"damagewatch scan of {directory or query}",
            summary=[
                ("photos", str(len(searched) + len(remembered))),
                ("alerts", str(len(alerts))),
                ("photos refused", str(len(refused))),
            ],
            rejected=rejected,
            models=models.versions,
        )
    for name, code, detail in rejected:
        output.note(f"{name}: {detail} ({code})")
    photos = len(searched) + len(remembered)
    output.note(f"{len(alerts)} alerts in {photos} photos, {len(refused)} refused; evidence: {report}")


def _claims(folder: Path) -> list[PhotoFile]:
    """One folder a claim; a photo in none is a claim of its own, named like the file without its ending."""
    if not folder.is_dir():
        raise Failure(f"no such folder: {folder}", 2)
    top = folder.resolve()
    files = [
        replace(file, claim_id=name_of(file.path.stem)) if file.path.resolve().parent == top else file
        for file in photos_in([folder])
    ]
    if not files:
        raise Failure(f"no photos in {folder}")
    return files


def _told_apart(
    queries: list[PhotoFile], gallery: list[PhotoFile], folders: tuple[Path, Path]
) -> tuple[list[PhotoFile], list[PhotoFile]]:
    """Photos without a claim's folder that are called the same on both sides are no claim in common."""
    sides = (queries, gallery)
    alone = [
        {file.claim_id for file in side if file.path.resolve().parent == folder.resolve()}
        for side, folder in zip(sides, folders, strict=True)
    ]
    doubled = alone[0] & alone[1]
    one, other = (
        [
            replace(file, claim_id=f"{folder.name}/{file.claim_id}") if file.claim_id in doubled else file
            for file in side
        ]
        for side, folder in zip(sides, folders, strict=True)
    )
    return one, other
