"""`damagewatch dlq`: records that could not be processed, and what to do about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.parameters import Json, Since
from damagewatch.cli.stream import moment
from damagewatch.domain import Refused
from damagewatch.settings import Settings

if TYPE_CHECKING:
    from damagewatch.broker.record import Partition, Record

dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be processed, and why.")

Reason = Annotated[
    str | None, typer.Option(help="Only with this reason code, such as truncated.", show_default=False)
]
Letter = Annotated[str, typer.Argument(help="As `dlq list` names it: PARTITION@OFFSET.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(dlq_app, name="dlq", rich_help_panel="The stream")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What the headers of a dead letter say."""

    letter: str
    time: str
    reason: str
    detail: str
    stage: str
    claim: str
    photo: str
    topic: str
    partition: int
    offset: int
    sha256: str
    size: str
    version: str

    @property
    def origin(self) -> Partition:
        """Partition of the record that it is about."""
        from damagewatch.broker.record import Partition

        return Partition(self.topic, self.partition)


@dlq_app.command("list")
def list_letters(json: Json = False, since: Since = None, reason: Reason = None) -> None:
    """Print dead letters, oldest first within each partition.

    Examples:

      damagewatch dlq list --since 1d

      damagewatch dlq list --json | jq -r .reason | sort | uniq -c
    """
    rows = []
    for letter in _letters(Settings(), since, reason):
        if json:
            output.json_line(_json(letter))
        else:
            rows.append(
                (letter.letter, letter.time, letter.reason, letter.claim, letter.photo, letter.detail)
            )
    if not json:
        output.table(("letter", "time", "reason", "claim", "photo", "detail"), rows)


@dlq_app.command("show")
def show_letter(
    letter: Letter,
    json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="File for the original record's value.", show_default=False)
    ] = None,
) -> None:
    """Print all that a dead letter says, and fetch the record that it is about.

    Examples:

      damagewatch dlq show 3@17 --out record.bin
    """
    settings = Settings()
    found = next((each for each in _letters(settings, None, None) if each.letter == letter), None)
    if found is None:
        raise Failure(f"there is no dead letter {letter}")
    if json:
        output.json_line(_json(found))
    else:
        output.table(("what", "value"), list(_json(found).items()))
    if out is not None:
        record = _original(settings, found)
        if record is None or record.value is None:
            raise Failure(f"the record {found.topic} {found.partition}@{found.offset} is gone or empty")
        out.write_bytes(record.value)
        output.note(f"{len(record.value)} bytes in {out}")


@dlq_app.command("replay")
def replay_letters(
    letter: Annotated[
        str | None, typer.Argument(help="One dead letter; default: all that fit.", show_default=False)
    ] = None,
    since: Since = None,
    reason: Reason = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent again.")] = False,
) -> None:
    """Send the records behind dead letters again, as they were: after a fix, or a change of limits.

    A record is taken from where it came; one that its topic no longer holds is told and left out.

    Examples:

      damagewatch dlq replay --reason reference_not_found --since 2h

      damagewatch dlq replay 3@17
    """
    from damagewatch.broker.publisher import Publisher
    from damagewatch.broker.record import OutgoingRecord

    settings = Settings()
    letters = [each for each in _letters(settings, since, reason) if letter is None or each.letter == letter]
    if letter is not None and not letters:
        raise Failure(f"there is no dead letter {letter}")
    originals = {(each.topic, each.partition, each.offset): each for each in letters}
    outcome: Counter[str] = Counter()
    with Publisher(settings.kafka.options()) as publisher, output.progress("dead letters") as bar:
        task = bar.add_task("replaying", total=len(originals))
        for each in originals.values():
            bar.advance(task)
            record = _original(settings, each)
            if record is None:
                outcome["gone"] += 1
                output.note(f"{each.letter}: {each.topic} {each.partition}@{each.offset} is gone")
                continue
            outcome["sent"] += 1
            if not dry_run:
                publisher.publish(OutgoingRecord(record.topic, record.key, record.value, record.headers))
    verb = "would be sent" if dry_run else "sent"
    output.line(f"{outcome['sent']} records {verb} again, {outcome['gone']} are gone")
    if outcome["gone"]:
        raise Failure(f"{outcome['gone']} records are no longer there")


def _letters(settings: Settings, since: str | None, reason: str | None) -> Iterator[DeadLetter]:
    from damagewatch.broker.reader import TopicReader

    reader = TopicReader(settings.kafka.options(), settings.kafka.topics.dead_letters)
    for record in reader.read(since_ms=moment(since)):
        letter = _read(record)
        if reason is None or letter.reason == reason:
            yield letter


def _read(record: Record) -> DeadLetter:
    from damagewatch.broker import deadletter
    from damagewatch.contracts import codec

    def told(name: str) -> str:
        return (record.header(name) or b"").decode("utf-8", errors="replace")

    try:
        photo = codec.decode_dead_letter(record.value or b"", record.headers).photo_id
    except Refused:  # of a record that the Kafka client itself could not read, the letter is headers alone
        photo = ""
    return DeadLetter(
        letter=f"{record.partition}@{record.offset}",
        time=datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).isoformat(timespec="seconds"),
        reason=told(deadletter.REASON),
        detail=told(deadletter.DETAIL),
        stage=told(deadletter.STAGE),
        claim=(record.key or b"").decode("utf-8", errors="replace"),
        photo=photo,
        topic=told(deadletter.ORIGIN_TOPIC),
        partition=int(told(deadletter.ORIGIN_PARTITION) or -1),
        offset=int(told(deadletter.ORIGIN_OFFSET) or -1),
        sha256=told(deadletter.SHA256),
        size=told(deadletter.SIZE),
        version=told(deadletter.VERSION),
    )


def _original(settings: Settings, letter: DeadLetter) -> Record | None:
    from damagewatch.broker.reader import TopicReader

    return TopicReader(settings.kafka.options(), letter.topic).at(letter.origin, letter.offset)


def _json(letter: DeadLetter) -> dict[str, object]:
    return {name: getattr(letter, name) for name in DeadLetter.__slots__}
