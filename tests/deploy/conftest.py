"""The validators of the extra `deploy`, beside the interpreter that runs the tests."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """The path of a program: of this environment, else of the machine; skips the test where there is none."""

    def find(name: str) -> str:
        beside = Path(sys.executable).parent / name
        found = str(beside) if beside.exists() else shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find
