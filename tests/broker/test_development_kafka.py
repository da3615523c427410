from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from damagewatch.broker.development import DevelopmentKafka, DevelopmentKafkaError
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.topics import Topics, TopicSpec

pytestmark = pytest.mark.kafka


def test_it_outlives_its_starter_and_keeps_address_and_data_over_a_stop(tmp_path: Path) -> None:
    starter = (
        "import sys; from pathlib import Path; from damagewatch.broker.development import DevelopmentKafka; "
        "print(DevelopmentKafka(Path(sys.argv[1])).up())"
    )
    started = subprocess.run(
        [sys.executable, "-c", starter, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
        env={"PATH": "/nonexistent", "HOME": str(Path.home())},  # no Java, no Maven
    )
    told: list[str] = []
    kafka = DevelopmentKafka(tmp_path, progress=told.append)
    try:
        status = kafka.status()
        assert (status.running, status.bootstrap) == (True, started.stdout.strip())
        assert kafka.up() == status.bootstrap
        assert kafka.status().pid == status.pid
        topics = Topics(KafkaOptions(bootstrap_servers=(status.bootstrap,)))
        topics.create(TopicSpec("kept", 1))
        assert kafka.down()
        assert not kafka.status().running
        assert not kafka.down()
        assert kafka.up() == status.bootstrap
        assert topics.describe("kept") is not None
        assert any("starting" in line for line in told)
    finally:
        kafka.down()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        kafka = DevelopmentKafka(tmp_path, port=port)
        with pytest.raises(DevelopmentKafkaError, match=f"port {port} "):
            kafka.up()
    assert not kafka.status().running


def test_a_start_that_fails_names_the_log(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder has to be")
    kafka = DevelopmentKafka(tmp_path)
    with pytest.raises(DevelopmentKafkaError, match=str(kafka.log)):
        kafka.up()
    assert not kafka.status().running
