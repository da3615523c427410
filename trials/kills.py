"""kill -9 of the matcher at random moments, some in its start-up: the same alerts as undisturbed, each once."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from damagewatch.synthesis.expectations import PhotoKey

from .outcome import Outcome, read
from .photos import TrialSet
from .stand import Matcher, Stand, Stream, Tell
from .verdict import Verdict

STARTING = 0.3
"""Share of the kills that fall in the start-up."""
AFTERWARDS = 0.6
"""Seconds that a kill may come after the progress that it waited for: anywhere within a batch."""


STAGES = (
    ("", "not loaded its models"),
    ("matcher started", "not joined its group"),
    ("partitions are ours", "taken up work"),
)
"""What the log tells of how far a process had come."""


@dataclass(frozen=True, slots=True)
class Kill:
    """When to kill: once `records` are committed, or, without, `seconds` after the start."""

    records: int | None
    seconds: float


def run(stand: Stand, photos: TrialSet, count: int, partitions: int, seed: int, tell: Tell) -> Verdict:
    """The stream undisturbed, then with `count` kills; compares."""
    total = len(photos.photos)
    calm, began = undisturbed(stand, photos, partitions, tell)
    stormy = stand.stream("kills", partitions)
    stormy.publish(photos.photos)
    fallen: list[tuple[int, str, object, str]] = []
    matcher = Matcher(stormy)
    try:
        for number, kill in enumerate(plan(count, total, began, random.Random(seed)), start=1):
            committed = stormy.wait(matcher, kill.records) if kill.records is not None else ""
            time.sleep(kill.seconds)
            tell(f"kill {number} of {count}")
            matcher.kill()
            begun = matcher.told
            matcher = Matcher(stormy)
            fallen.append((number, "starting" if committed == "" else "working", committed, _stage(begun)))
        stormy.wait(matcher, total, tell)
        code = matcher.stop()
    finally:
        matcher.kill()
    outcome = read(stormy)
    verdict = Verdict("kills", {"photos": total, "planted": len(photos.planted), "partitions": partitions})
    verdict.table("Kills", ("kill", "when", "records committed", "it had"), fallen)
    compare(verdict, photos, calm, outcome)
    within = sum(isinstance(committed, int) and committed < total for _, _, committed, _ in fallen)
    verdict.check("kills while at work on the stream", within, f">= {count // 2}", within >= count // 2)
    starting = sum(stage != STAGES[-1][1] for *_, stage in fallen)
    verdict.check("kills before it had partitions", starting, ">= 1", starting >= 1)
    _committed(verdict, stormy)
    verdict.check("exit code after SIGTERM at the end", code, "0", code == 0)
    return verdict


def undisturbed(stand: Stand, photos: TrialSet, partitions: int, tell: Tell) -> tuple[Outcome, float]:
    """What comes of the stream when nothing happens, and the seconds until the first commit."""
    stream = stand.stream("undisturbed", partitions)
    stream.publish(photos.photos)
    start = time.monotonic()
    with Matcher(stream) as matcher:
        stream.wait(matcher, 1)
        began = time.monotonic() - start
        stream.wait(matcher, len(photos.photos), tell)
        matcher.stop()
    return read(stream), began


def plan(count: int, total: int, start_seconds: float, chance: random.Random) -> list[Kill]:
    """Kills spread over the stream by progress, and between them kills in the start-up."""
    starting = max(1, round(STARTING * count))
    working = sorted(chance.uniform(0.02, 0.9) * total for _ in range(count - starting))
    kills = [Kill(round(records), chance.uniform(0, AFTERWARDS)) for records in working]
    for _ in range(starting):
        place = chance.randrange(len(kills) + 1)
        kills.insert(place, Kill(None, chance.uniform(0, start_seconds)))
    return kills


def _stage(told: str) -> str:
    return next(stage for said, stage in reversed(STAGES) if said in told)


def compare(verdict: Verdict, photos: TrialSet, calm: Outcome, disturbed: Outcome) -> None:
    """Nothing lost, nothing doubled, and the same alerts as in the undisturbed run."""
    names = {alert.alert_id: alert for alert in (*calm.alerts, *disturbed.alerts)}
    verdict.table(
        f"Alerts of one run only ({verdict.trial})",
        ("only when", "kind", "probability", "one", "other"),
        [
            (
                "undisturbed" if alert_id in calm.alert_ids else "disturbed",
                names[alert_id].kind,
                names[alert_id].probability,
                f"{names[alert_id].query.claim_id}/{names[alert_id].query.photo_id}",
                f"{names[alert_id].match.claim_id}/{names[alert_id].match.photo_id}",
            )
            for alert_id in sorted(calm.alert_ids ^ disturbed.alert_ids)
        ],
    )
    keys: list[PhotoKey] = [photo.key for photo in photos.photos]
    missing, doubled = disturbed.missing(keys), disturbed.doubled()
    lost, new = calm.alert_ids - disturbed.alert_ids, disturbed.alert_ids - calm.alert_ids
    verdict.check("alerts when undisturbed", len(calm.alert_ids), "> 0", bool(calm.alert_ids))
    verdict.check("of them lost", len(lost), "0", not lost)
    verdict.check("alerts that came only now", len(new), "0", not new)
    verdict.check(
        "alert records beyond the first of their id",
        disturbed.doubled_alerts,
        "0",
        not disturbed.doubled_alerts,
    )
    verdict.check("photos in neither detections nor dead letters", len(missing), "0", not missing)
    verdict.check("photos told of more than once", len(doubled), "0", not doubled)


def _committed(verdict: Verdict, stream: Stream) -> None:
    committed, published = stream.committed(), stream.published()
    verdict.check("committed offsets at the end", committed, str(published), committed == published)
