"""The simulation against what queueing theory says of it."""

from __future__ import annotations

import pytest

from damagewatch.capacity.costs import Costs

pytest.importorskip("simpy")

from damagewatch.capacity.simulation import Layout, simulate

COSTS = Costs(cpu_ms=100, judging=0.4, commit_ms=10)
FLOOD = 1000.0


def test_what_arrives_is_decided_where_there_is_room():
    # The last arrivals are still in work: a few photos of some hundred.
    outcome = simulate(10, Layout(partitions=12, pods=3), COSTS, seconds=200)
    assert outcome.photos_a_second == pytest.approx(10, rel=0.15)
    assert outcome.pods_busy == pytest.approx(10 * 0.1 / 6, rel=0.2)
    assert outcome.age_p99 < 10


@pytest.mark.parametrize("pods", [1, 4])
def test_a_flood_is_decided_as_fast_as_the_cpus_allow(pods):
    outcome = simulate(FLOOD, Layout(partitions=12, pods=pods, search_ms=0.01), COSTS, seconds=30)
    assert 0.8 * pods * 20 <= outcome.photos_a_second <= 1.05 * pods * 20


def test_pods_beyond_the_partitions_add_nothing():
    at_most, beyond = (
        simulate(FLOOD, Layout(partitions=4, pods=pods, search_ms=0.01), COSTS, seconds=30)
        for pods in (4, 16)
    )
    assert beyond.photos_a_second == pytest.approx(at_most.photos_a_second, rel=0.05)
    assert beyond.pods_busy < 0.3


def test_the_index_is_where_it_stops():
    """8 CPUs, 3 searches a photo of 0.2 s each: 13 photos a second, whatever the pods."""
    few, many = (
        simulate(FLOOD, Layout(partitions=24, pods=pods, index_cpus=8, search_ms=200), COSTS, seconds=60)
        for pods in (6, 24)
    )
    for outcome in (few, many):
        assert outcome.photos_a_second == pytest.approx(8 / 0.6, rel=0.15)
        assert outcome.index_busy > 0.9


def test_the_same_seed_tells_the_same():
    layout = Layout(partitions=12, pods=2)
    assert simulate(20, layout, COSTS, seconds=20, seed=5) == simulate(20, layout, COSTS, seconds=20, seed=5)
    assert simulate(20, layout, COSTS, seconds=20, seed=5) != simulate(20, layout, COSTS, seconds=20, seed=6)
