"""`damagewatch demo`: the main job on a real Kafka, from nothing, with everything stopped at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.stream import read_alerts, record_of
from damagewatch.cli.telling import print_alert
from damagewatch.folders import PhotoFile
from damagewatch.settings import PREFIX, Settings

if TYPE_CHECKING:
    from damagewatch.demo import Outcome
    from damagewatch.domain import Alert
    from damagewatch.synthesis.expectations import DemoSet, PhotoKey

START_SECONDS = 60.0
QUIET_SECONDS = 120.0
"""Without any photo decided for so long, the demo gives up."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel="The stream")(demo)


def demo(
    photos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of your own photos: each becomes a claim, a tenth is photographed again into other "
            "claims. Default: a set of drawn ones.",
            show_default=False,
        ),
    ] = None,
    directory: Annotated[
        Path, typer.Option(help="Folder for all that the demo makes; emptied first.")
    ] = Path("data/demo"),
    seed: Annotated[
        int | None,
        typer.Option(help="Makes other photos; default: the seed that the drawn set was looked over with."),
    ] = None,
) -> None:
    """Show the main job: photos into a real Kafka, alerts out of it, the evidence on a page.

    Starts a broker, a matcher and an index of its own, and stops them all. Exit code 0 only if what had to be
    found was found, and nothing else.

    Examples:

      damagewatch demo

      damagewatch demo --photos ~/claims-2026
    """
    from damagewatch.demo import judge

    began = time.monotonic()
    with ExitStack() as closing:
        _emptied(directory)
        made = _photos(photos, directory / "photos", seed)
        settings = _settings(closing.enter_context(_kafka(directory / "kafka")), directory)
        _create_topics(settings)
        matcher = closing.enter_context(_matcher(settings, directory))
        alerts, refused, processed = _stream(made, settings, matcher, directory)
    outcome = judge(made, alerts, refused, processed)
    _print_outcome(outcome)
    page = _report(outcome, alerts, made, settings, directory)
    output.line(f"evidence page: {page.resolve()}")
    output.note(f"{len(made.photos)} photos in {time.monotonic() - began:.0f} s, all stopped again")
    if not outcome.ok:
        raise Failure(f"not all is as planted; the matcher's log is {directory / 'matcher.log'}")


def _emptied(directory: Path) -> None:
    """Removes what an earlier demo left; only what a demo makes, whatever else is in the folder."""
    from damagewatch.broker.development import DevelopmentKafka

    DevelopmentKafka(directory / "kafka").down()
    for name in ("kafka", "photos", "index", "evidence"):
        shutil.rmtree(directory / name, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)


def _photos(photos: Path | None, target: Path, seed: int | None) -> DemoSet:
    if photos is None:
        from damagewatch.synthesis.drawn_set import SEED, demo_set

        output.note("drawing photos of damaged cars")
        return demo_set(target, SEED if seed is None else seed)
    from damagewatch.synthesis.rephotographed_set import rephotographed_set

    if not photos.is_dir():
        raise Failure(f"no such folder: {photos}", 2)
    output.note(f"photographing a tenth of {photos} again")
    made = rephotographed_set(photos, target, seed or 0)
    if not made.photos:
        raise Failure(f"no photos in {photos}", 2)
    return made


@contextmanager
def _kafka(directory: Path) -> Iterator[str]:
    """A broker of our own, on a free port. Gives its address."""
    from damagewatch.broker.development import DevelopmentKafka, DevelopmentKafkaError

    broker = DevelopmentKafka(directory, progress=output.note)
    try:
        try:
            address = broker.up()
        except DevelopmentKafkaError as error:
            raise Failure(str(error)) from None
        output.note(f"Apache Kafka answers on {address}")
        yield address
    finally:
        broker.down()


def _settings(bootstrap: str, directory: Path) -> Settings:
    """The environment's, with Kafka, the index and the evidence store of the demo."""
    settings = Settings()
    return settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(
                update={"bootstrap_servers": (bootstrap,), "worker": "demo-matcher", "group": "demo"}
            ),
            "index": settings.index.model_copy(update={"url": None, "path": directory / "index"}),
            "evidence": settings.evidence.model_copy(update={"url": str((directory / "evidence").resolve())}),
        }
    )


def _create_topics(settings: Settings) -> None:
    from damagewatch.broker.topics import Topics, TopicSpec

    topics = Topics(settings.kafka.options())
    names = settings.kafka.topics
    for name in (names.images, names.detections, names.alerts, names.dead_letters):
        topics.create(TopicSpec(name, partitions=2, replication=1))


