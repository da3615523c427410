"""The stand of a trial: a broker and a folder of its own, streams on it, matchers as processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from damagewatch.broker.development import DevelopmentKafka
from damagewatch.broker.publisher import Publisher
from damagewatch.broker.record import OutgoingRecord
from damagewatch.broker.topics import Topics, TopicSpec
from damagewatch.contracts import codec
from damagewatch.domain import ClaimImage, DependencyDownError
from damagewatch.matcher import service
from damagewatch.settings import PREFIX, Settings

from .photos import TrialPhoto

CHECKOUT: Final = Path(__file__).resolve().parents[1]
MATCHER: Final = ("damagewatch", "matcher")
QUIET_SECONDS: Final = 180.0
"""Without any progress for so long, a trial gives up."""
STOP_SECONDS: Final = 40.0

Tell = Callable[[str], None]


class TrialError(Exception):
    """The trial could not be carried out to its end; the text says what to look at."""


class Stand:
    """A broker, and a folder for all that is made. Models are copied: those of a trial never change."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.models = folder / "models"
        shutil.copytree(Settings().models.directory, self.models)

    def stream(self, name: str, partitions: int) -> Stream:
        """A stream that shares nothing but the broker with others. `name` is new to the broker."""
        return Stream(self, name, partitions)


@contextmanager
def stand(tell: Tell, keep: Path | None = None) -> Iterator[tuple[Stand, DevelopmentKafka]]:
    """A stand with a broker of its own, gone at the end; with `keep` its folder stays, for a look at it."""
    folder = keep or Path(tempfile.mkdtemp(prefix="damagewatch-trial-"))
    broker = DevelopmentKafka(folder / "kafka", progress=tell)
    try:
        yield Stand(broker.up(), folder), broker
    finally:
        broker.down()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


class Stream:
    """Topics, a consumer group, an index and an evidence store of one run."""

    def __init__(self, stand: Stand, name: str, partitions: int) -> None:
        self.folder = stand.folder / name
        self.folder.mkdir()
        base = Settings()
        topics = base.kafka.topics.model_copy(
            update={kind: f"{name}.{kind}" for kind in ("images", "detections", "alerts", "dead_letters")}
        )
        self.settings = base.model_copy(
            update={
                "kafka": base.kafka.model_copy(
                    update={
                        "bootstrap_servers": (stand.bootstrap,),
                        "group": name,
                        "worker": f"{name}-worker",
                        "topics": topics,
                    }
                ),
                "index": base.index.model_copy(update={"url": None, "path": self.folder / "index"}),
                "evidence": base.evidence.model_copy(update={"url": str(self.folder / "evidence")}),
                "models": base.models.model_copy(update={"directory": stand.models}),
            }
        )
        self.options = self.settings.kafka.options()
        self.topics = topics
        self._admin = Topics(self.options)
        for topic in (topics.images, topics.detections, topics.alerts, topics.dead_letters):
            self._admin.create(TopicSpec(topic, partitions=partitions, replication=1))

    @property
    def environment(self) -> dict[str, str]:
        """What a matcher of this stream is told."""
        kafka, topics = self.settings.kafka, self.topics
        told = {
            "KAFKA__BOOTSTRAP_SERVERS": ",".join(kafka.bootstrap_servers),
            "KAFKA__GROUP": kafka.group,
            "KAFKA__WORKER": kafka.worker,
            "KAFKA__TOPICS__IMAGES": topics.images,
            "KAFKA__TOPICS__DETECTIONS": topics.detections,
            "KAFKA__TOPICS__ALERTS": topics.alerts,
            "KAFKA__TOPICS__DEAD_LETTERS": topics.dead_letters,
            "INDEX__PATH": str(self.settings.index.path),
            "EVIDENCE__URL": self.settings.evidence.url,
            "MODELS__DIRECTORY": str(self.settings.models.directory),
            "TELEMETRY__LOG_FORMAT": "json",
        }
        kept = {name: value for name, value in os.environ.items() if name != f"{PREFIX}INDEX__URL"}
        return kept | {f"{PREFIX}{name}": value for name, value in told.items()}

    def publish(self, photos: Iterable[TrialPhoto]) -> None:
        """Publishes photos, as any client would."""
        self.send(self.record(photo) for photo in photos)

    def send(self, records: Iterable[OutgoingRecord]) -> None:
        """Publishes records."""
        with Publisher(self.options) as publisher:
            for record in records:
                publisher.publish(record)

    def record(self, photo: TrialPhoto) -> OutgoingRecord:
        """The record that carries a photo."""
        image = ClaimImage(self.settings.tenant, photo.claim_id, photo.photo_id, photo.path.read_bytes())
        headers = tuple(codec.headers_of(image))
        return OutgoingRecord(self.topics.images, photo.claim_id.encode(), codec.encode(image), headers)

    def committed(self) -> int:
        """Records that the group has committed; 0 while it has committed none."""
        return sum(self._admin.committed_offsets(self.settings.kafka.group).values())

    def published(self) -> int:
        """Records that the group has to commit."""
        return sum(self._admin.end_offsets(self.topics.images).values())

    def wait(self, matcher: Matcher, until: int, each: Tell | None = None) -> int:
        """Waits until the group has committed `until` records, and returns how many it has.

        Raises:
            TrialError: The matcher ended, or nothing came for `QUIET_SECONDS`.
        """
        last, since = -1, time.monotonic()
        while True:
            try:
                count = self.committed()
            except DependencyDownError:
                count = last  # just after an outage
            if each is not None and count != last:
                each(f"{count} of {until} committed")
            if count != last:
                last, since = count, time.monotonic()
            if count >= until:
                return count
            if matcher.process.poll() is not None:
                raise TrialError(f"the matcher ended ({matcher.process.returncode}); its log: {matcher.log}")
            if time.monotonic() - since > QUIET_SECONDS:
                raise TrialError(f"no progress at {count} of {until}; the matcher's log: {matcher.log}")
            time.sleep(0.1)


