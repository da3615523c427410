"""What commands print: data on standard output, everything else on standard error.

On a terminal tables are drawn; in a pipe they are lines of values with tabs between, headed by their names.
"""

from __future__ import annotations

import json
import os
import re
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


_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What steers a terminal, or breaks a line; and bytes of file names that are no text."""


def printable(text: str) -> str:
    """Names come from strangers: what would steer the terminal becomes `\\u001b`, in JSON as well as elsewhere."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def line(text: str) -> None:
    """One line of data. Ends the program, as a success, where nobody reads any more (`| head`)."""
    try:
        sys.stdout.write(printable(text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Keep the interpreter from flushing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


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
            drawn.add_row(*(Text(printable(str(cell))) for cell in row))
        Console().print(drawn)
        return
    line("\t".join(columns))
    for row in rows:
        line("\t".join(" ".join(str(cell).split()) for cell in row))


def note(text: str) -> None:
    """A word to the person at the terminal, on standard error."""
    messages.print(Text("\n".join(printable(part) for part in text.split("\n"))))


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
