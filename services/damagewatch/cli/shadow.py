"""`damagewatch models shadow` and `shadow-report`: other models on the same photos, and how they differ."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.inspect import models_app
from damagewatch.cli.parameters import Json, Since
from damagewatch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Set

    from damagewatch.domain import Alert, PhotoRef

DATA = Path("data/shadow")


def register(_app: typer.Typer) -> None:
    """Adds the commands."""
    models_app.command("shadow")(shadow)
    models_app.command("shadow-report")(shadow_report)


def shadow(
    models: Annotated[
        Path,
        typer.Argument(help="Folder of the other models.", show_default=False, exists=True, file_okay=False),
    ],
    data: Annotated[Path, typer.Option(help="Where its index and crops lie.")] = DATA,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of its health and metrics; 0: any.")] = 0,
) -> None:
    """Run a matcher with other models on the same photos. What it finds goes to topics of its own.

    Their names end in .shadow, as does its consumer group; nothing of the matcher that counts is touched. It begins
    with the oldest photo that Kafka holds. SIGTERM or Ctrl-C ends it in good order, as `damagewatch matcher`.

    Examples:

      damagewatch models shadow models-2

      damagewatch models shadow-report --since 1d
    """
    from damagewatch.broker.topics import Topics, TopicSpec
    from damagewatch.matcher.service import run, stop_on_signals
    from damagewatch.matcher.shadow import shadowed
    from damagewatch.telemetry import logs

    settings = shadowed(Settings(), models, data, port)
    logs.configure(settings.telemetry.log_level, settings.telemetry.log_format)
    topics = settings.kafka.topics
    for name in (topics.detections, topics.alerts, topics.dead_letters):
        Topics(settings.kafka.options()).create(TopicSpec(name, partitions=1))
    run(settings, stop_on_signals())


def shadow_report(since: Since = None, json: Json = False) -> None:
    """Compare what the shadow's models alerted with what the models in use did.

    Of photos that the shadow has not seen it could not alert: those pairs are counted apart.

    Examples:

      damagewatch models shadow-report --since 7d

      damagewatch models shadow-report --json | jq 'select(.verdict == "shadow only")'
    """
    from damagewatch.cli.stream import read_alerts
    from damagewatch.matcher.shadow import Verdict, compare_alerts, shadowed

    settings = Settings()
    other = shadowed(settings, settings.models.directory, DATA)
    compared = compare_alerts(
        read_alerts(settings, since=since), read_alerts(other, since=since), _photos_of(other)
    )
    rows = [
        {
            "verdict": row.verdict.value,
            "queryClaim": row.alert.query.claim_id,
            "queryPhoto": row.alert.query.photo_id,
            "matchClaim": row.alert.match.claim_id,
            "matchPhoto": row.alert.match.photo_id,
            "liveKind": _kind(row.live),
            "liveProbability": _probability(row.live),
            "shadowKind": _kind(row.shadow),
            "shadowProbability": _probability(row.shadow),
        }
        for row in compared
    ]
    if json:
        for told in rows:
            output.json_line(told)
        return
    count = Counter(row.verdict for row in compared)
    output.table(("verdict", "pairs"), [(verdict.value, count[verdict]) for verdict in Verdict])
    differing = [told for told in rows if told["verdict"] != Verdict.BOTH]
    if differing:
        output.table(
            tuple(differing[0]),
            [["" if cell is None else cell for cell in told.values()] for told in differing],
        )


def _photos_of(settings: Settings) -> Set[PhotoRef]:
    """Photos that a matcher has told of."""
    from damagewatch.broker.reader import TopicReader
    from damagewatch.cli.stream import is_erasure
    from damagewatch.contracts import codec

    reader = TopicReader(settings.kafka.options(), settings.kafka.topics.detections)
    return {
        codec.decode_detections(record.value or b"", record.headers).photo
        for record in reader.read()
        if not is_erasure(record.headers)
    }


def _kind(alert: Alert | None) -> str | None:
    return alert.kind.value if alert else None


def _probability(alert: Alert | None) -> float | None:
    return round(alert.probability, 6) if alert else None
