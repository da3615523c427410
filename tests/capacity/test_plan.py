"""The capacity plan: what must hold whatever is asked for."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.capacity.costs import Costs, sources
from damagewatch.capacity.plan import PARTITIONS, Demand, Machines, plan, search_ms

DEMANDS = st.builds(
    Demand,
    photos_a_day=st.floats(1, 1e9),
    years=st.floats(0.01, 50),
    tenants=st.integers(1, 1000),
    peak=st.floats(1, 20),
    retention_days=st.floats(0.1, 100),
    copies=st.integers(1, 5),
)


@given(DEMANDS)
def test_what_is_planned_can_do_the_work(demand):
    costs, machines = Costs(), Machines()
    made = plan(demand, machines, costs)
    assert made.pods * machines.pod_cpus >= made.peak_photos_a_second * costs.cpu_ms / 1e3
    assert made.nodes * machines.node_cpus >= made.search_cpus
    assert made.nodes * machines.node_memory_gb >= made.index_memory_tb * 1e3
    assert made.nodes * machines.node_disk_tb >= made.index_disk_tb
    assert made.nodes >= demand.copies, "each copy on a node of its own"
    assert made.brokers >= 3
    assert made.partitions >= min(made.pods, PARTITIONS[-1])


@given(DEMANDS, st.floats(1, 100))
def test_more_photos_never_take_less(demand, factor):
    small, large = (
        plan(replace(demand, photos_a_day=demand.photos_a_day * f), Machines(), search="exact")
        for f in (1, factor)
    )
    for name in (
        "pods",
        "partitions",
        "brokers",
        "shards",
        "nodes",
        "kafka_tb",
        "index_disk_tb",
        "search_cpus",
    ):
        assert getattr(large, name) >= getattr(small, name)


@given(DEMANDS)
def test_tenants_share_the_disk_and_not_each_others_searches(demand):
    alone = plan(replace(demand, tenants=1), Machines(), search="exact")
    shared = plan(replace(demand, tenants=10), Machines(), search="exact")
    assert shared.index_disk_tb == alone.index_disk_tb
    assert shared.search_cpus == pytest.approx(alone.search_cpus / 10)


def test_an_exact_search_costs_what_it_reads_however_it_is_divided():
    costs = Costs()
    assert search_ms(1e6, 1, costs, "exact") == search_ms(1e6, 60, costs, "exact") == pytest.approx(12)


@given(DEMANDS)
def test_a_graph_is_taken_only_where_exact_searches_would_need_nodes_of_their_own(demand):
    taken = plan(demand, Machines())
    exact = plan(demand, Machines(), search="exact")
    assert (taken.search == "graph") == (exact.nodes_for == "CPU")


def test_a_graph_is_taken_by_a_large_stream_alone():
    few, many = (plan(Demand(photos_a_day=n), Machines()) for n in (50_000, 1_000_000))
    assert (few.search, many.search) == ("exact", "graph")


def test_a_small_insurer_by_hand():
    made = plan(Demand(photos_a_day=8640, years=1, peak=3), Machines())
    assert made.photos_a_second == pytest.approx(0.1)
    assert made.damages == pytest.approx(8640 * 365 * 3)
    assert made.index_disk_tb == pytest.approx(8640 * 365 * 3 * 56.4e3 * 3 / 1e12)
    assert (made.pods, made.partitions, made.nodes, made.search) == (2, 12, 3, "exact")


def test_every_cost_has_its_source():
    assert {name for name, _, _ in sources()} == asdict(Costs()).keys()
    assert all(source for _, _, source in sources())
