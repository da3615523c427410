"""What every importer finds, before anything of it is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch_training.data.dataset import DataRefusedError

MAX_BYTES = 500_000_000
"""Of a file of labels."""
MAX_REGIONS = 500
"""Of one photo."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A labelled region: polygons float64 (N, 2) in the labels' pixels, or a box alone; its class as named.

    `damage` names the damage on the car, where the labels do.
    """

    polygons: tuple[NDArray[np.float64], ...]
    class_name: str
    box: Box | None = None
    damage: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A photo, as a file or as bytes, under its name within the source.

    `size` is width and height as the labels have it. `shows` names the damage on the car that the whole photo
    shows, of retrieval tasks whose photos are crops.
    """

    name: str
    source: Path | bytes
    claim: str = ""
    split: str = ""
    size: tuple[int, int] | None = None
    regions: tuple[Region, ...] = ()
    shows: str | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def read_json(path: Path) -> Any:
    """The content of a file of labels.

    Raises:
        DataRefusedError: it is not there, too large, or no JSON.
    """
    content = read_bytes(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataRefusedError(f"{path}: not valid JSON: {detail}") from None


def read_bytes(path: Path) -> bytes:
    """A file of labels.

    Raises:
        DataRefusedError: it is not there, or too large.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataRefusedError(f"{path}: larger than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DataRefusedError(f"{path}: {error.strerror or error}") from None


def located(folder: Path, name: object) -> Path | None:
    """The file `name` below `folder`; None where the name is none, or leads outside, through a link as well."""
    if not isinstance(name, str) or not name or "\0" in name or len(name) > 1000:
        return None
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):
        return None
    return folder / name if path.is_relative_to(folder.resolve()) else None
