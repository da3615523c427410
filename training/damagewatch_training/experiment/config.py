"""An experiment in one TOML file: what it says of a frozen dataclass, the rest being the defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

Settings = TypeVar("Settings")

LARGEST = 1 << 20
"""Bytes of a TOML file that is read."""


class ConfigError(ValueError):
    """An experiment that cannot be read. The message names the file or the override, and the key."""


def load(path: Path | None, overrides: Sequence[str], kind: type[Settings]) -> Settings:
    """The settings of an experiment.

    Args:
        path: A TOML file whose tables and keys are the fields of `kind`; None for the defaults alone.
        overrides: Each `key=value`, or `table.key=value`; the value as in TOML, or a plain word. Later ones win.
        kind: A frozen dataclass; its fields may be dataclasses, for tables.

    Raises:
        ConfigError: No such file, not TOML, a key that `kind` lacks, a value of another kind or out of range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _read(path)
        _check_keys(values, kind, f"{path}: ")
    for override in overrides:
        key, equals, text = override.partition("=")
        names = key.strip().split(".")
        if not equals or not all(names):
            raise ConfigError(f"--set {override}: expected key=value")
        said: dict[str, Any] = {names[-1]: _value(text.strip())}
        for name in reversed(names[:-1]):
            said = {name: said}
        _check_keys(said, kind, f"--set {override}: ")
        values = _merged(values, said)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        source = "" if path is None else f"{path}: "
        raise ConfigError(f"{source}{where}: {first['msg']} (given: {first['input']!r})") from None


def resolved(settings: Any) -> dict[str, Any]:
    """All settings, defaults included, as JSON would hold them."""
    plain: dict[str, Any] = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    return plain


def of(resolved: Mapping[str, Any], kind: type[Settings]) -> Settings:
    """Settings again, from what `resolved` gave of them."""
    return TypeAdapter(kind).validate_python(resolved)


def sha256(settings: Any) -> str:
    """A hash of the resolved settings: equal settings, equal hash, whatever file they came from."""
    return hashlib.sha256(json.dumps(resolved(settings), sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: larger than {LARGEST} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a plain word needs no quotes


def _check_keys(values: Mapping[str, Any], kind: type[Any], where: str, inside: str = "") -> None:
    types = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}no setting {inside}{key}; there are {', '.join(known)}")
        if dataclasses.is_dataclass(types[key]) and isinstance(value, Mapping):
            _check_keys(value, types[key], where, f"{inside}{key}.")  # type: ignore[arg-type]


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(under)
    for key, value in over.items():
        before = out.get(key)
        both = isinstance(value, Mapping) and isinstance(before, dict)
        out[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return out
