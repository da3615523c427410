"""Of photos photographed again into other claims, how many are alerted, and what is alerted that should not be."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

from damagewatch.assembly import load_models, make_recognition, open_evidence, open_index
from damagewatch.demo import pair_of
from damagewatch.domain import Alert, ClaimImage
from damagewatch.evidence import EvidenceStore
from damagewatch.report import write_report
from damagewatch.settings import Settings
from damagewatch.synthesis.expectations import Pair
from damagewatch.vision import decide, looks
from damagewatch.vision.perceive import Perception

from .outcome import Outcome, read
from .photos import SAME, TrialSet
from .stand import Matcher, Stand, Tell
from .verdict import Verdict

SHARE_FOUND = 0.9
FALSE_PER_PHOTO = 4 / 400


def run(stand: Stand, photos: TrialSet, partitions: int, tell: Tell, report: Path | None = None) -> Verdict:
    """Publishes all, waits, judges each alert; with `report`, a page shows those in doubt."""
    stream = stand.stream("recall", partitions)
    stream.publish(photos.photos)
    with Matcher(stream) as matcher:
        stream.wait(matcher, len(photos.photos), tell)
        code = matcher.stop()
    outcome = read(stream)
    by_pair: dict[Pair, Alert] = {pair_of(alert): alert for alert in outcome.alerts}
    related = {pair: photos.relation(pair) for pair in by_pair}
    found = [pair for pair in photos.planted if pair in by_pair]
    missed = sorted(photos.planted - set(found), key=sorted)
    doubtful = [pair for pair, relation in related.items() if relation != "planted" and relation not in SAME]
    copies = len(photos.planted)
    originals = len(photos.photos) - copies

    verdict = Verdict("recall", _facts(stream.settings, photos))
    tell(f"looking at {len(missed)} misses")
    verdict.table(
        "Planted and missed",
        ("original", "again", "why", "place", "probability", "signals"),
        _misses(stream.settings, photos, missed),
    )
    verdict.table(
        "Alerts that are false, or that nobody has judged",
        ("verdict", "kind", "probability", "one", "other", "signals"),
        [
            (
                related[pair] or "unlisted",
                f"{by_pair[pair].kind}{' mirrored' if by_pair[pair].mirrored else ''}",
                by_pair[pair].probability,
                *(_name(photos, key) for key in sorted(pair)),
                _signals(by_pair[pair].signals),
            )
            for pair in sorted(doubtful, key=lambda pair: -by_pair[pair].probability)
        ],
    )
    verdict.table(
        "Alerts by what is known of the pair",
        ("pair", "alerts"),
        sorted(Counter(relation or "unlisted" for relation in related.values()).items()),
    )
    least = round(SHARE_FOUND * copies)
    most = max(1, round(FALSE_PER_PHOTO * originals))
    verdict.check(f"planted found, of {copies}", len(found), f">= {least}", len(found) >= least)
    verdict.check("false or unjudged alerts", len(doubtful), f"<= {most}", len(doubtful) <= most)
    _complete(verdict, photos, outcome)
    verdict.check("exit code after SIGTERM", code, "0", code == 0)
    if report is not None:
        write_report(
            report,
            [by_pair[pair] for pair in doubtful],
            EvidenceStore(stream.settings.evidence.url).read,
            title="Alerts that are false, or that nobody has judged",
        )
        tell(f"evidence page: {report.resolve()}")
    return verdict


def _facts(settings: Settings, photos: TrialSet) -> dict[str, object]:
    models = load_models(settings)
    return {"photos": len(photos.photos), "planted": len(photos.planted), **models.versions}


def _complete(verdict: Verdict, photos: TrialSet, outcome: Outcome) -> None:
    keys = [photo.key for photo in photos.photos]
    missing, doubled = outcome.missing(keys), outcome.doubled()
    refused = Counter(letter.reason for letter in outcome.letters)
    verdict.table("Dead letters", ("reason", "photos"), sorted(refused.items()))
    verdict.check("photos in neither detections nor dead letters", len(missing), "0", not missing)
    verdict.check("photos told of more than once", len(doubled), "0", not doubled)
    verdict.check("alert records beyond the first", outcome.doubled_alerts, "0", not outcome.doubled_alerts)


def _misses(settings: Settings, photos: TrialSet, missed: list[Pair]) -> list[tuple[object, ...]]:
    """Asks the index again, which holds all photos now, what became of each pair that was missed."""
    if not missed:
        return []
    models = load_models(settings)
    perception = Perception(models, settings.limits.limits())
    rows: list[tuple[object, ...]] = []
    with closing(open_index(settings, models)) as index:
        recognition = make_recognition(settings, models, index, open_evidence(settings))
        for pair in missed:
            again, original = sorted(pair, key=lambda key: not key[0].startswith("again"))
            image = ClaimImage(settings.tenant, *again, photos.of(again).path.read_bytes())
            near = recognition.nearest(perception.perceive(image))
            ranked = list(
                dict.fromkeys((n.candidate.photo.claim_id, n.candidate.photo.photo_id) for n in near)
            )
            names = _name(photos, original), "/".join(again)
            if original not in ranked:
                rows.append((*names, "not among the candidates", "", "", ""))
                continue
            tried = [n for n in near if (n.candidate.photo.claim_id, n.candidate.photo.photo_id) == original]
            sightings = perception.perceive(image).sightings
            signals = max(
                (
                    decide.measure(
                        sighting, n.candidate, looks.compared(sighting, n.candidate), models.calibration
                    )
                    for n in tried
                    for sighting in sightings
                ),
                key=models.calibration.probability,
            )
            matched = any(n.match is not None for n in tried)
            place = ranked.index(original) + 1
            why = "found when asked now" if matched else "lost in verification"
            rows.append((*names, why, place, models.calibration.probability(signals), _signals(signals)))
    return rows


def _name(photos: TrialSet, key: tuple[str, str]) -> str:
    photo = photos.of(key)
    again = " (again)" if photo.path != photo.original else ""
    return f"{'/'.join(photo.original.parts[-3:])}{again}"


def _signals(signals: object) -> str:
    names = ("cosine", "inliers", "focus_inliers", "inlier_ratio", "alignment", "overlap", "hash_distance")
    return " ".join(f"{name}={getattr(signals, name):.3g}" for name in names)
