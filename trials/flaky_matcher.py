"""The matcher, with an index that does not answer while a file exists: `python -m trials.flaky_matcher`.

The file is named by DAMAGEWATCH_TEST_INDEX_DOWN.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from damagewatch.cli.stream import matcher
from damagewatch.domain import DependencyDownError
from damagewatch.index import DamageIndex
from damagewatch.matcher import service

SWITCH = "DAMAGEWATCH_TEST_INDEX_DOWN"


class FlakyIndex:
    """Passes everything on to an index, except while it is down."""

    def __init__(self, index: DamageIndex, down: Path) -> None:
        self._index = index
        self._down = down

    def __getattr__(self, name: str) -> Any:
        if name != "close" and self._down.exists():
            raise DependencyDownError("index", "the trial has switched it off")
        return getattr(self._index, name)


def main() -> None:
    """Runs it until SIGTERM."""
    open_index = vars(service)["open_index"]
    down = Path(os.environ[SWITCH])
    vars(service)["open_index"] = lambda *arguments: FlakyIndex(open_index(*arguments), down)
    matcher()


if __name__ == "__main__":
    main()
