"""Commands on the stream: photos in, the matcher, alerts out, claims erased."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.parameters import Json, Paths, Photo, Since, Tenant
from damagewatch.cli.telling import print_alert
from damagewatch.domain import ClaimImage, Refused
from damagewatch.folders import PhotoFile, photos_in
from damagewatch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from damagewatch.broker.record import OutgoingRecord
    from damagewatch.domain import Alert

PANEL = "The stream"
SEEN_IDS = 1_000_000
"""Alert ids that are remembered, to drop doubled ones."""
LAST_SECONDS = 3.0
"""For the last words of a matcher that has ended; then nothing is waited for any more."""


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (publish, matcher, alerts, search, erase):
        app.command(rich_help_panel=PANEL)(command)


def publish(
    paths: Paths,
    claim: Annotated[
        str | None,
        typer.Option(
            help="Claim of all photos; default: the name of each photo's folder.", show_default=False
        ),
    ] = None,
    claim_per_photo: Annotated[
        bool, typer.Option("--claim-per-photo", help="Each photo is a claim of its own, named like the file.")
    ] = False,
    tenant: Tenant = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(help="Such as make=Audi; may be repeated.", metavar="NAME=VALUE", show_default=False),
    ] = None,
    by_reference: Annotated[
        bool, typer.Option("--by-reference", help="Send file:// addresses in place of the photos' bytes.")
    ] = False,
) -> None:
    """Publish claim photos to Kafka. The photo id is the file's name.

    Files that are no photos are published all the same: what becomes of them is told on the dead-letter topic.

    Examples:

      damagewatch publish claims/

      damagewatch publish photo.jpg --claim 2026-0815 --attribute make=Audi --attribute colour=grey
    """
    from damagewatch.broker.publisher import Publisher

    if claim is not None and claim_per_photo:
        raise typer.BadParameter("give --claim or --claim-per-photo, not both")
    settings = Settings()
    attributes = _attributes(attribute or [])
    files = list(photos_in(paths, claim=claim, claim_per_photo=claim_per_photo))
    if not files:
        raise Failure(f"no photos in {', '.join(str(path) for path in paths)}")
    failed = 0
    with Publisher(settings.kafka.options()) as publisher, output.progress() as bar:
        task = bar.add_task("publishing", total=len(files))
        for file in files:
            try:
                publisher.publish(record_of(file, settings, tenant, attributes, by_reference=by_reference))
            except Refused as refused:
                failed += 1
                output.note(f"{file.path}: {refused.detail}")
            bar.advance(task)
        publisher.flush()
    output.note(f"{len(files) - failed} photos of {len({f.claim_id for f in files})} claims published")
    if failed:
        raise Failure(f"{failed} photos could not be published")


def record_of(
    file: PhotoFile,
    settings: Settings,
    tenant: str | None = None,
    attributes: dict[str, str] | None = None,
    *,
    by_reference: bool = False,
) -> OutgoingRecord:
    """The record that carries a photo from a file.

    Raises:
        Refused: the file cannot be read, or no message could hold it.
    """
    from damagewatch.broker.record import OutgoingRecord
    from damagewatch.contracts import codec

    image = ClaimImage(
        tenant=tenant or settings.tenant,
        claim_id=file.claim_id,
        photo_id=file.photo_id,
        content=None if by_reference else file.read(settings.kafka.max_message_bytes),
        uri=file.path.resolve().as_uri() if by_reference else None,
        received_at=datetime.now(UTC),
        attributes=attributes or {},
    )
    return OutgoingRecord(
        settings.kafka.topics.images,
        file.claim_id.encode(),
        codec.encode(image),
        tuple(codec.headers_of(image)),
    )


def matcher() -> None:
    """Run the matcher: photos in; detections, alerts and dead letters out, exactly once.

    Set up by environment variables (`damagewatch settings` prints them). SIGTERM or Ctrl-C: finishes what is in
    work, commits, leaves the consumer group, exits 0. Health and metrics: /livez, /readyz, /metrics on
    DAMAGEWATCH_TELEMETRY__PORT.

    Examples:

      DAMAGEWATCH_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 damagewatch matcher
    """
    from damagewatch.matcher.service import end_within, run, stop_on_signals
    from damagewatch.telemetry import logs

    settings = Settings()
    logs.configure(settings.telemetry.log_level, settings.telemetry.log_format)
    try:
        run(settings, stop_on_signals())
    except BaseException:
        end_within(LAST_SECONDS, code=1)
        raise
    end_within(LAST_SECONDS, code=0)


def alerts(
    json: Json = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as alerts arrive, until Ctrl-C.")
    ] = False,
    since: Since = None,
) -> None:
    """Print alerts: committed ones only, each once.

    Examples:

      damagewatch alerts --follow

      damagewatch alerts --since 2h --json | jq 'select(.probability > 0.99)'
    """
    for alert in read_alerts(Settings(), since=since, follow=follow):
        print_alert(alert, json=json)


def read_alerts(
    settings: Settings,
    *,
    since: str | None = None,
    follow: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[Alert]:
    """Committed alerts, each id once."""
    from damagewatch.broker.reader import TopicReader
    from damagewatch.contracts import codec

    reader = TopicReader(settings.kafka.options(), settings.kafka.topics.alerts)
    seen: dict[str, None] = {}
    for record in reader.read(since_ms=moment(since), follow=follow, stop=stop):
        try:
            alert = codec.decode_alert(record.value or b"", record.headers)
        except Refused as refused:
            output.note(f"{record.topic} {record.partition}@{record.offset}: {refused.detail}")
            continue
        identity = str(alert.alert_id)
        if identity in seen:
            continue
        seen[identity] = None
        if len(seen) > SEEN_IDS:
            del seen[next(iter(seen))]
        yield alert


def search(
    photo: Photo,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="How many damages to print.")] = 10,
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Search the live index for the damages of a photo. Nothing is remembered or published.

    The index in a folder (DAMAGEWATCH_INDEX__PATH) belongs to one process: stop the matcher first. A Qdrant server
    (DAMAGEWATCH_INDEX__URL) can be searched at any time.

    Examples:

      damagewatch search photo.jpg --top-k 5
    """
    from contextlib import closing

    from damagewatch.assembly import (
        collection_of,
        make_recognition,
        open_active,
        open_evidence,
        open_index,
    )
    from damagewatch.cli.looking import Looker

    settings = Settings()
    wide = settings.index.model_copy(update={"candidates": max(top_k, settings.index.candidates)})
    settings = settings.model_copy(update={"tenant": tenant or settings.tenant, "index": wide})
    look = Looker(settings)
    perceived = look(PhotoFile(photo, "", photo.name))
    if perceived is None:
        raise Failure("nothing was searched for")
    named, ours = open_active(settings, look.models).get(), collection_of(look.models)
    if named not in (None, ours):
        output.note(
            f"the matchers search {named}, these models {ours}: set DAMAGEWATCH_MODELS__DIRECTORY to theirs"
        )
    with closing(open_index(settings, look.models)) as index:
        recognition = make_recognition(settings, look.models, index, open_evidence(settings))
        found = recognition.nearest(perceived)[:top_k]
    rows = []
    for near in found:
        match = near.match
        side, box = near.candidate, near.candidate.damage.box
        row = {
            "cosine": round(near.cosine, 4),
            "kind": match.kind.value if match else None,
            "probability": round(match.probability, 6) if match else None,
            "claimId": side.photo.claim_id,
            "photoId": side.photo.photo_id,
            "damageId": str(side.damage.damage_id),
            "type": side.damage.type.value,
            "box": [round(value, 1) for value in (box.x0, box.y0, box.x1, box.y1)],
        }
        rows.append(row)
    if json:
        for row in rows:
            output.json_line(row)
        return
    columns = ("cosine", "kind", "probability", "claimId", "photoId", "type", "box")
    output.table(columns, [["" if row[c] is None else row[c] for c in columns] for row in rows])


