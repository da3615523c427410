"""Nothing lost, nothing doubled: whatever is killed, stopped or put out of the group."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from broker_stream import Stream

from damagewatch.broker.development import DevelopmentKafka

pytestmark = pytest.mark.kafka

WORKER = Path(__file__).with_name("broker_worker.py")


class Worker:
    def __init__(self, stream: Stream, number: int = 0, seconds: float = 0.004) -> None:
        options = stream.worker(number)
        told = {
            "bootstrap": options.bootstrap_servers[0],
            "group": options.group,
            "worker": options.worker,
            "input": stream.input,
            "output": stream.output,
            "dead": stream.dead,
            "seconds": seconds,
        }
        self.process = subprocess.Popen([sys.executable, str(WORKER), json.dumps(told)])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def start(stream: Stream) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def starter(*args: int, **kwargs: float) -> Worker:
        workers.append(Worker(stream, *args, **kwargs))
        return workers[-1]

    yield starter
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_killed_again_and_again_nothing_is_lost_and_nothing_doubled(
    stream: Stream, start: Callable[..., Worker]
) -> None:
    values = [f"{n:04}" for n in range(1500)]
    stream.publish(values)
    chance = random.Random(7)
    progress = []
    for _ in range(6):
        worker = start()
        before = stream.committed()
        wait_until(lambda before=before: stream.committed() > before)
        time.sleep(chance.uniform(0.0, 0.4))
        worker.kill()
        progress.append(stream.committed())
    assert 0 < progress[0] < len(values), "the kills did not fall into the stream"
    last = start()
    wait_until(lambda: stream.committed() == len(values))
    assert last.terminate() == 0
    assert stream.outputs() == values


def test_workers_that_come_and_go_lose_and_double_nothing(
    stream: Stream, start: Callable[..., Worker]
) -> None:
    values = [f"{n:04}" for n in range(1200)]
    stream.publish(values)
    first = start(1)
    wait_until(lambda: stream.committed() > 50)
    second = start(2)
    wait_until(lambda: len(stream.members()) == 2)
    wait_until(lambda: stream.committed() > 300)
    assert first.terminate() == 0
    assert stream.members() == [stream.worker(2).worker], "who was asked to stop has left the group"
    wait_until(lambda: stream.committed() > 600)
    third = start(3)
    wait_until(lambda: len(stream.members()) == 2)
    # The second hangs: its partitions go to the third once its session has timed out. When it wakes up, what
    # it has in hand was done by another long ago.
    hanging = psutil.Process(second.process.pid)
    hanging.suspend()
    wait_until(lambda: stream.committed() == len(values))
    hanging.resume()
    wait_until(lambda: len(stream.members()) == 2)
    assert second.terminate() == 0
    assert third.terminate() == 0
    assert stream.members() == []
    assert stream.outputs() == values


def test_a_broker_that_hangs_and_one_that_restarts_lose_and_double_nothing(
    stream: Stream, start: Callable[..., Worker], development_kafka: DevelopmentKafka | None
) -> None:
    if development_kafka is None:
        pytest.skip("needs a broker of its own to stop")
    values = [f"{n:04}" for n in range(1500)]
    stream.publish(values)
    worker = start()
    wait_until(lambda: stream.committed() > 100)
    broker = psutil.Process(development_kafka.status().pid)
    broker.suspend()
    try:
        # Longer than a transaction may take: whatever was under way is given up by all sides.
        time.sleep(16)
    finally:
        broker.resume()
    before = stream.committed()
    wait_until(lambda: stream.committed() > before + 100)
    assert development_kafka.down()
    time.sleep(3)
    development_kafka.up()
    wait_until(lambda: stream.committed() == len(values))
    assert worker.process.poll() is None, "the worker did not live through it"
    assert worker.terminate() == 0
    assert stream.outputs() == values
