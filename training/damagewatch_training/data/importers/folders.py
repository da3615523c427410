"""Photos in folders: a folder of claims, and folders of queries and of the gallery that they are looked for in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from damagewatch.folders import PhotoFile, name_of, photos_in
from damagewatch_training.data import naming
from damagewatch_training.data.importers.found import Found, located
from damagewatch_training.data.report import Report, Trouble


def claims(folder: Path, report: Report, *, attribute: str = "") -> Iterator[Found]:
    """The photos below `folder`; the folder in which a photo lies names its claim.

    Args:
        folder: searched in depth.
        report: of what was wrong.
        attribute: what the folders name instead of claims: "severity", "model", any other.
    """
    for file, name in _below(folder, report):
        at_root = file.path.parent == folder
        if at_root and not attribute:
            report.add(Trouble.NO_CLAIM, name, "taken, as of no claim")
        title = "" if at_root else name_of(file.path.parent.name)
        if attribute:
            yield Found(name, file.path, attributes={attribute: title} if title else {})
        else:
            yield Found(name, file.path, title)


def query_gallery(query: Path, gallery: Path, report: Report) -> Iterator[Found]:
    """Photos whose names (`damageid_imageid.jpg`) or folders (`damageid/any.jpg`) tell the damage that they show."""
    for split, folder in (("query", query), ("gallery", gallery)):
        for file, name in _below(folder, report):
            damage = None
            if file.path.parent != folder:
                damage = name_of(file.path.parent.name)
            elif (parsed := naming.parsed(name_of(file.path.name))) is not None:
                damage = parsed[0]
            else:
                report.add(Trouble.NO_IDENTITY, f"{split}/{name}", "taken, as of no known damage")
            yield Found(f"{split}/{name}", file.path, split=split, shows=damage)


def _below(folder: Path, report: Report) -> Iterator[tuple[PhotoFile, str]]:
    """The photos of a folder, each with its path below it."""
    for file in photos_in([folder]):
        name = name_of(str(file.path.relative_to(folder)))
        if located(folder, str(file.path.relative_to(folder))) is None:
            report.add(Trouble.PHOTO_OUTSIDE, name, "a link that leads out of the folder; left out")
            continue
        yield file, name
