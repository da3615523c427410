"""What commands print: data on standard output, everything else on standard error.

On a terminal tables are drawn; in a pipe they are lines of values with tabs between, headed by their names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

messages = Console(stderr=True, highlight=False, soft_wrap=True)
"""For people: notes, progress, errors."""


def line(text: str) -> None:
    """One line of data."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def json_line(value: object) -> None:
    """One JSON value on one line."""
    line(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Rows under their columns' names."""
    if sys.stdout.isatty():
        drawn = Table(title=title or None, title_justify="left", header_style="bold")
        for column in columns:
            drawn.add_column(column, overflow="fold")
        for row in rows:
            drawn.add_row(*(Text(str(cell)) for cell in row))
        Console().print(drawn)
        return
    line("\t".join(columns))
    for row in rows:
        line("\t".join(" ".join(str(cell).split()) for cell in row))


def note(text: str) -> None:
    """A word to the person at the terminal, on standard error."""
    messages.print(Text(text))


def progress(unit: str = "photos") -> Progress:
    """A progress bar on standard error; where that is not a terminal, nothing but its last state."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=messages,
        transient=not messages.is_terminal,
    )
