"""File names of crops that say which damage they show: `damageid_imageid.jpg`.

Ids are ASCII letters, digits, dots and hyphens, so that the one underscore parts the two.
"""

from __future__ import annotations

import hashlib
import re

ENDING = ".jpg"

_ID = r"[A-Za-z0-9.-]{1,64}"
_NAME = re.compile(rf"({_ID})_({_ID})\.(?i:jpg|jpeg|png|webp)")


def identifier(text: str) -> str:
    """Any text as an id: itself where it is one, or else the first 16 digits of its SHA-256."""
    if re.fullmatch(_ID, text):
        return text
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def name(damage: str, image: str) -> str:
    """The file name of a crop.

    Raises:
        ValueError: one of the two is no id.
    """
    for part in (damage, image):
        if not re.fullmatch(_ID, part):
            raise ValueError(f"an id is up to 64 letters, digits, dots and hyphens, this is {part[:80]!r}")
    return f"{damage}_{image}{ENDING}"


def parsed(file: str) -> tuple[str, str] | None:
    """Damage and image of a file's name; None for names that are not of this form."""
    found = _NAME.fullmatch(file)
    return None if found is None else (found[1], found[2])
