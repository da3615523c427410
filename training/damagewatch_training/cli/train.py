"""`damagewatch-train train`: a network, or on from where a training was stopped."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import print as show
from rich.progress import track

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch_training.cli.parameters import RUN, Changes, Data, Experiment, Run, Threads
from damagewatch_training.data import dataset
from damagewatch_training.experiment import config

if TYPE_CHECKING:
    from damagewatch_training.detector.network import Detector, Network

# Each command imports its own network: torch takes seconds, and the other commands and --help need none of it.

app = typer.Typer(no_args_is_help=True, help="Train a network, or go on where a training was stopped.")


@app.command("detector")
def train_detector(
    root: Data,
    run: Run = RUN,
    experiment: Experiment = None,
    changes: Changes = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Begin with the weights of the detector trained under this run, or in this folder of models."
        ),
    ] = None,
    teachers: Annotated[
        list[Path] | None,
        typer.Option(
            "--teacher",
            help="Learn too what the detector trained under this run, or in this folder of models, sees in photos "
            "that nobody outlined; may be given several times.",
        ),
    ] = None,
    threads: Threads = 2,
) -> None:
    """Train the detector: a U-Net or FPN on any timm encoder, on outlined damages, damaged parts and graded photos.

    Writes RUN/detector: run.json, a checkpoint after each epoch, pictures of what is found. Started again, it goes
    on. With teachers it first writes what they see to RUN/detector/taught, half a second for each photo.

    Examples:

        damagewatch-train train detector --data DATA --config training/experiments/detector.toml

        damagewatch-train train detector --data DATA --set network.architecture=unet --set 'losses=["tversky"]'

        damagewatch-train train detector --data DATA --run second --teacher runs --set taught=8

        damagewatch-train train detector --data DATA --start deploy/models --teacher deploy/models --set taught=4
    """
    import torch

    from damagewatch_training.detector import exported, teach
    from damagewatch_training.detector import train as detector
    from damagewatch_training.detector.examples import gather, hash_of

    torch.set_num_threads(threads)
    settings = config.load(experiment, changes or (), detector.Settings)
    if bool(teachers) != bool(settings.taught):
        raise Failure("--teacher and the setting taught (photos of a batch) go together: give both or none")
    examples = gather(root)

    def network(folder: Path, made_of: Network) -> Detector:
        if not exported.is_exported(folder):
            return detector.trained(folder / "detector")
        shown = [photo.read() for photo in examples.outlined[: exported.SHOWN]]
        return exported.detector(folder, made_of, shown)

    data = hash_of(root)
    if teachers:
        learned = [network(teacher, replace(settings.network, norm="frozen")) for teacher in teachers]
        which = [
            exported.sha256(folder) if exported.is_exported(folder) else teach.fingerprint(teacher)
            for folder, teacher in zip(teachers, learned, strict=True)
        ]
        data = hashlib.sha256(" ".join([data, *which]).encode()).hexdigest()
        photos = examples.unlabelled
        kept = run / "detector" / "taught" / hashlib.sha256(" ".join(which).encode()).hexdigest()[:12]
        maps = teach.write(learned, photos, kept)
        examples = replace(examples, maps=dict(track(maps, "taught", total=len(photos))))
    resumed = (run / "detector" / detector.CHECKPOINT).exists()
    begin = None if start is None or resumed else network(start, settings.network)
    detector.train(examples, run / "detector", settings, data, begin, _tell)


@app.command("severity")
def train_severity(
    root: Data, run: Run = RUN, experiment: Experiment = None, changes: Changes = None, threads: Threads = 2
) -> None:
    """Train the grader of whole photos: minor, moderate or severe damage; any timm backbone, on graded photos.

    Writes RUN/severity: run.json and a checkpoint after each epoch. Started again, it goes on.

    Example: damagewatch-train train severity --data DATA --config training/experiments/severity.toml
    """
    import torch

    from damagewatch_training.detector.examples import gather, hash_of
    from damagewatch_training.severity import train as severity

    torch.set_num_threads(threads)
    settings = config.load(experiment, changes or (), severity.Settings)
    severity.train(gather(root), run / "severity", settings, hash_of(root), _tell)


@app.command("local-features")
def train_local_features(
    root: Data, run: Run = RUN, experiment: Experiment = None, changes: Changes = None, threads: Threads = 2
) -> None:
    """Fine-tune XFeat on rephotographs; `export local-features` takes the result only if it is the better one.

    Example: damagewatch-train train local-features --data DATA --set steps=400
    """
    import torch

    from damagewatch_training.detector.examples import gather, hash_of
    from damagewatch_training.local_features import train as local_features

    torch.set_num_threads(threads)
    settings = config.load(experiment, changes or (), local_features.Settings)
    seen, held_out = gather(root).split(0.1)
    photos = [*seen.outlined, *seen.unlabelled]
    show(local_features.train(photos, held_out, run / "local-features", settings, hash_of(root), _tell))


@app.command("embedder")
def train_embedder(
    run: Run = RUN,
    crops: Annotated[
        Path | None,
        typer.Option(help="A folder of crops called damageid_imageid.jpg.", exists=True, file_okay=False),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A dataset with its damages.", exists=True, file_okay=False)
    ] = None,
    split: Annotated[
        str, typer.Option(help="Only photos of this split of the dataset; empty: all.")
    ] = "train",
    experiment: Experiment = None,
    changes: Changes = None,
    start: Annotated[
        Path | None, typer.Option(help="Begin with the weights of the embedder trained under this run.")
    ] = None,
    threads: Threads = 2,
) -> None:
    """Train the embedder: any backbone, by a teacher, by views that belong together, or by both.

    Learns from what `views` rendered into RUN, from named crops (`data encode`), or from the damages of a dataset.
    Writes RUN/embedder: run.json, checkpoints, embedder.onnx. Started again, it goes on where it was stopped.
    Several GPUs: `torchrun --nproc-per-node 4 --no-python -- damagewatch-train train embedder ...`

    Examples:

        damagewatch-train train embedder --run runs --config training/experiments/embedder.toml

        damagewatch-train train embedder --crops CROPS --config training/experiments/embedder-own.toml

        damagewatch-train train embedder --crops CROPS --set teacher.weight=0 --set network.backbone=resnet50
    """
    if crops and data:
        raise typer.BadParameter("--crops and --data: one of the two")
    import torch

    from damagewatch_training.embedder import examples
    from damagewatch_training.embedder import train as embedder

    torch.set_num_threads(threads)
    settings = config.load(experiment, changes or (), embedder.Settings)
    if crops:
        views = examples.named(crops)
    elif data:
        views = examples.damages(dataset.load(data), split or None)
    else:
        views = examples.rendered(run, teacher=settings.teacher.weight > 0)
    begin = None if start is None else start / "embedder"
    embedder.train(views, run / "embedder", settings, begin, _tell)


@app.command("probe")
def train_probe(
    features: Annotated[Path, typer.Argument(help=".npz with `name` and `x`.", exists=True, dir_okay=False)],
    table: Annotated[Path, typer.Argument(help="CSV with a column `name`.", exists=True, dir_okay=False)],
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Of labels; may be given several times; none: all.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="class or number; none: numbers of more than 10 values are numbers.")
    ] = None,
    group: Annotated[
        str, typer.Option(help="Rows alike in this column, such as the claim, are never on both sides.")
    ] = "name",
    split: Annotated[
        str | None,
        typer.Option(help="A column: fitted where it says train, judged elsewhere; none: five folds."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON value a line.")] = False,
) -> None:
    """Fit a linear head to frozen embeddings for each labelled column, and tell what it gets right on other rows.

    A column of words is a class: the share right, of each class too. A column of numbers: R squared and the mean
    error, in ranges of the number too.

    Examples:

        damagewatch-train train probe features.npz labels.csv --column severity --column type --group claim

        damagewatch-train train probe features.npz labels.csv --column angle --kind number --json
    """
    if kind not in {None, "class", "number"}:
        raise typer.BadParameter(f"{kind!r} is neither class nor number", param_hint="--kind")
    from damagewatch_training import probe

    joined = probe.read(features, table)
    asked = columns or probe.columns(joined, [group, *([split] if split else [])])
    found = [
        probe.probe(joined, column, kind=kind, group=group, split=split)  # type: ignore[arg-type]
        for column in track(asked, "probing", console=output.messages)
    ]
    if as_json:
        for one in found:
            output.json_line(one.entry())
        return
    output.table(
        ("column", "kind", "rows", "accuracy or R2", "balanced or error", "without embeddings"),
        [
            (
                one.column,
                one.kind,
                one.rows,
                f"{one.accuracy:.3f}",
                f"{one.balanced if one.balanced is not None else one.error:.3f}",
                f"{one.baseline:.3f}",
            )
            for one in found
        ],
    )
    output.table(
        ("column", "value", "rows", "right or error", "sure"),
        [
            (
                one.column,
                value.value,
                value.rows,
                f"{value.right:.3f}",
                "" if value.sure is None else f"{value.sure:.3f}",
            )
            for one in found
            for value in one.values
        ],
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