class Matcher:
    """A matcher in a process of its own. A context manager: it is gone at the end, however that comes.

    Args:
        stream: What it works on.
        module: To run by `python -m`, with its arguments.
        environment: More of it, beside the stream's.
    """

    def __init__(
        self,
        stream: Stream,
        module: Sequence[str] = MATCHER,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = stream.folder / "matcher.log"
        self.port = _free_port()
        told = {f"{PREFIX}TELEMETRY__PORT": str(self.port)} | dict(environment or {})
        with self.log.open("ab") as log:
            self._log_begin = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=stream.environment | told,
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Matcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """Whether the process lives."""
        return self.process.poll() is None

    @property
    def told(self) -> str:
        """What this process has logged so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_begin)
            return log.read().decode(errors="replace")

    def kill(self) -> None:
        """SIGKILL: it learns nothing of it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code.

        Raises:
            TrialError: It does not end.
        """
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise TrialError(
                f"the matcher did not stop within {STOP_SECONDS:g} s; its log: {self.log}"
            ) from None

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body of /livez, /readyz or /metrics; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


@contextmanager
def matching(settings: Settings) -> Iterator[None]:
    """A matcher in this process, for as long as the block lasts; what it raises is raised at the end."""
    settings = settings.model_copy(update={"telemetry": settings.telemetry.model_copy(update={"port": 0})})
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="matcher") as pool:
        running = pool.submit(service.run, settings, stop)
        try:
            yield
        finally:
            stop.set()
    running.result()


def wait_for(true: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Waits until something is true.

    Raises:
        TrialError: It is not within that time.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TrialError(f"waited in vain for {what}")
        time.sleep(0.1)


def run_command(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `damagewatch` to its end, with exactly this environment."""
    command = [sys.executable, "-m", "damagewatch", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
