"""Shadow mode: a second set of models judges the same photos, and nobody acts on what it says.

It is a whole matcher of its own: another consumer group, topics, index and evidence store, so that nothing that goes
wrong in it touches the one that counts, and it remembers from the first photo that Kafka still holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from damagewatch.domain import Alert, AlertSide, PhotoRef
from damagewatch.settings import Settings

SUFFIX: Final = ".shadow"
"""Of its consumer group and its topics."""


def shadowed(settings: Settings, models: Path, folder: Path, port: int = 0) -> Settings:
    """The settings of the shadow of a matcher.

    Args:
        settings: of the matcher that counts.
        models: folder of the models that judge in the shadow.
        folder: where its index and crops lie.
        port: of its health and metrics; 0: any free one.
    """
    kafka = settings.kafka
    topics = kafka.topics.model_copy(
        update={
            name: f"{getattr(kafka.topics, name)}{SUFFIX}"
            for name in ("detections", "alerts", "dead_letters")
        }
    )
    update = {"group": f"{kafka.group}{SUFFIX}", "worker": f"{kafka.worker}{SUFFIX}", "topics": topics}
    return settings.model_copy(
        update={
            "kafka": kafka.model_copy(update=update),
            "index": settings.index.model_copy(update={"url": None, "path": folder / "index"}),
            "evidence": settings.evidence.model_copy(update={"url": str(folder / "evidence")}),
            "models": settings.models.model_copy(update={"directory": models, "next": None}),
            "telemetry": settings.telemetry.model_copy(update={"port": port}),
        }
    )


class Verdict(StrEnum):
    """Who alerted a pair."""

    BOTH = "both"
    LIVE_ONLY = "live only"
    SHADOW_ONLY = "shadow only"
    UNSEEN = "live, of photos that the shadow did not see"


@dataclass(frozen=True, slots=True)
class Compared:
    """A pair of photos that one set of models or both alerted."""

    verdict: Verdict
    live: Alert | None
    shadow: Alert | None

    @property
    def alert(self) -> Alert:
        """The live one where there is one."""
        alert = self.live or self.shadow
        assert alert is not None
        return alert


def compare_alerts(live: Iterable[Alert], shadow: Iterable[Alert], seen: Set[PhotoRef]) -> list[Compared]:
    """Pairs up the alerts of two sets of models by their ids, which name the two photos.

    Args:
        live: alerts of the matcher that counts.
        shadow: alerts of its shadow.
        seen: photos that the shadow has judged: of others it could not alert.
    """
    ours = {alert.alert_id: alert for alert in live}
    theirs = {alert.alert_id: alert for alert in shadow}
    compared = []
    for alert_id in ours | theirs:
        one, other = ours.get(alert_id), theirs.get(alert_id)
        if one and other:
            verdict = Verdict.BOTH
        elif other:
            verdict = Verdict.SHADOW_ONLY
        else:
            assert one is not None
            known = photo_of(one.query) in seen and photo_of(one.match) in seen
            verdict = Verdict.LIVE_ONLY if known else Verdict.UNSEEN
        compared.append(Compared(verdict, one, other))
    return compared


def photo_of(side: AlertSide) -> PhotoRef:
    """The photo that a side of an alert is of."""
    return PhotoRef(side.tenant, side.claim_id, side.photo_id, side.sha256)
