"""What is peculiar to the index in this process: one opener, and what survives a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from damagewatch.domain import DependencyDownError, Sighting
from damagewatch.index.edge import EdgeIndex

Make = Callable[..., Sighting]
NAME = "damages-v1-net-0123456789ab"

CHILD = """
import importlib.util, sys, time
from pathlib import Path
from damagewatch.index.edge import EdgeIndex

spec = importlib.util.spec_from_file_location("made", {conftest!r})
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
index = EdgeIndex(Path({path!r}), {name!r}, made.DIMENSION)
index.upsert([made.make_sighting(claim=f"flushed-{{i}}") for i in range(40)])
index.flush()
index.upsert([made.make_sighting(claim=f"logged-{{i}}") for i in range(40)])
index.erase("acme", "flushed-0")
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def child(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that has the index open, with points and an erasure that it has not flushed."""
    program = CHILD.format(
        conftest=str(Path(__file__).with_name("conftest.py")), path=str(tmp_path), name=NAME
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_killed_process_loses_nothing_that_was_upserted_or_erased(
    tmp_path: Path, child: subprocess.Popen[str], sighting: Make
) -> None:
    with pytest.raises(DependencyDownError, match="DAMAGEWATCH_INDEX__PATH"):
        EdgeIndex(tmp_path, NAME, 16)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    index = EdgeIndex(tmp_path, NAME, 16)
    (found,) = index.search([sighting(claim="query")], limit=100)
    expected = {f"flushed-{i}" for i in range(1, 40)} | {f"logged-{i}" for i in range(40)}
    assert {c.sighting.photo.claim_id for c in found} == expected
    index.close()


def test_a_second_object_of_this_process_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    first = EdgeIndex(tmp_path, NAME, 16)
    for name in (NAME, "damages-v1-other-0123456789ab"):
        with pytest.raises(DependencyDownError, match=r"in use.*DAMAGEWATCH_INDEX__PATH"):
            EdgeIndex(tmp_path, name, 16)
    first.close()
    first.close()
    EdgeIndex(tmp_path, NAME, 16).close()


def test_a_closed_index_says_that_it_is_down(tmp_path: Path, sighting: Make) -> None:
    index = EdgeIndex(tmp_path, NAME, 16)
    index.close()
    for call in (index.count, index.flush, lambda: index.upsert([sighting()])):
        with pytest.raises(DependencyDownError, match="index: "):
            call()


def test_a_collection_left_half_made_is_made_anew(tmp_path: Path, sighting: Make) -> None:
    half = tmp_path / f"{NAME}.new"
    (half / "wal").mkdir(parents=True)
    (half / "edge_config.json").write_text("{")
    index = EdgeIndex(tmp_path, NAME, 16)
    index.upsert([sighting()])
    assert index.erase("acme", "C-1") == 1
    index.close()
    assert not half.exists()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DependencyDownError, match="file/index cannot be opened"):
        EdgeIndex(tmp_path / "file" / "index", NAME, 16)
    broken = tmp_path / "broken"
    (broken / NAME).mkdir(parents=True)
    with pytest.raises(DependencyDownError, match="index: "):
        EdgeIndex(broken, NAME, 16)
    shutil.rmtree(broken / NAME)
    EdgeIndex(broken, NAME, 16).close()  # the failed attempt let go of the folder


@pytest.mark.parametrize("name", ["../outside", "", "a/b", "x" * 200, "nul\0"])
def test_a_collection_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a name for a collection"):
        EdgeIndex(tmp_path, name, 16)


def test_optimizing_takes_erased_points_off_the_segments(tmp_path: Path, sighting: Make) -> None:
    """Not off the write-ahead log, which turns over with later writes."""
    index = EdgeIndex(tmp_path, NAME, 16)
    index.upsert([sighting(claim=f"C-{i}", photo=f"canary-{i}-canary") for i in range(50)])
    index.flush()
    assert files_with(tmp_path, b"canary-7-canary")
    index.erase("acme", "C-7")
    index.optimize()
    index.close()
    assert files_with(tmp_path, b"canary-8-canary")
    assert not files_with(tmp_path, b"canary-7-canary")


def files_with(folder: Path, needle: bytes) -> list[Path]:
    segments = (path for path in folder.rglob("segments/**/*") if path.is_file())
    return [path for path in segments if needle in path.read_bytes()]
