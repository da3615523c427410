"""Crops under `<root>/<tenant>/<claim>/<photo uuid>/<name>.jpg`, in anything that fsspec opens."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from damagewatch.domain import DependencyDownError, PhotoRef

MAX_BYTES: Final = 16 * 1024 * 1024
"""Most bytes that `EvidenceStore.read` returns: far more than any crop has."""

LONGEST_SEGMENT: Final = 120
"""File systems take names of 255 bytes; two of these and a digest fit in the path of any of them."""


class EvidenceStore:
    """Keeps crops. Thread safe; keeping the same crop again writes the same file again.

    Args:
        url: The root: `file:///var/lib/damagewatch/evidence` (or a plain path), `s3://bucket/prefix`, `gs://...`.
        options: What fsspec's file system of that kind takes (endpoint, credentials, timeouts).

    Raises:
        ValueError: No file system is known or installed for the URL.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        try:
            self._fs, root = url_to_fs(url, **(options or {}))
        except (ImportError, ValueError) as error:
            raise ValueError(f"evidence cannot be kept at {url!r}: {error}") from error
        self._root = str(root).rstrip("/")

    def keep(self, photo: PhotoRef, name: str, jpeg: bytes) -> str:
        """Keep `jpeg` as the photo's crop called `name`, and return its address.

        Raises:
            DependencyDownError: The store does not answer.
        """
        folder = f"{self._claim_folder(photo.tenant, photo.claim_id)}/{photo.uuid}"
        path = f"{folder}/{quote(name)}.jpg"
        with _store():
            if isinstance(self._fs, LocalFileSystem):
                _replace(Path(path), jpeg)
            else:
                self._fs.pipe_file(path, jpeg)  # object stores show a file when it is complete
        return str(self._fs.unstrip_protocol(path))

    def read(self, uri: str) -> bytes:
        """The crop at an address that `keep` returned.

        Raises:
            ValueError: The address is not below the root, or the file is larger than `MAX_BYTES`.
            FileNotFoundError: It was erased.
            DependencyDownError: The store does not answer.
        """
        path = self._below_root(uri)
        with _store(let_through=FileNotFoundError), self._fs.open(path, "rb") as file:
            content: bytes = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"{uri} is larger than {MAX_BYTES} bytes")
        return content

    def erase(self, tenant: str, claim_id: str) -> int:
        """Remove all crops of a claim. Returns how many files went.

        Raises:
            DependencyDownError: The store does not answer; some may be gone already, so erase again.
        """
        folder = self._claim_folder(tenant, claim_id)
        with _store():
            self._fs.invalidate_cache()
            files = self._fs.find(folder)
            if self._fs.exists(folder):
                self._fs.rm(folder, recursive=True)
        return len(files)

    def _claim_folder(self, tenant: str, claim_id: str) -> str:
        return f"{self._root}/{quote(tenant)}/{quote(claim_id)}"

    def _below_root(self, uri: str) -> str:
        refusal = ValueError(f"{uri[:200]!r} is not an address of this evidence store")
        path = str(self._fs._strip_protocol(uri))
        if str(self._fs.unstrip_protocol(path)) != uri or "\0" in path:
            raise refusal
        if not path.startswith(f"{self._root}/") or {"", ".", ".."} & set(path.removeprefix("/").split("/")):
            raise refusal
        if isinstance(self._fs, LocalFileSystem):
            real = os.path.realpath(path)
            if os.path.commonpath([real, os.path.realpath(self._root)]) != os.path.realpath(self._root):
                raise refusal
        return path


def quote(name: str) -> str:
    """One path segment for any name: letters, digits, `_` and `-` stay, other bytes become `=2F` or so.

    Different names give different segments; long ones end in a digest. Not percent-encoding, which browsers
    and object stores' own tools would undo.
    """
    safe = re.sub(rb"[^A-Za-z0-9_-]", lambda m: b"=%02X" % m[0][0], name.encode()).decode()
    if len(safe) > LONGEST_SEGMENT:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return f"{safe[: LONGEST_SEGMENT - 65]}~{digest}"
    return safe or "~"


@contextmanager
def _store(let_through: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """File systems raise whatever their client libraries raise: all of it means 'down'."""
    try:
        yield
    except let_through:
        raise
    except Exception as error:
        raise DependencyDownError("evidence", f"{type(error).__name__}: {error}") from error


def _replace(path: Path, content: bytes) -> None:
    """Write aside and rename, so that no reader meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
