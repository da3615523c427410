"""File names of crops that say which damage they show: `damageid_imageid.jpg`.

Either id may be any text. Characters other than ASCII letters, digits, dot and hyphen are written as `=XX`, the
hexadecimal of their UTF-8 bytes (as quoted-printable does, RFC 2045, 6.7), so that the one underscore parts the two.
"""

from __future__ import annotations

import re

ENDING = ".jpg"
MAX_BYTES = 240

_PART = r"(?:[A-Za-z0-9.-]|=[0-9A-F]{2})+"
_NAME = re.compile(rf"({_PART})_({_PART})\.(?i:jpg|jpeg|png|webp)")


def name(damage: str, image: str) -> str:
    """The file name of a crop.

    Raises:
        ValueError: an empty id, or one too long for a file's name.
    """
    if not damage or not image:
        raise ValueError("a damage and an image want an id")
    made = f"{_quoted(damage)}_{_quoted(image)}{ENDING}"
    if len(made) > MAX_BYTES:
        raise ValueError(f"the ids {damage[:40]!r}... and {image[:40]!r}... are too long for a file's name")
    return made


def parsed(file: str) -> tuple[str, str] | None:
    """Damage and image of a file's name; None for names that are not of this form."""
    found = _NAME.fullmatch(file)
    if found is None:
        return None
    try:
        return _unquoted(found[1]), _unquoted(found[2])
    except UnicodeDecodeError:
        return None


def _quoted(text: str) -> str:
    return "".join(
        character
        if re.fullmatch(r"[A-Za-z0-9.-]", character)
        else "".join(f"={byte:02X}" for byte in character.encode())
        for character in text
    )


def _unquoted(text: str) -> str:
    return re.sub(rb"=([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), text.encode()).decode()
