"""A set of photos made for the demo, with what must be found in it: written beside the photos as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from damagewatch.domain import AlertKind, Reason

MANIFEST = "expected.json"


@dataclass(frozen=True, slots=True, order=True)
class DemoPhoto:
    """A photo of the set. Its claim is the one it is published under, its id the file's name."""

    claim_id: str
    photo_id: str
    path: Path

    @property
    def key(self) -> PhotoKey:
        """What names the photo in an alert."""
        return self.claim_id, self.photo_id


PhotoKey = tuple[str, str]
"""Claim id and photo id."""
Pair = frozenset[PhotoKey]
"""Two photos, in no order."""


@dataclass(frozen=True, slots=True)
class ExpectedAlert:
    """A pair of photos that must be alerted, as one of `kinds`. `why` is a line for a person."""

    pair: Pair
    kinds: frozenset[AlertKind]
    why: str


@dataclass(frozen=True, slots=True)
class ExpectedRejection:
    """A file that is no photo and must be refused, for one of `reasons`."""

    photo: PhotoKey
    reasons: frozenset[Reason]
    why: str


@dataclass(frozen=True, slots=True)
class DemoSet:
    """Photos and what must come of them.

    `uncounted` are pairs that may be alerted or not: they show one damage, but nobody promises to see it. Any
    other alert is false where the set is `closed`: drawn photos are known to the last pixel, photos from a
    folder may well hold repeats that nobody planted.
    """

    directory: Path
    seed: int
    photos: tuple[DemoPhoto, ...]
    alerts: tuple[ExpectedAlert, ...]
    uncounted: frozenset[Pair]
    rejections: tuple[ExpectedRejection, ...]
    closed: bool

    def save(self) -> Path:
        """Writes `expected.json` into the directory. Paths inside it are written relative to it."""
        manifest = self.directory / MANIFEST
        content = {
            "seed": self.seed,
            "closed": self.closed,
            "photos": [
                {"claim": p.claim_id, "photo": p.photo_id, "path": self._stored(p.path)} for p in self.photos
            ],
            "alerts": [{"pair": sorted(a.pair), "kinds": sorted(a.kinds), "why": a.why} for a in self.alerts],
            "uncounted": sorted(sorted(pair) for pair in self.uncounted),
            "rejections": [
                {"photo": r.photo, "reasons": sorted(r.reasons), "why": r.why} for r in self.rejections
            ],
        }
        manifest.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return manifest

    @classmethod
    def load(cls, directory: Path) -> DemoSet:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: the directory has no `expected.json`.
            ValueError: it is not one that `save` wrote.
        """
        text = (directory / MANIFEST).read_text(encoding="utf-8")
        try:
            content = json.loads(text)
            return cls(
                directory,
                content["seed"],
                tuple(DemoPhoto(p["claim"], p["photo"], directory / p["path"]) for p in content["photos"]),
                tuple(
                    ExpectedAlert(_pair(a["pair"]), frozenset(map(AlertKind, a["kinds"])), a["why"])
                    for a in content["alerts"]
                ),
                frozenset(map(_pair, content["uncounted"])),
                tuple(
                    ExpectedRejection(_key(r["photo"]), frozenset(map(Reason, r["reasons"])), r["why"])
                    for r in content["rejections"]
                ),
                content["closed"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{directory / MANIFEST} is not a demo set's manifest: {error!r}") from error

    def _stored(self, path: Path) -> str:
        inside = path.is_relative_to(self.directory)
        return path.relative_to(self.directory).as_posix() if inside else str(path.resolve())


def _key(names: list[str]) -> PhotoKey:
    claim, photo = names
    return claim, photo


def _pair(keys: list[list[str]]) -> Pair:
    one, other = keys
    return frozenset((_key(one), _key(other)))
