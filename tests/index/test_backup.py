"""Copies of an index in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from damagewatch.domain import DependencyDownError, Sighting
from damagewatch.index.backup import MANIFEST, BackupError, restore, take
from damagewatch.index.edge import EdgeIndex, FolderAlias

Make = Callable[..., Sighting]
NAME = "damages-v1-net-0123456789ab"


@pytest.fixture
def filled(tmp_path: Path, sighting: Make) -> Path:
    index = EdgeIndex(tmp_path / "index", NAME, 16)
    index.upsert([sighting(claim=f"C-{i}") for i in range(30)])
    index.close()
    FolderAlias(tmp_path / "index").set(NAME)
    return tmp_path / "index"


def test_a_copy_brought_back_holds_what_was_there(filled: Path, tmp_path: Path, sighting: Make) -> None:
    taken = take(filled, tmp_path / "copy")
    again = EdgeIndex(filled, NAME, 16)
    again.upsert([sighting(claim="later")])
    again.close()
    shutil.rmtree(filled)
    assert restore(tmp_path / "copy", filled) == taken
    index = EdgeIndex(filled, NAME, 16)
    assert index.count() == 30
    ((nearest, *_),) = index.search([sighting(claim="C-99")], limit=5)
    assert nearest.entry.photo.claim_id.startswith("C-")
    index.close()
    assert FolderAlias(filled).get() == NAME


def test_an_open_index_is_not_copied(filled: Path, tmp_path: Path) -> None:
    index = EdgeIndex(filled, NAME, 16)
    with pytest.raises(DependencyDownError, match="in use"):
        take(filled, tmp_path / "copy")
    index.close()
    assert not (tmp_path / "copy").exists()


def test_neither_a_copy_nor_an_index_is_overwritten(filled: Path, tmp_path: Path) -> None:
    take(filled, tmp_path / "copy")
    with pytest.raises(BackupError, match="exists already"):
        take(filled, tmp_path / "copy")
    with pytest.raises(BackupError, match="holds an index already"):
        restore(tmp_path / "copy", filled)
    with pytest.raises(BackupError, match="no index"):
        take(tmp_path / "nowhere", tmp_path / "other")


@pytest.mark.parametrize(
    "damage", ["a changed byte", "a missing file", "a foreign file", "no list", "half a list"]
)
def test_a_copy_that_is_not_whole_is_refused_by_name(filled: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    take(filled, copy)
    shutil.rmtree(filled)
    victim = next(file for file in sorted(copy.rglob("*")) if file.is_file() and file.stat().st_size)
    if damage == "a changed byte":
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
    elif damage == "a missing file":
        victim.unlink()
    elif damage == "a foreign file":
        victim = copy / NAME / "foreign"
        victim.write_text("")
    elif damage == "no list":
        victim = copy / MANIFEST
        victim.unlink()
    else:
        victim = copy / MANIFEST
        victim.write_text(victim.read_text()[:40])
    with pytest.raises(BackupError) as refused:
        restore(copy, filled)
    assert str(victim) in str(refused.value)
    assert not filled.exists()
