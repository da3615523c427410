"""The format that all data is brought into: a folder with `dataset.json` and the photos that it names.

Photos are stored under their hash in `photos/`. Coordinates are pixels of the upright photo, as in
`damagewatch.domain`. A `damage` is what a person would point at on the car: regions of several photos that name
the same one show it from several sides, and that is what an embedder learns.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from damagewatch.domain import Box
from damagewatch_training.data.sources import SEVERITIES, TYPES, Label, Pair, Photo

FILE = "dataset.json"
PHOTOS = "photos"
VERSION = 1
MAX_BYTES = 1_000_000_000
MADE_FROM = "made_from"
"""The attribute of a made photo that names the photo that it (of a splice: its damage) comes from."""
MADE_ONTO = "made_onto"
"""The attribute that names the photo that a damage was spliced onto."""


def write_whole(path: Path, content: bytes) -> None:
    """Writes aside and renames: who is stopped leaves no half of a file, and of several processes one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


class DataRefusedError(Exception):
    """Data that cannot be used; the message names the file and what is wrong with it."""


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
        raise ValueError("a path below the folder is wanted")
    return value


Text = Annotated[str, Field(max_length=512)]
Inside = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_inside)]
Outline = tuple[tuple[FiniteFloat, FiniteFloat], ...]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class PhotoEntry(_Entry):
    """A photo: `name` is unique in the data, `file` lies below the folder; width and height are upright pixels.

    `split` is "train", "val" or "test"; "query" or "gallery" of a retrieval task; empty where none was drawn.
    `hashes` are the perceptual hash and that of the mirrored photo, hexadecimal (`vision.hashing`).
    """

    name: Annotated[str, Field(min_length=1, max_length=512)]
    file: Inside
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    hashes: tuple[
        Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    ]
    claim: Text = ""
    split: Annotated[str, Field(max_length=32)] = ""
    attributes: dict[Text, Text] = {}


class DamageEntry(_Entry):
    """A region of the photo named `photo`: `box` is x0, y0, x1, y1; `polygons` may be missing.

    `type` is one of TYPES and `severity` one of SEVERITIES, or None where not labelled. `score` is a detector's,
    None where a person drew it. `damage` names the damage on the car where that is known.
    """

    id: Annotated[str, Field(min_length=1, max_length=512)]
    photo: Annotated[str, Field(max_length=512)]
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    polygons: tuple[Outline, ...] = ()
    type: Literal["scratch", "dent", "broken"] | None = None
    severity: Literal["minor", "moderate", "severe"] | None = None
    part: Text | None = None
    score: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    damage: Text | None = None

    @property
    def physical(self) -> str:
        """The damage on the car: its own where nothing links it to another photo."""
        return self.damage if self.damage is not None else self.id

    @property
    def area(self) -> Box:
        """The box."""
        return Box(*self.box)

    def label(self) -> Label:
        """As it is trained on."""
        return Label(
            tuple(np.asarray(polygon, np.float32) for polygon in self.polygons),
            self.area,
            None if self.type is None else TYPES.index(self.type),
            None if self.severity is None else SEVERITIES.index(self.severity),
        )


class PairEntry(_Entry):
    """Two photos by name: "copy", "mirror" and "same" show one damage, "samecar" and "diff" do not."""

    a: Annotated[str, Field(max_length=512)]
    b: Annotated[str, Field(max_length=512)]
    verdict: Annotated[str, Field(max_length=32)]


