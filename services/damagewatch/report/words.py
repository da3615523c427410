"""Alerts in plain words, for somebody who decides about a claim and not about a model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from damagewatch.domain import Alert, AlertKind, DamageType, Severity, Signals

KINDS: Final = {
    AlertKind.DUPLICATE_PHOTO: ("Duplicate photo", "The same picture was sent with another claim."),
    AlertKind.SAME_DAMAGE: (
        "Same damage",
        "The same physical damage, in another photograph, in another claim.",
    ),
    AlertKind.SIMILAR_DAMAGE: (
        "Similar damage",
        "Two damages that look alike; their geometry proves nothing.",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One signal: its figure, what it means, and how far it reaches on its scale, 0 to 1."""

    figure: str
    meaning: str
    share: float


def findings(signals: Signals, mirrored: bool) -> list[Finding]:
    """What was measured of the pair, the most telling first."""
    many = 100
    found = [
        Finding(
            str(signals.focus_inliers),
            "matched points on and around both damages",
            min(signals.focus_inliers / many, 1),
        ),
        Finding(
            str(signals.inliers),
            "matched points in all that agree with one change of viewpoint",
            min(signals.inliers / many, 1),
        ),
        Finding(percent(signals.inlier_ratio), "of all matched points agree with it", signals.inlier_ratio),
        Finding(
            f"{signals.distinctness:.2f}",
            "how telling these points are (low: wheels, lamps and backgrounds, which many photos share)",
            signals.distinctness,
        ),
        Finding(
            f"{signals.alignment:.2f}",
            "agreement of the damages when one is laid over the other (1 is perfect, 0 is none)",
            max(signals.alignment, 0),
        ),
        Finding(percent(signals.overlap), "of the left picture is seen in the right one", signals.overlap),
        Finding(
            f"{signals.cosine:.2f}",
            "resemblance of the damages at first sight (1 is identical, 0 is unrelated)",
            max(signals.cosine, 0),
        ),
        Finding(
            f"{signals.hash_distance} of 64",
            f"bits differ between the fingerprints of the whole photos{', one mirrored' if mirrored else ''}"
            " (0 to 3: the same picture)",
            1 - signals.hash_distance / 64,
        ),
    ]
    return found


def percent(share: float) -> str:
    """0.973 as 97 %; never 100 % of what is not certain, nor 0 % of what is not nothing."""
    if 0 < share < 1:
        share = min(max(share, 0.001), 0.999)
    digits = 0 if 0.01 <= share <= 0.99 or share in (0, 1) else 1
    return f"{share * 100:.{digits}f} %"


def moment(when: datetime | None) -> str:
    """To the minute, with its time zone."""
    return f"{when:%d %b %Y, %H:%M} {when.tzname() or ''}".rstrip() if when is not None else "not known"


def apart(alert: Alert) -> str | None:
    """How long lies between both photos' arrivals, where both are known."""
    first, second = alert.match.received_at, alert.query.received_at
    if first is None or second is None or (first.tzinfo is None) != (second.tzinfo is None):
        return None
    between = abs(second - first)
    if between >= timedelta(days=2):
        return f"{between.days} days apart"
    hours = round(between / timedelta(hours=1))
    return f"{hours} hours apart" if hours >= 2 else "within two hours"


def damage(kind: DamageType, severity: Severity) -> str:
    """What a side shows, in a word or two."""
    if kind is DamageType.WHOLE:
        return "whole photo"
    return kind.value if severity is Severity.UNKNOWN else f"{severity.value} {kind.value}"
