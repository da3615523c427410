"""From photos a day and years of memory to pods, partitions, Qdrant nodes, memory and disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from damagewatch.capacity.costs import Costs

DAY: Final = 86_400
PARTITIONS: Final = (12, 24, 60, 120, 240, 480, 960, 1920, 3840, 7680)
"""Numbers with many divisors: pods share them evenly, and an autoscaler has many steps to take."""
SHARD_POINTS: Final = 20_000_000
"""Damages in one shard at most: some 1.1 TB, which moves to another node within hours."""
GRAPH_MEASURED: Final = 50_000
PLANNED_LOAD: Final = 0.7
"""Share of CPU, memory and disk that is planned to be used at the peak."""

Search = Literal["exact", "graph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked for. `peak` is the busiest hour's rate over the day's mean; tenants are of one size."""

    photos_a_day: float
    years: float = 10.0
    tenants: int = 1
    peak: float = 3.0
    retention_days: float = 7.0
    copies: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What there is: CPUs a pod; CPUs, GB and TB of a Qdrant node; MB/s and TB of a Kafka broker."""

    pod_cpus: int = 2
    node_cpus: int = 16
    node_memory_gb: float = 128.0
    node_disk_tb: float = 15.0
    broker_mb_s: float = 150.0
    broker_disk_tb: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What it takes. Memory and disk of the index are of all copies together."""

    photos_a_second: float
    peak_photos_a_second: float
    pods: int
    partitions: int
    brokers: int
    kafka_tb: float
    damages: float
    search: Search
    search_ms: float
    """Core-ms of one search."""
    search_cpus: float
    """CPUs that search at the peak."""
    shards: int
    nodes: int
    nodes_for: Literal["copies", "CPU", "memory", "disk"]
    """What the number of nodes comes from."""
    index_memory_tb: float
    index_disk_tb: float
    evidence_tb: float


def search_ms(points: float, shards: int, costs: Costs, search: Search) -> float:
    """Core-ms of one search among `points` of a tenant, which lie in `shards` equal parts.

    A scan costs what it reads, however it is divided. A graph costs the logarithm of its size, in every shard:
    the growth is assumed, only 50,000 was measured.
    """
    if search == "exact":
        return points * costs.scan_ns / 1e6
    size = max(GRAPH_MEASURED, points / shards)
    return shards * costs.graph_ms * math.log(size) / math.log(GRAPH_MEASURED)


def plan(
    demand: Demand, machines: Machines, costs: Costs | None = None, search: Search | None = None
) -> Plan:
    """The smallest numbers of everything that serve the demand's last day.

    Args:
        demand: what is asked for.
        machines: what there is.
        costs: of a photo and a damage; the measured ones where None.
        search: how the index is searched; None: exactly, where the nodes that copies, memory and disk ask for
            anyway have the CPUs for it, else by a graph.
    """
    if search is None:
        exact = plan(demand, machines, costs, "exact")
        return exact if exact.nodes_for != "CPU" else plan(demand, machines, costs, "graph")
    costs = costs or Costs()
    mean = demand.photos_a_day / DAY
    peak = mean * demand.peak
    pods = max(2, math.ceil(peak * costs.cpu_ms / 1e3 / (machines.pod_cpus * PLANNED_LOAD)))
    points = demand.photos_a_day * 365 * demand.years * costs.damages
    held_kb = costs.memory_kb + (costs.graph_kb if search == "graph" else 0.0)
    memory_tb = points * held_kb * demand.copies / 1e9
    disk_tb = points * costs.disk_kb * demand.copies / 1e9
    shards = max(1, math.ceil(points / SHARD_POINTS))
    each = search_ms(points / demand.tenants, shards, costs, search)
    cpus = peak * costs.damages * each / 1e3
    nodes_for = {
        "copies": demand.copies,
        "CPU": math.ceil(cpus / (machines.node_cpus * PLANNED_LOAD)),
        "memory": math.ceil(memory_tb * 1e3 / (machines.node_memory_gb * PLANNED_LOAD)),
        "disk": math.ceil(disk_tb / (machines.node_disk_tb * PLANNED_LOAD)),
    }
    reason = max(nodes_for, key=lambda name: nodes_for[name])
    kafka_tb = demand.photos_a_day * demand.retention_days * costs.photo_kb * 3 / 1e9
    return Plan(
        photos_a_second=mean,
        peak_photos_a_second=peak,
        pods=pods,
        partitions=next((p for p in PARTITIONS if p >= pods), PARTITIONS[-1]),
        brokers=max(
            3,
            math.ceil(peak * costs.photo_kb * 3 / 1e3 / machines.broker_mb_s),
            math.ceil(kafka_tb / (machines.broker_disk_tb * PLANNED_LOAD)),
        ),
        kafka_tb=kafka_tb,
        damages=points,
        search=search,
        search_ms=each,
        search_cpus=cpus,
        shards=max(shards, 12),
        nodes=nodes_for[reason],
        nodes_for=reason,  # type: ignore[arg-type]
        index_memory_tb=memory_tb,
        index_disk_tb=disk_tb,
        evidence_tb=points * costs.crop_kb / 1e9,
    )
