"""What a trial says at its end: tables, and each bar beside what was found."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to be so."""

    what: str
    found: object
    bar: str
    ok: bool


@dataclass(slots=True)
class Verdict:
    """The checks of a trial, and tables that explain them. `facts` say under what circumstances."""

    trial: str
    facts: dict[str, object] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    tables: list[tuple[str, tuple[str, ...], list[tuple[object, ...]]]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every bar is met."""
        return all(check.ok for check in self.checks)

    def check(self, what: str, found: object, bar: str, ok: bool) -> None:
        """Adds a check."""
        self.checks.append(Check(what, found, bar, ok))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Adds a table, unless it has no rows."""
        if rows:
            self.tables.append((title, tuple(columns), [tuple(row) for row in rows]))

    def print(self, as_json: bool) -> None:
        """To standard output: text, or one JSON object."""
        if as_json:
            json.dump(
                {
                    "trial": self.trial,
                    "ok": self.ok,
                    "facts": self.facts,
                    "checks": [
                        {"what": c.what, "found": c.found, "bar": c.bar, "ok": c.ok} for c in self.checks
                    ],
                    "tables": [
                        {"title": title, "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
                        for title, columns, rows in self.tables
                    ],
                },
                sys.stdout,
                default=str,
            )
            print()
            return
        for title, columns, rows in self.tables:
            print(f"\n{title}\n")
            _print_table(columns, rows)
        print("\n" + ", ".join(f"{name}: {value}" for name, value in self.facts.items()) + "\n")
        _print_table(
            ("what", "found", "bar", "met"),
            [(c.what, c.found, c.bar, "yes" if c.ok else "NO") for c in self.checks],
        )
        print(f"\nVERDICT {self.trial}: {'the bar is met' if self.ok else 'THE BAR IS NOT MET'}")


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [[_shown(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(cell: object) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
