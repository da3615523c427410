"""Copies of an index in a folder: taken while nobody has it open, checked when they are brought back."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from damagewatch.index.edge import held

MANIFEST: Final = "backup.json"
LOCK: Final = "lock"
CHUNK: Final = 1 << 20


class BackupError(Exception):
    """A copy cannot be taken or brought back; the text says why and names the file."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a copy is: when it was taken (UTC), how many files and bytes."""

    taken_at: datetime
    files: int
    size: int


def take(index: Path, target: Path) -> Backup:
    """Copies the index in the folder `index` to the new folder `target`, with a digest of each file.

    Raises:
        BackupError: there is no index, or `target` exists.
        DependencyDownError: a process has the index open.
        OSError: the disk is full, or something cannot be read.
    """
    if not index.is_dir():
        raise BackupError(f"there is no index in {index}")
    if target.exists():
        raise BackupError(f"{target} exists already: give a new folder for each copy")
    if target.resolve().is_relative_to(index.resolve()):
        raise BackupError(f"{target} lies in the index that it is to be a copy of")
    with held(index):
        taken_at = datetime.now(UTC)
        aside = target.with_name(f"{target.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(index, aside, ignore=shutil.ignore_patterns(LOCK))
    digests = {str(file.relative_to(aside)): _digest(file) for file in _files(aside)}
    told = {"taken_at": taken_at.isoformat(), "sha256": digests}
    (aside / MANIFEST).write_text(json.dumps(told, indent=1))
    aside.rename(target)
    return _backup(target, taken_at, digests)


def restore(source: Path, index: Path) -> Backup:
    """Brings a copy back into the folder `index`, which must not exist or be empty.

    Raises:
        BackupError: `source` is no copy or not whole, or there is an index already.
        OSError: the disk is full, or something cannot be read.
    """
    try:
        told = json.loads((source / MANIFEST).read_text())
        taken_at, digests = datetime.fromisoformat(told["taken_at"]), dict(told["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{source / MANIFEST} cannot be read: {error}") from None
    found = {str(file.relative_to(source)) for file in _files(source)} - {MANIFEST}
    if found != digests.keys():
        odd = sorted(found ^ digests.keys())[0]
        raise BackupError(f"{source / odd} is missing, or does not belong to the copy")
    for name, digest in digests.items():
        if _digest(source / name) != digest:
            raise BackupError(f"{source / name} is not what it was when the copy was taken")
    if index.exists() and any(file.name != LOCK for file in index.iterdir()):
        raise BackupError(f"{index} holds an index already: move it away first")
    aside = index.with_name(f"{index.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside, ignore=shutil.ignore_patterns(MANIFEST))
    shutil.rmtree(index, ignore_errors=True)
    aside.rename(index)
    return _backup(index, taken_at, digests)


def _backup(folder: Path, taken_at: datetime, digests: dict[str, str]) -> Backup:
    return Backup(taken_at, len(digests), sum((folder / name).stat().st_size for name in digests))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
