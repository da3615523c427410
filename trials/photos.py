"""Photos for a trial: some of a folder, each a claim of its own, and some of them photographed again."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from damagewatch.domain import Refused
from damagewatch.folders import photos_in
from damagewatch.synthesis.drawn_set import WIDTH, demo_set
from damagewatch.synthesis.expectations import Pair, PhotoKey
from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision.decode import decode

SAME = frozenset({"copy", "mirror", "same"})
"""Verdicts on a pair of photos that make an alert a true one; samecar and diff do not."""


@dataclass(frozen=True, slots=True)
class TrialPhoto:
    """A photo to publish. `original` is the file that it was made from: itself, unless photographed again."""

    claim_id: str
    photo_id: str
    path: Path
    original: Path

    @property
    def key(self) -> PhotoKey:
        """What names it in an alert."""
        return self.claim_id, self.photo_id


@dataclass(frozen=True, slots=True)
class TrialSet:
    """Photos in the order in which they are published, and what is known of them."""

    photos: tuple[TrialPhoto, ...]
    planted: frozenset[Pair]
    verdicts: Mapping[frozenset[Path], str]
    """What a person, or the painter, said of pairs of originals."""
    _by_key: Mapping[PhotoKey, TrialPhoto] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_key", {photo.key: photo for photo in self.photos})

    def of(self, key: PhotoKey) -> TrialPhoto:
        """The photo of that claim and name."""
        return self._by_key[key]

    def relation(self, pair: Pair) -> str:
        """What is known of a pair: planted, a verdict on their originals, or nothing (empty)."""
        if pair in self.planted:
            return "planted"
        originals = frozenset(self.of(key).original for key in pair)
        return self.verdicts.get(originals, "")


def trial_set(
    folders: Sequence[Path],
    directory: Path,
    *,
    count: int,
    planted: int,
    seed: int,
    verdicts: Mapping[frozenset[Path], str] | None = None,
    width: int = WIDTH,
) -> TrialSet:
    """Chooses `count` photos, photographs `planted` of them again into other claims, and shuffles all.

    Args:
        folders: Searched in depth; without any, the set is drawn (`width` pixels wide), whose claims are kept.
        directory: For what is made.
        count: Photos chosen, fewer where there are not so many.
        planted: How many of them are photographed again.
        seed: Of every choice.
        verdicts: Pairs of files that are known to show the same, or not.
        width: Of drawn photos, in pixels.

    Raises:
        FileNotFoundError: A folder that is not there, or holds no photos.
    """
    rng = np.random.default_rng(seed)
    known = dict(verdicts or {})
    if folders:
        chosen = _from_folders(folders, count, rng)
    else:
        chosen, drawn = _drawn(directory, count, seed, width)
        known |= drawn
    if not chosen:
        raise FileNotFoundError("no photos were found")
    again: list[TrialPhoto] = []
    pairs: set[Pair] = set()
    for number, child in zip(rng.permutation(len(chosen)), rng.spawn(len(chosen)), strict=True):
        if len(again) == planted:
            break
        photo = chosen[number]
        try:
            image = decode(photo.path.read_bytes()).image
        except Refused:
            continue
        claim_id = f"again-{len(again) + 1:05}"
        path = directory / claim_id / "again.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(rephotograph(image, child).encoded())
        again.append(TrialPhoto(claim_id, path.name, path, photo.original))
        pairs.add(frozenset((photo.key, again[-1].key)))
    everything = [*chosen, *again]
    order = rng.permutation(len(everything))
    return TrialSet(tuple(everything[i] for i in order), frozenset(pairs), known)


def verdicts_of(table: Path) -> dict[frozenset[Path], str]:
    """Reads a table of pairs: columns a, b (paths, relative to the table's folder) and verdict.

    Raises:
        FileNotFoundError: There is no such table.
        KeyError: It lacks a column.
    """
    with table.open(newline="", encoding="utf-8") as file:
        return {
            frozenset(((table.parent / row["a"]).resolve(), (table.parent / row["b"]).resolve())): row[
                "verdict"
            ]
            for row in csv.DictReader(file)
        }


def _from_folders(folders: Sequence[Path], count: int, rng: np.random.Generator) -> list[TrialPhoto]:
    files = sorted({file.path.resolve() for file in photos_in(folders)})
    chosen = sorted(rng.permutation(len(files))[:count])
    return [
        TrialPhoto(f"claim-{number:05}", files[i].name, files[i], files[i])
        for number, i in enumerate(chosen, start=1)
    ]


def _drawn(
    directory: Path, count: int, seed: int, width: int
) -> tuple[list[TrialPhoto], dict[frozenset[Path], str]]:
    """As many sets of the demo as it takes. All that a claim shows is one car, so its photos are related."""
    chosen: list[TrialPhoto] = []
    known: dict[frozenset[Path], str] = {}
    number = seed
    while len(chosen) < count:
        made = demo_set(directory / f"drawn-{number}", number, width=width)
        broken = {rejection.photo for rejection in made.rejections}
        paths = {photo.key: photo.path.resolve() for photo in made.photos if photo.key not in broken}
        by_claim: dict[str, list[Path]] = {}
        for (claim_id, photo_id), path in paths.items():
            by_claim.setdefault(claim_id, []).append(path)
            chosen.append(TrialPhoto(f"{number}-{claim_id}", photo_id, path, path))
        related: Iterable[Pair] = [*(alert.pair for alert in made.alerts), *made.uncounted]
        known |= {frozenset(paths[key] for key in pair): "same" for pair in related}
        for photos in by_claim.values():
            known |= {frozenset(pair): "same" for pair in combinations(photos, 2)}
        number += 1
    return chosen[:count], known
