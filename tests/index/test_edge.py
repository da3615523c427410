"""What is peculiar to the index in this process: one opener, and what survives a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from damagewatch.domain import DependencyDownError, Sighting
from damagewatch.index import edge
from damagewatch.index.edge import EdgeIndex, FolderAlias, _Shard

Make = Callable[..., Sighting]
NAME = "damages-v1-net-0123456789ab"

CHILD = """
import importlib.util, sys, time
from pathlib import Path
from damagewatch.index.edge import EdgeIndex, FolderAlias

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
    assert {c.entry.photo.claim_id for c in found} == expected
    index.close()


def test_a_power_cut_loses_nothing_that_was_flushed(tmp_path: Path, sighting: Make) -> None:
    """Of the disk only what was written through is left: the collection as it was made, and the log."""
    index = EdgeIndex(tmp_path / "before", NAME, 16)
    shutil.copytree(tmp_path / "before" / NAME, tmp_path / "after" / NAME)
    synced: dict[str, bytes] = {}
    opened: dict[int, Path] = {}
    real_open, real_fsync = os.open, os.fsync

    def open_(path: Path, flags: int) -> int:
        descriptor = real_open(path, flags)
        opened[descriptor] = path
        return descriptor

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        if opened[descriptor].is_file():
            synced[opened[descriptor].name] = opened[descriptor].read_bytes()

    index.upsert([sighting(claim=f"C-{i}") for i in range(40)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", open_)
        patch.setattr(os, "fsync", fsync)
        index.flush()
    index.upsert([sighting(claim=f"late-{i}") for i in range(40)])
    index.close()
    log = tmp_path / "after" / NAME / "wal"
    shutil.rmtree(log)
    log.mkdir()
    for name, content in synced.items():
        (log / name).write_bytes(content)
    again = EdgeIndex(tmp_path / "after", NAME, 16)
    (found,) = again.search([sighting(claim="query")], limit=100)
    assert {c.entry.photo.claim_id for c in found} == {f"C-{i}" for i in range(40)}
    again.close()


def test_flushing_ends_a_long_log(tmp_path: Path, sighting: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full segments of the log go once the collection itself is on the disk."""
    index = EdgeIndex(tmp_path, NAME, 16)
    log = tmp_path / NAME / "wal"
    heavy = sighting()
    heavy = replace(heavy, thumbnail=np.random.default_rng(0).integers(0, 256, (2000, 2000), np.uint8))
    while len(list(log.glob("closed-*"))) < 2:
        index.upsert([heavy])
    index.flush()
    assert len(list(log.glob("closed-*"))) >= 2
    monkeypatch.setattr(edge, "LOG_SEGMENTS", 2)
    index.flush()
    assert len(list(log.glob("closed-*"))) < 2
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


def test_what_was_erased_is_in_no_file_after_optimizing(tmp_path: Path, sighting: Make) -> None:
    """Neither in the segments nor in the log, of the open collection nor of an earlier embedder's."""
    earlier = EdgeIndex(tmp_path, "damages-v1-other-0123456789ab", 16)
    canary = sighting(claim="C-7-canary")
    vector = canary.embedding.astype("<f4").tobytes()
    earlier.upsert([canary, sighting(claim="C-8-canary")])
    earlier.close()
    index = EdgeIndex(tmp_path, NAME, 16)
    index.upsert([sighting(claim=f"C-{i}-canary") for i in range(8, 50)])
    index.upsert([canary])
    index.flush()
    assert len(files_with(tmp_path, b"C-7-canary")) >= 4
    assert len(files_with(tmp_path, vector)) >= 2
    assert index.erase("acme", "C-7-canary") == 2
    index.optimize()
    assert not files_with(tmp_path, b"C-7-canary")
    assert not files_with(tmp_path, vector)
    assert len(files_with(tmp_path, b"C-8-canary")) >= 2
    assert index.count() == 42
    index.upsert([sighting(claim="C-50-canary")])
    index.close()
    again = EdgeIndex(tmp_path, NAME, 16)
    assert again.count() == 43
    again.close()


def test_an_erasure_that_was_not_tidied_up_before_a_restart_is_tidied_up_after_it(
    tmp_path: Path, sighting: Make
) -> None:
    index = EdgeIndex(tmp_path, NAME, 16)
    index.upsert([sighting(claim="C-7-canary"), sighting(claim="C-8-canary")])
    index.erase("acme", "C-7-canary")
    index.close()
    assert files_with(tmp_path, b"C-7-canary")
    again = EdgeIndex(tmp_path, NAME, 16)
    again.optimize()
    assert not files_with(tmp_path, b"C-7-canary")
    again.close()


def test_what_was_discarded_is_in_no_file_either(tmp_path: Path, sighting: Make) -> None:
    """A damage of an erased claim that was being carried over, and was taken out again."""
    index = EdgeIndex(tmp_path, NAME, 16)
    canary = sighting(claim="C-7-canary")
    index.upsert([canary, sighting(claim="C-8-canary")])
    index.discard("acme", {canary.damage.damage_id})
    index.optimize()
    assert not files_with(tmp_path, b"C-7-canary")
    assert index.count() == 1
    index.close()


def test_a_compaction_that_was_stopped_half_way_is_made_good(
    tmp_path: Path, sighting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = EdgeIndex(tmp_path, NAME, 16)
    index.upsert([sighting(claim="C-7-canary"), sighting(claim="C-8-canary")])
    index.erase("acme", "C-7-canary")
    with monkeypatch.context() as no_memory:
        no_memory.setattr(_Shard, "_loaded", lambda self: 1 / 0)
        with pytest.raises(DependencyDownError, match="division"):
            index.optimize()
    assert index.count() == 1
    index.optimize()
    assert not files_with(tmp_path, b"C-7-canary")
    index.close()


def test_what_a_killed_process_was_dropping_goes_when_the_folder_is_opened(
    tmp_path: Path, sighting: Make
) -> None:
    """No erasure would visit it."""
    index = EdgeIndex(tmp_path, NAME, 16)
    index.upsert([sighting(claim="C-7-canary")])
    index.close()
    (tmp_path / NAME).rename(tmp_path / f"{NAME}.new")
    EdgeIndex(tmp_path, "damages-v1-other-0123456789ab", 16).close()
    assert not files_with(tmp_path, b"C-7-canary")


def test_others_go_on_while_the_log_is_begun_anew(tmp_path: Path, sighting: Make) -> None:
    index = EdgeIndex(tmp_path, NAME, 16)
    stop = threading.Event()
    written: list[int] = []

    def write(worker: int) -> None:
        number = 0
        while not stop.is_set():
            index.upsert([sighting(claim=f"C-{worker}-{number}")])
            index.search([sighting(claim="query")], limit=5)
            number += 1
        written.append(number)

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, worker) for worker in range(3)]
        for number in range(4):
            index.upsert([sighting(claim=f"gone-{number}")])
            index.erase("acme", f"gone-{number}")
            index.optimize()
        stop.set()
    for writer in writers:
        writer.result()
    assert index.count() == sum(written)
    index.close()


def test_two_collections_in_one_folder_share_its_lock(tmp_path: Path, sighting: Make) -> None:
    one = EdgeIndex(tmp_path, NAME, 16)
    two = EdgeIndex.beside(one, "damages-v1-other-0123456789ab", 16)
    with pytest.raises(DependencyDownError, match="open already"):
        EdgeIndex.beside(one, NAME, 16)
    one.upsert([sighting(claim="C-1")])
    two.upsert([sighting(claim="C-1"), sighting(claim="C-2")])
    assert (one.count(), two.count()) == (1, 2)
    assert one.erase("acme", "C-1") == 2
    assert (one.count(), two.count()) == (0, 1)
    one.close()
    with pytest.raises(DependencyDownError, match="in use"):
        EdgeIndex(tmp_path, NAME, 16)
    assert two.count() == 1
    two.close()
    EdgeIndex(tmp_path, NAME, 16).close()


def files_with(folder: Path, needle: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


def test_the_active_collection_is_named_by_a_file_that_needs_no_hold(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, NAME, 16)
    alias = FolderAlias(tmp_path)
    assert alias.get() is None
    alias.set(NAME)
    alias.set("damages-v1-other-0123456789ab")
    assert FolderAlias(tmp_path).get() == "damages-v1-other-0123456789ab"
    index.close()
    EdgeIndex(tmp_path, NAME, 16).close()


def test_a_dropped_collection_is_gone_from_the_disk(tmp_path: Path, sighting: Make) -> None:
    kept = EdgeIndex(tmp_path, NAME, 16)
    other = EdgeIndex.beside(kept, "damages-v1-other-0123456789ab", 16)
    other.upsert([sighting(claim="C-1-canary")])
    other.drop()
    assert not files_with(tmp_path, b"C-1-canary")
    assert kept.count() == 0
    kept.close()