@contextmanager
def _matcher(settings: Settings, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The matcher in a process of its own, as in production; ended by SIGTERM."""
    environment = os.environ | {
        f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS": ",".join(settings.kafka.bootstrap_servers),
        f"{PREFIX}KAFKA__WORKER": settings.kafka.worker,
        f"{PREFIX}KAFKA__GROUP": settings.kafka.group,
        f"{PREFIX}INDEX__PATH": str(settings.index.path),
        f"{PREFIX}EVIDENCE__URL": settings.evidence.url,
        f"{PREFIX}TELEMETRY__PORT": "0",
    }
    environment.pop(f"{PREFIX}INDEX__URL", None)
    with (directory / "matcher.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "damagewatch", "matcher"], env=environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(settings.matcher.drain_timeout + 10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _stream(
    made: DemoSet, settings: Settings, matcher: subprocess.Popen[bytes], directory: Path
) -> tuple[list[Alert], dict[PhotoKey, str], list[PhotoKey]]:
    """Publishes all photos, prints alerts as they come, and returns when every photo has been decided."""
    from damagewatch.broker.publisher import Publisher

    alerts: list[Alert] = []
    heard = _Heard(settings)
    threads = [
        threading.Thread(target=_follow_alerts, args=(settings, alerts, heard.stop), daemon=True),
        threading.Thread(target=heard.follow_detections, daemon=True),
        threading.Thread(target=heard.follow_dead_letters, daemon=True),
    ]
    for thread in threads:
        thread.start()
    total = len(made.photos)
    try:
        with Publisher(settings.kafka.options()) as publisher, output.progress() as bar:
            publishing = bar.add_task("published", total=total)
            deciding = bar.add_task("decided", total=total)
            for photo in made.photos:
                file = PhotoFile(photo.path, photo.claim_id, photo.photo_id)
                publisher.publish(record_of(file, settings))
                bar.update(publishing, advance=1)
                bar.update(deciding, completed=heard.count)
            publisher.flush()
            last, since = -1, time.monotonic()
            while (count := heard.count) < total:
                bar.update(deciding, completed=count)
                if count != last:
                    last, since = count, time.monotonic()
                if matcher.poll() is not None:
                    raise Failure(f"the matcher ended; its log is {directory / 'matcher.log'}")
                if time.monotonic() - since > QUIET_SECONDS:
                    break
                time.sleep(0.1)
            bar.update(deciding, completed=heard.count)
        time.sleep(
            1.0
        )  # alerts come with the detections, in one transaction; their reader may be a poll behind
    finally:
        heard.stop.set()
        for thread in threads:
            thread.join(5)
    return alerts, heard.refused, heard.processed


class _Heard:
    """What is heard of each photo: detections, or a dead letter."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.stop = threading.Event()
        self.processed: list[PhotoKey] = []
        self.refused: dict[PhotoKey, str] = {}

    @property
    def count(self) -> int:
        """Photos of which something was heard."""
        return len(self.processed) + len(self.refused)

    def follow_detections(self) -> None:
        """Until `stop` is set."""
        from damagewatch.broker.reader import TopicReader
        from damagewatch.contracts import codec

        reader = TopicReader(self._settings.kafka.options(), self._settings.kafka.topics.detections)
        for record in reader.read(follow=True, stop=self.stop):
            found = codec.decode_detections(record.value or b"", record.headers)
            self.processed.append((found.photo.claim_id, found.photo.photo_id))

    def follow_dead_letters(self) -> None:
        """Until `stop` is set."""
        from damagewatch.broker.reader import TopicReader
        from damagewatch.contracts import codec

        reader = TopicReader(self._settings.kafka.options(), self._settings.kafka.topics.dead_letters)
        for record in reader.read(follow=True, stop=self.stop):
            letter = codec.decode_dead_letter(record.value or b"", record.headers)
            self.refused[letter.claim_id, letter.photo_id] = letter.reason


def _follow_alerts(settings: Settings, alerts: list[Alert], stop: threading.Event) -> None:
    for alert in read_alerts(settings, follow=True, stop=stop):
        alerts.append(alert)
        print_alert(alert, json=False)


def _print_outcome(outcome: Outcome) -> None:
    """Expected against found."""
    rows = [
        (
            " ~ ".join("/".join(photo) for photo in row.pair),
            row.why,
            " or ".join(sorted(kind.value for kind in row.kinds)),
            ", ".join(f"{alert.kind} {alert.probability:.3f}" for alert in row.found) or "nothing",
            "yes" if row.ok else "NO",
        )
        for row in outcome.expected
    ]
    found = sum(row.ok for row in outcome.expected)
    columns = ("photos", "planted", "expected", "found", "as planted")
    output.table(columns, rows, title=f"Planted returns: {found} of {len(rows)} found")
    if outcome.rejected:
        output.table(
            ("file", "what it is", "refused as", "as planted"),
            [
                ("/".join(r.photo), r.why, r.reason or "nothing", "yes" if r.ok else "NO")
                for r in outcome.rejected
            ],
            title="Broken files",
        )
    for alert in outcome.others:
        query, match = alert.query, alert.match
        output.line(
            f"{'FALSE ALERT' if outcome.closed else 'not planted'}: {alert.kind} {alert.probability:.3f} "
            f"{query.claim_id}/{query.photo_id} ~ {match.claim_id}/{match.photo_id}"
        )
    for photo, reason in outcome.unexpected_rejections:
        output.line(f"refused: {'/'.join(photo)}: {reason}")
    for photo in outcome.missing:
        output.line(f"MISSING: nothing was heard of {'/'.join(photo)}")
    output.line(
        f"{found} of {len(rows)} planted returns found, {len(outcome.others)} other alerts"
        f"{' (false)' if outcome.closed and outcome.others else ''}, "
        f"{sum(r.ok for r in outcome.rejected)} of {len(outcome.rejected)} broken files refused as expected, "
        f"{len(outcome.missing)} photos missing"
    )


def _report(
    outcome: Outcome, alerts: list[Alert], made: DemoSet, settings: Settings, directory: Path
) -> Path:
    from damagewatch.evidence import EvidenceStore
    from damagewatch.report import write_report

    found = sum(row.ok for row in outcome.expected)
    page = directory / "evidence.html"
    write_report(
        page,
        sorted(alerts, key=lambda alert: (-alert.probability, str(alert.alert_id))),
        EvidenceStore(settings.evidence.url).read,
        title="damagewatch demo",
        summary=[
            ("photos", str(len(made.photos))),
            ("claims", str(len({photo.claim_id for photo in made.photos}))),
            ("planted returns found", f"{found} of {len(outcome.expected)}"),
            ("other alerts", str(len(outcome.others))),
        ],
        rejected=[("/".join(row.photo), row.reason, row.why) for row in outcome.rejected]
        + [("/".join(photo), reason, "") for photo, reason in outcome.unexpected_rejections],
    )
    return page
