"""What was wrong in data that came in: each trouble by its kind, where it is, and what was done about it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

KEPT_PROBLEMS = 10_000
"""Told one by one; the rest is only counted, since broken input may hold any number."""


_UNREADABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def readable(text: str, longest: int = 512) -> str:
    """Text from outside, without what steers a terminal or is no text."""
    return _UNREADABLE.sub("?", text)[:longest]


class Trouble(StrEnum):
    """A kind of problem. The value is what a person reads."""

    PHOTO_MISSING = "photo missing"
    PHOTO_UNREADABLE = "photo unreadable"
    PHOTO_OUTSIDE = "photo outside the folder"
    PHOTO_TWICE = "photo twice"
    PHOTO_SMALL = "photo too small"
    NAME_TAKEN = "name taken"
    NO_CLAIM = "photo in no claim's folder"
    NO_IDENTITY = "name tells no damage"
    SIZE_DIFFERS = "size differs from the labels'"
    ENTRY_BROKEN = "entry broken"
    CLASS_UNKNOWN = "class unknown"
    SHAPE_UNSUPPORTED = "shape unsupported"
    POLYGON_SHORT = "polygon of fewer than 3 points"
    POLYGON_OUTSIDE = "polygon outside the photo"
    POLYGON_CLIPPED = "polygon reaches outside"
    POLYGON_SMALL = "polygon too small"
    POLYGON_CROSSING = "polygon crosses itself"
    TOO_MANY = "too many"
    LABEL_TWICE = "label twice"
    PAIR_UNKNOWN = "pair names an unknown photo"
    VIDEO_UNREADABLE = "video unreadable"
    VIDEO_CUT = "video longer than the limit"


@dataclass(frozen=True, slots=True)
class Problem:
    """One trouble: `where` names the photo or entry, `detail` says what was found and what was done."""

    trouble: Trouble
    where: str
    detail: str


@dataclass(slots=True)
class Report:
    """Counts what came in, and collects what was wrong."""

    photos: int = 0
    damages: int = 0
    pairs: int = 0
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[Trouble] = field(default_factory=Counter)

    def add(self, trouble: Trouble, where: str, detail: str) -> None:
        """Notes a problem."""
        self.counts[trouble] += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(Problem(trouble, readable(where, 300), readable(detail, 300)))

    def as_json(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "photos": self.photos,
            "damages": self.damages,
            "pairs": self.pairs,
            "counts": {trouble.value: count for trouble, count in self.counts.items()},
            "problems": [
                {"problem": p.trouble.value, "where": p.where, "detail": p.detail} for p in self.problems
            ],
        }