class _Content(_Entry):
    version: Literal[1]
    photos: tuple[PhotoEntry, ...]
    damages: tuple[DamageEntry, ...] = ()
    pairs: tuple[PairEntry, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> _Content:
        names = {photo.name for photo in self.photos}
        if len(names) < len(self.photos):
            raise ValueError("two photos share a name")
        if len({damage.id for damage in self.damages}) < len(self.damages):
            raise ValueError("two damages share an id")
        for damage in self.damages:
            x0, y0, x1, y1 = damage.box
            if damage.photo not in names:
                raise ValueError(f"damage {damage.id} is on a photo that is not listed: {damage.photo}")
            if not (x0 < x1 and y0 < y1):
                raise ValueError(f"damage {damage.id} has an empty box")
        return self


@dataclass(frozen=True, slots=True)
class Dataset:
    """All of a folder's `dataset.json`."""

    folder: Path
    photos: tuple[PhotoEntry, ...] = ()
    damages: tuple[DamageEntry, ...] = ()
    pairs: tuple[PairEntry, ...] = ()

    def damages_of(self) -> dict[str, list[DamageEntry]]:
        """The damages of each photo, by its name."""
        found: dict[str, list[DamageEntry]] = defaultdict(list)
        for damage in self.damages:
            found[damage.photo].append(damage)
        return found

    def labelled(self, split: str | None = None) -> list[Photo]:
        """The photos of `split` (None: of all) with their labels, as they are trained on."""
        damages = self.damages_of()
        return [
            Photo(
                photo.name,
                self.folder / photo.file,
                tuple(damage.label() for damage in damages.get(photo.name, ())),
            )
            for photo in self.photos
            if split is None or photo.split == split
        ]

    def of_split(self, split: str) -> Dataset:
        """The photos of a split (empty: all), with their damages and pairs."""
        if not split:
            return self
        photos = tuple(photo for photo in self.photos if photo.split == split)
        names = {photo.name for photo in photos}
        damages = tuple(damage for damage in self.damages if damage.photo in names)
        pairs = tuple(pair for pair in self.pairs if {pair.a, pair.b} <= names)
        return Dataset(self.folder, photos, damages, pairs)

    def judged(self) -> list[Pair]:
        """The pairs."""
        return [Pair(pair.a, pair.b, pair.verdict) for pair in self.pairs]

    @property
    def sha256(self) -> str:
        """Of all that is in it, pixels included (through their hashes), wherever the folder lies."""
        return hashlib.sha256(self._json()).hexdigest()

    def save(self) -> None:
        """Writes `dataset.json`, whole or not at all.

        Raises:
            DataRefusedError: what is to be written makes no sense.
        """
        content = self._json()
        try:
            _Content.model_validate_json(content)
        except ValidationError as error:
            raise DataRefusedError(f"{self.folder / FILE}: {_told(error)}") from None
        write_whole(self.folder / FILE, content)

    def _json(self) -> bytes:
        """One entry a line, so that two versions can be compared by `diff`."""

        def listed(name: str, entries: Sequence[_Entry]) -> str:
            lines = (
                json.dumps(entry.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"))
                for entry in entries
            )
            return f'"{name}":[\n' + ",\n".join(lines) + "\n]"

        parts = (
            f'"version":{VERSION}',
            listed("photos", self.photos),
            listed("damages", self.damages),
            listed("pairs", self.pairs),
        )
        return ("{" + ",\n".join(parts) + "}\n").encode()


def load(folder: Path) -> Dataset:
    """Reads and checks a folder's `dataset.json`.

    Raises:
        DataRefusedError: there is none, or something in it makes no sense.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataRefusedError(f"{path}: larger than {MAX_BYTES:,} bytes")
        content = _Content.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataRefusedError(f"{path}: no such file (make one with `data import`)") from None
    except OSError as error:
        raise DataRefusedError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        raise DataRefusedError(f"{path}: {_told(error)}") from None
    home = folder.resolve()
    for photo in content.photos:
        if not (folder / photo.file).resolve().is_relative_to(home):
            raise DataRefusedError(f"{path}: {photo.file} lies outside the folder")
    return Dataset(folder, content.photos, content.damages, content.pairs)


def is_dataset(folder: Path) -> bool:
    """Whether the folder is in this format."""
    return (folder / FILE).is_file()


def _told(error: ValidationError) -> str:
    problems = error.errors()
    told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problems[:3])
    return f"{told} (and {len(problems) - 3} more)" if len(problems) > 3 else told
