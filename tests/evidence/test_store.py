from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import DependencyDownError, PhotoRef
from damagewatch.evidence import EvidenceStore
from damagewatch.evidence.store import LONGEST_SEGMENT, quote

HOSTILE = [
    "../../../etc/passwd",
    "..",
    ".",
    "",
    "a/b\\c",
    "nul\0byte",
    "line\nbreak",
    "ünïcödé 車",
    "x" * 300,
    "車" * 300,
    "%2e%2e%2f",
    "CON",
    "-rf",
    "*?[a]",
]


def photo(tenant: str = "acme", claim: str = "C-1", name: str = "front.jpg") -> PhotoRef:
    return PhotoRef(tenant, claim, name, "ab" * 32)


@pytest.fixture(params=["file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/evidence"
        return
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    filesystem, path = fsspec.core.url_to_fs(url)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def test_a_crop_comes_back_from_its_address(root: str) -> None:
    store = EvidenceStore(root)
    address = store.keep(photo(), "1", b"jpeg")
    assert address == f"{root.replace('memory://', 'memory:///')}/acme/C-1/{photo().uuid}/1.jpg"
    assert store.read(address) == b"jpeg"
    assert EvidenceStore(root).read(address) == b"jpeg"


def test_keeping_again_replaces_at_the_same_address(root: str) -> None:
    store = EvidenceStore(root)
    first = store.keep(photo(), "1", b"old")
    assert store.keep(photo(), "1", b"new") == first
    assert store.read(first) == b"new"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_name_leaves_its_place(tmp_path: Path, hostile: str) -> None:
    store = EvidenceStore(str(tmp_path / "evidence"))
    address = store.keep(photo(hostile, hostile, hostile), hostile, b"jpeg")
    assert store.read(address) == b"jpeg"
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert len(file.relative_to(tmp_path / "evidence").parts) == 4
    assert store.erase(hostile, hostile) == 1


@given(st.text(), st.text())
def test_different_names_have_different_segments(one: str, other: str) -> None:
    assert (quote(one) == quote(other)) == (one == other)
    assert 0 < len(quote(one)) <= LONGEST_SEGMENT
    assert quote(one) not in (".", "..")
    assert "/" not in quote(one)


def test_long_names_that_begin_alike_differ() -> None:
    assert quote("x" * 300) != quote("x" * 301)


def test_erasing_a_claim_takes_all_its_crops_and_no_other(root: str) -> None:
    store = EvidenceStore(root)
    gone = [store.keep(photo(name=n), c, b"jpeg") for n in ("a", "b") for c in ("0", "1")]
    kept = [store.keep(photo(claim="C-2"), "0", b"jpeg"), store.keep(photo(tenant="bolt"), "0", b"jpeg")]
    assert store.erase("acme", "C-1") == 4
    assert store.erase("acme", "C-1") == 0
    for address in gone:
        with pytest.raises(FileNotFoundError):
            store.read(address)
    assert [store.read(address) for address in kept] == [b"jpeg", b"jpeg"]


def test_only_addresses_below_the_root_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    (tmp_path / "evidence-2").mkdir()
    (tmp_path / "evidence-2" / "x.jpg").write_bytes(b"secret")
    store = EvidenceStore(f"file://{tmp_path}/evidence")
    store.keep(photo(), "0", b"jpeg")
    (tmp_path / "evidence" / "link.jpg").symlink_to(secret)
    for address in (
        f"file://{secret}",
        f"file://{tmp_path}/evidence/../secret.jpg",
        f"file://{tmp_path}/evidence/acme/../../secret.jpg",
        f"file://{tmp_path}/evidence//acme",
        f"file://{tmp_path}/evidence-2/x.jpg",
        f"file://{tmp_path}/evidence/link.jpg",
        f"file://{tmp_path}/evidence",
        f"{tmp_path}/evidence/acme",
        "memory:///acme/x.jpg",
        "https://example.com/x.jpg",
        "evidence/acme",
        "",
        "\0",
    ):
        with pytest.raises(ValueError, match="not an address"):
            store.read(address)


def test_a_file_too_large_for_a_crop_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("damagewatch.evidence.store.MAX_BYTES", 10)
    store = EvidenceStore(root)
    assert store.read(store.keep(photo(), "0", b"x" * 10)) == b"x" * 10
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        store.read(store.keep(photo(), "1", b"x" * 11))


def test_a_reader_never_meets_half_a_crop(tmp_path: Path) -> None:
    store = EvidenceStore(str(tmp_path))
    versions = [bytes([i]) * 200_000 for i in range(8)]
    address = store.keep(photo(), "0", versions[0])
    stop = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(store.read(address))

    reader = threading.Thread(target=read)
    reader.start()
    for version in versions * 5:
        store.keep(photo(), "0", version)
    stop.set()
    reader.join()
    assert seen
    assert set(seen) <= set(versions)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0.jpg"]


@pytest.mark.parametrize("call", ["keep", "read"])
def test_a_store_that_fails_is_down(tmp_path: Path, call: str) -> None:
    (tmp_path / "evidence").write_bytes(b"a file where the folder should be")
    store = EvidenceStore(str(tmp_path / "evidence"))
    with pytest.raises(DependencyDownError, match="evidence: "):
        if call == "keep":
            store.keep(photo(), "0", b"jpeg")
        else:
            store.read(f"file://{tmp_path}/evidence/acme/C-1/x/0.jpg")


def test_an_unknown_kind_of_store_is_named_at_the_start() -> None:
    with pytest.raises(ValueError, match="evidence cannot be kept at 'nonsense://bucket'"):
        EvidenceStore("nonsense://bucket")


def test_crops_are_readable_by_whoever_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        address = EvidenceStore(str(tmp_path)).keep(photo(), "0", b"jpeg")
    finally:
        os.umask(before)
    assert Path(address.removeprefix("file://")).stat().st_mode & 0o777 == 0o640
