"""Photos in folders: which claim each belongs to, and what it is called.

A photo's claim is the name of the folder that it lies in, its photo id the file's name. Hidden files and
folders are passed over, and so are files that no camera or claim system calls a photo (`notes.txt`), unless
they are named one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from damagewatch.domain import Reason, Refused

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".heic",
        ".heif",
        ".avif",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
    }
)
"""What is taken for a photo in a folder. Formats that are not read are among them: they are refused with a
reason, which is better than silence."""


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A photo on disk and the names that it goes by."""

    path: Path
    claim_id: str
    photo_id: str

    @property
    def size(self) -> int:
        """Bytes; 0 where the file is not there."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def read(self, at_most: int) -> bytes:
        """The file's bytes.

        Raises:
            Refused: it is larger than `at_most` bytes, or cannot be read.
        """
        if self.size > at_most:
            detail = f"{self.size:,} bytes; at most {at_most:,} are taken"
            raise Refused(Reason.PHOTO_TOO_LARGE, detail, "fetch")
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise Refused(Reason.REFERENCE_NOT_FOUND, error.strerror or str(error), "fetch") from None


def name_of(name: str) -> str:
    """A file's name as an id: bytes in it that are no UTF-8 become `\\xff`."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def photos_in(
    paths: Sequence[Path], *, claim: str | None = None, claim_per_photo: bool = False
) -> Iterator[PhotoFile]:
    """The photos of `paths` (files and folders, searched in depth), in order of their paths.

    Args:
        paths: Files and folders.
        claim: The claim of all of them, in place of their folders' names.
        claim_per_photo: Each photo is a claim of its own, named after the file without its ending.

    Raises:
        FileNotFoundError: a path that does not exist.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        files = [path] if path.is_file() else sorted(_files_below(path))
        for file in files:
            name = claim or name_of(file.stem if claim_per_photo else file.resolve().parent.name)
            yield PhotoFile(file, name, name_of(file.name))


def _files_below(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if not hidden and file.suffix.lower() in SUFFIXES and file.is_file():
            yield file
