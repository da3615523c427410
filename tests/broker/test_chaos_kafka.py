"""Nothing lost, nothing doubled: whatever is killed, stopped or put out of the group."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broker_stream import Stream

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
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(told)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

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
        worker.process.communicate()


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