def erase(
    claim: Annotated[str, typer.Argument(help="Id of the claim.", show_default=False)],
    tenant: Tenant = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the receipt; 0: do not.")] = 30.0,
) -> None:
    """Erase a claim: its damages from the index and its crops from the evidence store.

    Asks by a tombstone on the photos' topic; the matcher that erases it publishes a receipt. Records that Kafka
    still holds go when their retention ends.

    Examples:

      damagewatch erase 2026-0815
    """
    from damagewatch.broker.publisher import Publisher
    from damagewatch.broker.reader import TopicReader
    from damagewatch.broker.record import OutgoingRecord
    from damagewatch.contracts import codec, topics

    settings = Settings()
    named = tenant or settings.tenant
    asked_ms = round(time.time() * 1000) - 1000
    headers = ((topics.TENANT, named.encode()),)
    with Publisher(settings.kafka.options()) as publisher:
        publisher.publish(OutgoingRecord(settings.kafka.topics.images, claim.encode(), None, headers))
    if not wait:
        output.line(f"asked to erase claim {claim} of tenant {named}")
        return
    stop = threading.Event()
    timer = threading.Timer(wait, stop.set)
    timer.daemon = True
    timer.start()
    reader = TopicReader(settings.kafka.options(), settings.kafka.topics.detections)
    for record in reader.read(since_ms=asked_ms, follow=True, stop=stop):
        if not is_erasure(record.headers):
            continue
        receipt = codec.decode_erasure(record.value or b"", record.headers)
        if (receipt.tenant, receipt.claim_id) == (named, claim):
            timer.cancel()
            output.line(f"erased claim {claim}: {receipt.points} damages, {receipt.crops} crops")
            return
    raise Failure(f"no receipt within {wait:g} s: is a matcher running? The claim is erased once one is")


def is_erasure(headers: tuple[tuple[str, bytes], ...]) -> bool:
    """Whether a record of the detections' topic is the receipt of an erasure."""
    from damagewatch.contracts import topics

    return (topics.MESSAGE_TYPE, b"damagewatch.v1.Erasure") in headers


def moment(since: str | None) -> int | None:
    """Milliseconds since 1970 UTC of `30s`, `10m`, `2h`, `7d` ago, or of an ISO 8601 time."""
    if since is None:
        return None
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", since.strip()):
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
        at = datetime.now(UTC) - timedelta(**{unit: float(ago[1])})
    else:
        try:
            at = datetime.fromisoformat(since.strip())
        except ValueError:
            raise typer.BadParameter(
                f"--since takes 30s, 10m, 2h, 7d or an ISO 8601 time, not {since!r}"
            ) from None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)


def _attributes(given: list[str]) -> dict[str, str]:
    attributes = dict(part.split("=", 1) for part in given if "=" in part)
    if len(attributes) != len(given):
        raise typer.BadParameter("--attribute takes NAME=VALUE, each name once")
    return attributes
