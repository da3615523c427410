"""Tables of pairs in CSV: which query shows what a reference shows, and which photos were judged to be alike."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from damagewatch.folders import name_of, photos_in
from damagewatch_training.data.dataset import DataRefusedError, PairEntry
from damagewatch_training.data.groups import Groups
from damagewatch_training.data.importers.found import Found, located, read_bytes
from damagewatch_training.data.report import Report, Trouble
from damagewatch_training.data.sources import SAME

VERDICTS = frozenset({"copy", "mirror", "same", "samecar", "diff", "unsure"})
MAX_ROWS = 5_000_000


def rows(table: Path, first: str, second: str) -> Iterator[tuple[int, str, str, str]]:
    """Line number, both columns and the verdict ("same" where there is no such column) of each row.

    Raises:
        DataRefusedError: no CSV with these columns.
    """
    text = read_bytes(table).decode("utf-8-sig", "replace")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        if not {first, second} <= set(reader.fieldnames or ()):
            raise DataRefusedError(f"{table}: columns `{first}` and `{second}` are wanted")
        for number, row in enumerate(reader, 2):
            if number > MAX_ROWS:
                raise DataRefusedError(f"{table}: more than {MAX_ROWS:,} rows")
            yield number, row[first].strip(), row[second].strip(), (row.get("verdict") or "same").strip()
    except csv.Error as error:
        raise DataRefusedError(f"{table}: {error}") from None


def labels(
    table: Path, query: Path, reference: Path, report: Report, prefix: str = ""
) -> tuple[list[Found], list[PairEntry]]:
    """Query and reference photos, and the pairs that a table (columns query, reference) says to belong together.

    A column `verdict` may say of some that they do not.

    Photos are named in the table by their path below their folder, by their file's name, by that without its
    ending, or by its number ("7" for `00007.png`). The first reference's name stands for what all the photos show
    that are linked with it. `prefix` is put before the photos' names.

    Raises:
        DataRefusedError: the table cannot be read.
    """
    photos: dict[str, dict[str, Path]] = {}
    for split, folder in (("query", query), ("gallery", reference)):
        photos[split] = {}
        for file in photos_in([folder]):
            relative = str(file.path.relative_to(folder))
            if located(folder, relative) is None:
                report.add(Trouble.PHOTO_OUTSIDE, relative, "a link that leads out of the folder; left out")
                continue
            photos[split][f"{split}/{name_of(relative)}"] = file.path
    known = {split: _names(list(found), f"{split}/") for split, found in photos.items()}
    groups, pairs = Groups(), []
    for number, one, other, verdict in rows(table, "query", "reference"):
        if verdict not in VERDICTS:
            report.add(Trouble.ENTRY_BROKEN, f"{table.name} line {number}", _no_verdict(verdict))
            continue
        a, b = known["query"].get(one), known["gallery"].get(other)
        if a is None or b is None:
            missing = one if a is None else other
            report.add(Trouble.PAIR_UNKNOWN, f"{table.name} line {number}", f"{missing}; left out")
            continue
        if verdict in SAME:
            groups.join(b, a)
        pairs.append(PairEntry(a=prefix + a, b=prefix + b, verdict=verdict))
    found = [
        Found(name, path, split=split, shows=groups.of(name) if name in groups else None)
        for split, of_split in photos.items()
        for name, path in of_split.items()
    ]
    return found, pairs


def _no_verdict(word: str) -> str:
    return f"the verdict {word[:40]!r} is none of {', '.join(sorted(VERDICTS))}; left out"


def _names(photos: list[str], prefix: str) -> dict[str, str]:
    """What each photo may be called; names that would mean two photos mean none."""
    called: dict[str, set[str]] = defaultdict(set)
    for name in photos:
        path = Path(name.removeprefix(prefix))
        for alias in {path.as_posix(), path.name, path.stem}:
            called[alias].add(name)
        if path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 19:
            called[str(int(path.stem))].add(name)
    return {alias: next(iter(names)) for alias, names in called.items() if len(names) == 1}


def judged(table: Path, names: set[str], report: Report) -> list[PairEntry]:
    """Pairs judged by eye (columns a, b, verdict) of photos that the data holds under these names.

    Raises:
        DataRefusedError: the table cannot be read.
    """
    pairs = []
    for number, a, b, verdict in rows(table, "a", "b"):
        where = f"{table.name} line {number}"
        if verdict not in VERDICTS:
            report.add(Trouble.ENTRY_BROKEN, where, _no_verdict(verdict))
        elif missing := {a, b} - names:
            report.add(Trouble.PAIR_UNKNOWN, where, f"{min(missing)}; left out")
        elif a == b:
            report.add(Trouble.ENTRY_BROKEN, where, "a photo paired with itself; left out")
        else:
            pairs.append(PairEntry(a=a, b=b, verdict=verdict))
    return pairs
