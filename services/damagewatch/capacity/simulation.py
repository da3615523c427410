"""The stream as a discrete-event simulation: partitions, pods with a few CPUs each, and the index's CPUs.

As in the service, a partition is read by one pod, stages overlap, a batch searches together, and its photos
count as decided when its transaction is through. simpy keeps the clock; it comes with the extra `capacity`.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, Final

import simpy

from damagewatch.capacity.costs import Costs

BATCH: Final = 8
IN_FLIGHT: Final = 64
CLAIM_PHOTOS: Final = 4
"""Photos of a claim that arrive together, in one partition: its key is the claim."""
SPREAD: Final = 0.35
"""Standard deviation of the logarithm of a photo's cost: photos with many damages cost several times the mean."""
WARM_UP: Final = 0.25
"""Share of the time that is left out of what is told: queues fill first."""

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is simulated. `search_ms` are core-ms of one search, done in `shards` parts on `index_cpus`."""

    partitions: int
    pods: int
    pod_cpus: int = 2
    index_cpus: int = 48
    shards: int = 12
    search_ms: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: photos decided a second, how old they were, and how busy the CPUs were (0 to 1)."""

    photos_a_second: float
    age_p50: float
    age_p99: float
    pods_busy: float
    index_busy: float


@dataclass(slots=True)
class _Run:
    env: simpy.Environment
    layout: Layout
    costs: Costs
    random: random.Random
    since: float
    index: simpy.Resource = field(init=False)
    pod_seconds: float = 0.0
    index_seconds: float = 0.0
    ages: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.index = simpy.Resource(self.env, self.layout.index_cpus)

    def work(self, cpus: simpy.Resource, seconds: float) -> Events:
        with cpus.request() as mine:
            yield mine
            yield self.env.timeout(seconds)
        if self.env.now >= self.since:
            if cpus is self.index:
                self.index_seconds += seconds
            else:
                self.pod_seconds += seconds

    def cost(self, ms: float) -> float:
        """Seconds, around a mean of `ms`."""
        return self.random.lognormvariate(-SPREAD * SPREAD / 2, SPREAD) * ms / 1e3


def simulate(
    rate: float, layout: Layout, costs: Costs | None = None, *, seconds: float = 120.0, seed: int = 0
) -> Outcome:
    """Runs the stream for a while.

    Args:
        rate: photos a second that arrive; far above what is possible shows what is possible.
        layout: what there is.
        costs: of a photo; the measured ones where None.
        seconds: of simulated time.
        seed: of all that is random.
    """
    env = simpy.Environment()
    run = _Run(env, layout, costs or Costs(), random.Random(seed), seconds * WARM_UP)
    # A pod more than there are partitions has nothing to read.
    queues = [simpy.Store(env) for _ in range(min(layout.pods, layout.partitions))]
    for queue in queues:
        env.process(_pod(run, queue))
    env.process(_arrivals(run, rate, queues))
    env.run(until=seconds)
    counted = seconds - run.since
    ages = run.ages if len(run.ages) > 1 else [float("inf")] * 2
    cuts = quantiles(ages, n=100)
    return Outcome(
        photos_a_second=len(run.ages) / counted,
        age_p50=cuts[49],
        age_p99=cuts[98],
        pods_busy=run.pod_seconds / (counted * layout.pods * layout.pod_cpus),
        index_busy=run.index_seconds / (counted * layout.index_cpus),
    )


def _arrivals(run: _Run, rate: float, queues: list[simpy.Store]) -> Events:
    while True:
        yield run.env.timeout(run.random.expovariate(rate / CLAIM_PHOTOS))
        partition = run.random.randrange(run.layout.partitions)
        queue = queues[partition * len(queues) // run.layout.partitions]  # ranges, as the group assigns them
        for _ in range(CLAIM_PHOTOS):
            queue.put(run.env.now)


def _pod(run: _Run, queue: simpy.Store) -> Events:
    cpus = simpy.Resource(run.env, run.layout.pod_cpus)
    room = simpy.Container(run.env, IN_FLIGHT, IN_FLIGHT)
    seen: simpy.Store = simpy.Store(run.env)
    run.env.process(_judge(run, cpus, room, seen))
    while True:
        arrived = yield queue.get()
        yield room.get(1)
        run.env.process(_look(run, cpus, arrived, seen))


def _look(run: _Run, cpus: simpy.Resource, arrived: float, seen: simpy.Store) -> Events:
    yield run.env.process(run.work(cpus, run.cost(run.costs.cpu_ms * (1 - run.costs.judging))))
    seen.put(arrived)


def _judge(run: _Run, cpus: simpy.Resource, room: simpy.Container, seen: simpy.Store) -> Events:
    while True:
        batch = [(yield seen.get())]
        while seen.items and len(batch) < BATCH:
            batch.append((yield seen.get()))
        searched = len(batch) * run.costs.damages * run.layout.search_ms / 1e3
        parts = min(run.layout.shards, run.layout.index_cpus)
        yield run.env.all_of([run.env.process(run.work(run.index, searched / parts)) for _ in range(parts)])
        verified = [run.cost(run.costs.cpu_ms * run.costs.judging) for _ in batch]
        yield run.env.all_of([run.env.process(run.work(cpus, seconds)) for seconds in verified])
        yield run.env.timeout(run.costs.commit_ms / 1e3)
        room.put(len(batch))
        if run.env.now >= run.since:
            run.ages += [run.env.now - arrived for arrived in batch]
