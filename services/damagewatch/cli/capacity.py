"""`damagewatch capacity`: how many machines a stream needs, and where it stops to scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.parameters import Json

if TYPE_CHECKING:
    from damagewatch.capacity.costs import Costs
    from damagewatch.capacity.plan import Plan

MILLION = 1e6
POSITIVE = 1e-6
DAMAGES = (1_000_000, 10_000_000, 30_000_000, 100_000_000, 300_000_000)
PODS = (1, 3, 6, 12, 24, 36)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel="Set-up")(capacity)


def capacity(
    photos_per_day: Annotated[
        list[float] | None,
        typer.Option(min=1, help="May be repeated. Default: 1, 10 and 100 million.", show_default=False),
    ] = None,
    years: Annotated[float, typer.Option(min=0.01, max=100, help="How long damages are remembered.")] = 10,
    tenants: Annotated[
        int, typer.Option(min=1, help="Insurers that share it evenly; each search sees one's damages.")
    ] = 1,
    peak: Annotated[float, typer.Option(min=1, help="The busiest hour's rate over the day's mean.")] = 3,
    retention_days: Annotated[float, typer.Option(min=0.01, help="Days that Kafka keeps photos.")] = 7,
    copies: Annotated[int, typer.Option(min=1, max=10, help="Copies of the index.")] = 3,
    search: Annotated[
        Literal["auto", "exact", "graph"],
        typer.Option(
            help="How the index is searched; auto: exactly, as long as its nodes have the CPUs for it."
        ),
    ] = "auto",
    pod_cpus: Annotated[int, typer.Option(min=1, help="CPUs of a matcher pod.")] = 2,
    node_cpus: Annotated[int, typer.Option(min=1, help="CPUs of a Qdrant node.")] = 16,
    node_memory_gb: Annotated[float, typer.Option(min=1, help="Memory of a Qdrant node.")] = 128,
    node_disk_tb: Annotated[float, typer.Option(min=0.01, help="Disk of a Qdrant node.")] = 15,
    cost: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A cost of yours in place of a measured one, such as cpu_ms=60; may be repeated. "
            "--show-costs has the names.",
            show_default=False,
        ),
    ] = None,
    show_costs: Annotated[
        bool, typer.Option("--show-costs", help="Print the costs and their sources.")
    ] = False,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Simulate partitions, pods and searches: where it stops to scale."),
    ] = False,
    json: Json = False,
) -> None:
    """Tell how many pods, partitions, Qdrant nodes, memory and disk a stream needs.

    From the measured cost of a photo and of a damage; docs/capacity.md says how far to trust it.

    Examples:

      damagewatch capacity

      damagewatch capacity --photos-per-day 200000 --years 3 --cost photo_kb=400

      damagewatch capacity --simulate
    """
    from damagewatch.capacity import costs as measured
    from damagewatch.capacity.plan import Demand, Machines, plan

    costs = _costs(cost or [])
    if show_costs:
        told = [(name, _number(getattr(costs, name)), source) for name, _, source in measured.sources()]
        _print(("cost", "value", "source of the default"), told, json)
        return
    if simulate:
        _simulate(costs, pod_cpus, node_cpus * copies, json)
        return
    machines = Machines(
        pod_cpus=pod_cpus, node_cpus=node_cpus, node_memory_gb=node_memory_gb, node_disk_tb=node_disk_tb
    )
    plans = {
        photos: plan(
            Demand(
                photos_a_day=photos,
                years=years,
                tenants=tenants,
                peak=peak,
                retention_days=retention_days,
                copies=copies,
            ),
            machines,
            costs,
            None if search == "auto" else search,
        )
        for photos in photos_per_day or (MILLION, 10 * MILLION, 100 * MILLION)
    }
    if json:
        for photos, each in plans.items():
            output.json_line({"photos_a_day": photos, **asdict(each)})
        return
    lines = [_told(each) for each in plans.values()]
    output.table(
        ("a day", *(f"{_number(photos)} photos" for photos in plans)),
        [(name, *(line[name] for line in lines)) for name in lines[0]],
        title=f"{_number(years)} years of memory, {tenants} tenant{'s' * (tenants > 1)}",
    )


def _costs(given: list[str]) -> Costs:
    from damagewatch.capacity.costs import Costs

    known = asdict(Costs())
    changed: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise Failure(f"--cost {text}: no such cost; there are {', '.join(known)}", 2)
        try:
            changed[name] = float(value)
        except ValueError:
            raise Failure(f"--cost {text}: not a number", 2) from None
        limit = 1.0 if name == "judging" else 1e12
        if not POSITIVE <= changed[name] <= limit:
            raise Failure(f"--cost {text}: must be above 0 and at most {_number(limit)}", 2)
    return replace(Costs(), **changed)


def _told(plan: Plan) -> dict[str, str]:
    return {
        "photos a second, mean and peak": f"{_number(plan.photos_a_second)}, {_number(plan.peak_photos_a_second)}",
        "matcher pods": f"{plan.pods:,}",
        "partitions": f"{plan.partitions:,}",
        "Kafka brokers": f"{plan.brokers:,}",
        "Kafka disk, 3 copies": _terabytes(plan.kafka_tb),
        "damages remembered": _number(plan.damages),
        "search": f"{plan.search}, {_number(plan.search_ms)} core-ms",
        "CPUs that search at the peak": _number(plan.search_cpus),
        "Qdrant shards": f"{plan.shards:,}",
        "Qdrant nodes": f"{plan.nodes:,}, for {plan.nodes_for}",
        "Qdrant memory, all copies": _terabytes(plan.index_memory_tb),
        "Qdrant disk, all copies": _terabytes(plan.index_disk_tb),
        "evidence store": _terabytes(plan.evidence_tb),
    }


def _simulate(costs: Costs, pod_cpus: int, index_cpus: int, json: bool) -> None:
    """Photos a second at most, by pods and by damages remembered, with 24 partitions."""
    try:
        from damagewatch.capacity.simulation import Layout, simulate
    except ModuleNotFoundError:
        raise Failure("the simulation needs simpy: pip install 'damagewatch[capacity]'") from None
    from damagewatch.capacity.plan import search_ms

    rows: list[tuple[str, ...]] = []
    with output.progress("simulations") as progress:
        task = progress.add_task("simulating", total=len(PODS) * len(DAMAGES))
        for pods in PODS:
            most = 2 * pods * pod_cpus * 1e3 / costs.cpu_ms
            told = []
            for damages in DAMAGES:
                layout = Layout(
                    partitions=24,
                    pods=pods,
                    pod_cpus=pod_cpus,
                    index_cpus=index_cpus,
                    search_ms=search_ms(damages, 1, costs, "exact"),
                )
                told.append(_number(simulate(most, layout, costs, seconds=20).photos_a_second))
                progress.advance(task)
            rows.append((str(pods), *told))
    _print(("pods", *(f"{_number(damages)} damages" for damages in DAMAGES)), rows, json)


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]], json: bool) -> None:
    if json:
        for row in rows:
            output.json_line(dict(zip(columns, row, strict=True)))
        return
    output.table(columns, rows)


def _number(value: float) -> str:
    """Three digits, and a word from a million on."""
    for size, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if value >= size:
            return f"{value / size:.3g}{word}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _terabytes(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:,.3g} PB" if value < 1e6 else f"{value / 1e6:,.3g} EB"
    return f"{value:.3g} TB" if value >= 1 else f"{value * 1000:.3g} GB"
