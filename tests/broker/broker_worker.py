"""A worker for the tests: echoes every record, some milliseconds later. Run as a script, it is a process."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from damagewatch.broker.consumer import GroupConsumer
from damagewatch.broker.deadletter import Breaker, BreakerPolicy, DeadLetters
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.processor import Pace, StreamProcessor
from damagewatch.broker.record import OutgoingRecord, Processed, Record
from damagewatch.broker.strategy import Backpressure
from damagewatch.broker.transaction import TransactionSession


class Echo:
    """Publishes the value of each record to `topic`, `seconds` after it came; holds at most `room`."""

    def __init__(self, topic: str, seconds: float = 0.0, room: int = 32) -> None:
        self.topic, self.seconds, self.room = topic, seconds, room
        self.inside: deque[tuple[float, Record]] = deque()

    def submit(self, record: Record) -> None:
        if len(self.inside) >= self.room:
            raise Backpressure
        begin = max(time.monotonic(), self.inside[-1][0] if self.inside else 0.0)
        self.inside.append((begin + self.seconds, record))

    def poll(self) -> Sequence[Processed]:
        done = []
        while self.inside and self.inside[0][0] <= time.monotonic():
            done.append(self.of(self.inside.popleft()[1]))
        return done

    def of(self, record: Record) -> Processed:
        return Processed.of(record, (OutgoingRecord(self.topic, record.key, record.value),))

    def close(self) -> None:
        pass

    def join(self, timeout: float) -> Sequence[Processed]:
        done = [self.of(record) for _, record in self.inside]
        self.inside.clear()
        return done

    def terminate(self) -> None:
        self.inside.clear()


def processor(
    options: KafkaOptions, source: str, make_strategy: Any, dead: str, **more: Any
) -> StreamProcessor:
    return StreamProcessor(
        GroupConsumer(options, [source]),
        make_strategy,
        lambda: TransactionSession(options),
        dead_letters=DeadLetters(dead, "test"),
        breaker=Breaker(BreakerPolicy()),
        **more,
    )


def main() -> None:
    told = json.loads(sys.argv[1])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    options = KafkaOptions(
        bootstrap_servers=(told["bootstrap"],), group=told["group"], worker=told["worker"], session_timeout=10
    )
    logging.basicConfig(level=logging.CRITICAL)
    pace = Pace(max_results=8, max_age=0.05)
    processor(
        options, told["input"], lambda: Echo(told["output"], told["seconds"]), told["dead"], pace=pace
    ).run(stop)


if __name__ == "__main__":
    main()
