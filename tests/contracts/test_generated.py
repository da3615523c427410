"""The committed code is what the .proto files say, and they are clean."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def test_the_generated_code_is_current() -> None:
    pytest.importorskip("grpc_tools")
    check = subprocess.run(
        [sys.executable, CHECKOUT / "proto" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr


def test_every_field_says_what_it_is() -> None:
    undocumented = []
    for path in CHECKOUT.glob("proto/damagewatch/v1/*.proto"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for above, line in pairwise(lines):
            declares = line.strip().endswith(";") and "=" in line and not line.startswith("syntax")
            if declares and not above.strip().startswith("//"):
                undocumented.append(f"{path.name}: {line.strip()}")
    assert not undocumented
