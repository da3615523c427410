"""`damagewatch replay`: claim photos of a stretch of time, sent again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.parameters import Since
from damagewatch.cli.stream import moment
from damagewatch.domain import Refused
from damagewatch.settings import Settings

if TYPE_CHECKING:
    from damagewatch.broker.record import Record


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel="The stream")(replay)


def replay(
    since: Since = None,
    until: Annotated[
        str | None, typer.Option(help="Only before then, as --since.", show_default=False)
    ] = None,
    claim: Annotated[str | None, typer.Option(help="Only photos of this claim.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent again.")] = False,
) -> None:
    """Send claim photos again that Kafka still holds: after a restore, with better models, or in a test.

    Harmless to repeat: a photo's damages and alerts have ids that derive from it, so each is remembered in the same
    place, and a reader drops an alert that it has seen. Photos that were erased are left out, and their claims named:
    after a restore erase them again, since the copy may hold them.

    Examples:

      damagewatch replay --since 2026-11-20T06:00:00Z

      damagewatch replay --since 2d --until 1d --claim 2026-0815
    """
    from damagewatch.broker.publisher import Publisher
    from damagewatch.broker.record import OutgoingRecord

    settings = Settings()
    end_ms = moment(until)
    if claim is None and since is None and end_ms is None:
        raise typer.BadParameter("say which: --since, --until or --claim")
    erased = _erasures(settings, since)
    sent = left_out = 0
    with Publisher(settings.kafka.options()) as publisher, output.progress() as bar:
        task = bar.add_task("replaying", total=None)
        for record in _records(settings, since):
            named = _claim_of(settings, record)
            late = end_ms is not None and record.timestamp_ms >= end_ms
            if record.value is None or late or (claim is not None and named[1] != claim):
                continue
            if record.offset < erased.get(named, {}).get(record.partition, 0):
                left_out += 1
                continue
            sent += 1
            bar.advance(task)
            if not dry_run:
                publisher.publish(OutgoingRecord(record.topic, record.key, record.value, record.headers))
    verb = "would be sent" if dry_run else "sent"
    output.line(f"{sent} photos {verb} again, {left_out} of erased claims left out")
    for tenant, claim_id in sorted(erased):
        if claim in (None, claim_id):
            output.note(f"erased since then: claim {claim_id} of tenant {tenant}")
    if not sent:
        raise Failure("there was nothing to send: Kafka holds no such photos")


def _erasures(settings: Settings, since: str | None) -> dict[tuple[str, str], dict[int, int]]:
    """Where each claim was last erased: by tenant and claim, of each partition the offset of the tombstone."""
    found: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for record in _records(settings, since):
        if record.value is None:
            found[_claim_of(settings, record)][record.partition] = record.offset
    return dict(found)


def _records(settings: Settings, since: str | None) -> Iterator[Record]:
    """Up to the end that the topic has now: what is sent again is not met."""
    from damagewatch.broker.reader import TopicReader

    reader = TopicReader(settings.kafka.options(), settings.kafka.topics.images)
    return reader.read(since_ms=moment(since))


def _claim_of(settings: Settings, record: Record) -> tuple[str, str]:
    """Tenant and claim of a photo or of an erasure; of a record that cannot be read, its key."""
    from damagewatch.contracts import codec

    try:
        if record.value is None:
            return codec.decode_tombstone(record.key, record.headers, settings.tenant)
        image = codec.decode_claim_image(record.value, record.key, record.headers, settings.tenant)
        return image.tenant, image.claim_id
    except Refused:
        return settings.tenant, (record.key or b"").decode("utf-8", errors="replace")
