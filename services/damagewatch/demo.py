"""What a demo's photos should lead to, held against what they did lead to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from damagewatch.domain import Alert, AlertKind
from damagewatch.synthesis.expectations import DemoSet, Pair, PhotoKey


@dataclass(frozen=True, slots=True)
class Expected:
    """A planted return. `found` is what was alerted for it; empty where nothing was."""

    pair: tuple[PhotoKey, PhotoKey]
    why: str
    kinds: frozenset[AlertKind]
    found: tuple[Alert, ...]

    @property
    def ok(self) -> bool:
        """Found, and as the right kind."""
        return any(alert.kind in self.kinds for alert in self.found)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A broken file. `reason` is the reason code that it was refused with; empty where it was not."""

    photo: PhotoKey
    why: str
    reasons: frozenset[str]
    reason: str

    @property
    def ok(self) -> bool:
        """Refused, for the right reason."""
        return self.reason in self.reasons


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything planted with what became of it, and what came unplanted.

    `others` are alerts that nobody planted. They are false only where the set is `closed`: drawn photos are
    known to the last pixel, a folder of real ones may well hold repeats.
    """

    expected: tuple[Expected, ...]
    rejected: tuple[Rejected, ...]
    others: tuple[Alert, ...]
    unexpected_rejections: tuple[tuple[PhotoKey, str], ...]
    missing: tuple[PhotoKey, ...]
    """Photos of which nothing was heard: neither detections nor a dead letter."""
    closed: bool

    @property
    def ok(self) -> bool:
        """All that had to be found was found, and nothing else; no photo is missing."""
        if self.missing:
            return False
        if not self.closed:
            return True
        planted = all(row.ok for row in self.expected) and all(row.ok for row in self.rejected)
        return planted and not self.others and not self.unexpected_rejections


def judge(
    demo: DemoSet,
    alerts: Iterable[Alert],
    refused: Mapping[PhotoKey, str],
    processed: Sequence[PhotoKey],
) -> Outcome:
    """Compares.

    Args:
        demo: the set that was published.
        alerts: all that came.
        refused: reason code of each photo that became a dead letter.
        processed: photos of which detections came.
    """
    by_pair: dict[Pair, list[Alert]] = {}
    for alert in alerts:
        by_pair.setdefault(pair_of(alert), []).append(alert)
    expected = []
    for planted in demo.alerts:
        one, other = sorted(planted.pair)
        found = tuple(by_pair.pop(planted.pair, ()))
        expected.append(Expected((one, other), planted.why, planted.kinds, found))
    for pair in demo.uncounted:
        by_pair.pop(pair, None)
    rejected = tuple(
        Rejected(
            row.photo, row.why, frozenset(reason.value for reason in row.reasons), refused.get(row.photo, "")
        )
        for row in demo.rejections
    )
    planted_rejections = {row.photo for row in demo.rejections}
    heard = set(processed) | set(refused)
    return Outcome(
        expected=tuple(expected),
        rejected=rejected,
        others=tuple(alert for found in by_pair.values() for alert in found),
        unexpected_rejections=tuple(
            (photo, reason) for photo, reason in refused.items() if photo not in planted_rejections
        ),
        missing=tuple(photo.key for photo in demo.photos if photo.key not in heard),
        closed=demo.closed,
    )


def pair_of(alert: Alert) -> Pair:
    """The two photos of an alert, in no order."""
    query, match = alert.query, alert.match
    return frozenset({(query.claim_id, query.photo_id), (match.claim_id, match.photo_id)})
