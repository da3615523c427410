"""`damagewatch-train data`, and the views that the embedder trains on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.synthesis.conditions import Condition
from damagewatch_training.cli import data_import
from damagewatch_training.cli.parameters import RUN, Data, Run, Seed
from damagewatch_training.data import crops, dataset, encode, second_views, sources, splice, split
from damagewatch_training.data.importers import coco
from damagewatch_training.embedder import views

app = typer.Typer(
    no_args_is_help=True, help="Photos, labels and pairs: brought in, checked, cut, split, multiplied."
)
app.add_typer(data_import.app, name="import")

Dataset = Annotated[
    Path,
    typer.Argument(
        help="A data set, as `data import` makes it.", exists=True, file_okay=False, show_default=False
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.", file_okay=False, show_default=False)]
Only = Annotated[str, typer.Option("--split", help="Only photos of this split.")]
Context = Annotated[float, typer.Option(help="The crop's sides over the damage's.", min=1, max=20)]


@app.command("crop")
def crop(
    folder: Dataset,
    out: Out,
    detector: Annotated[
        Path | None,
        typer.Option(
            help="Folder of models: crop what its detector finds and nobody labelled.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    least: Annotated[float, typer.Option("--min-score", help="Of what is detected.", min=0, max=1)] = 0.5,
    undamaged: Annotated[
        int, typer.Option(help="Instead, so many crops of each labelled photo that touch no damage.", min=0)
    ] = 0,
    context: Context = 4.0,
    only: Only = "",
    seed: Seed = 1,
) -> None:
    """Cut damages out, with a table and contact sheets to look through.

    With --detector, look through the sheets, set `keep` to 0 in crops.csv where the detector is wrong, and take the
    rest in by `data import crops`.

    Examples:

      damagewatch-train data crop data --out crops

      damagewatch-train data crop data --detector deploy/models --min-score 0.6 --out found
    """
    if detector is not None and undamaged:
        raise Failure("either --detector or --undamaged", 2)
    data = dataset.load(folder).of_split(only)
    with output.progress() as bar:
        task = bar.add_task("cropping", total=len(data.photos))

        def told() -> None:
            bar.advance(task)

        if detector is not None:
            from damagewatch.vision.models import Models

            found = crops.detected(data, Models.load(detector), least, context, told)
        elif undamaged:
            found = crops.undamaged(data, undamaged, seed, context, told)
        else:
            found = crops.labelled(data, context, told)
        count = crops.write(found, out)
    output.note(f"{count} crops, {crops.TABLE} and contact sheets in {out}")
    if not count:
        raise Failure("nothing to crop")


@app.command("encode")
def encode_names(
    folder: Dataset,
    out: Out,
    clean: Annotated[
        bool, typer.Option("--clean", help="Leave out near-copies, then damages with one crop.")
    ] = False,
    context: Context = 4.0,
    only: Only = "",
) -> None:
    """Write a crop of each damage from each photo, named damageid_imageid.jpg.

    Example:

      damagewatch-train data encode data --split train --clean --out crops
    """
    data = dataset.load(folder).of_split(only)
    with output.progress("damages") as bar:
        task = bar.add_task("encoding", total=len({damage.physical for damage in data.damages}))
        result = encode.encode(data, out, context, clean=clean, told=lambda: bar.advance(task))
    output.table(
        ("damages", "crops", "near-copies left out", "damages with one crop left out"),
        [(result.damages, result.crops, result.near_copies, result.alone)],
    )
    if not result.crops:
        raise Failure("no damage is left (one damage on several photos is known by the same `damage`)")


@app.command("split")
def split_data(
    folder: Dataset,
    val: Annotated[float, typer.Option(help="Share of the photos.", min=0, max=0.9)] = 0.15,
    test: Annotated[float, typer.Option(help="Share of the photos.", min=0, max=0.9)] = 0.0,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; list what leaks between the splits.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Photos that are in a split stay there.")] = False,
    bits: Annotated[
        int,
        typer.Option(
            help="Perceptual hashes that differ in fewer or as many bits are near-copies.", min=0, max=20
        ),
    ] = split.NEAR_COPY,
    seed: Seed = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put photos into train, val and test, so that none leaks.

    Photos of one claim, of one damage, linked by a judged pair, or that are nearly copies (mirrored ones too) stay
    together. --check exits with 1 where something leaks.

    Examples:

      damagewatch-train data split data --val 0.15 --test 0.15

      damagewatch-train data split data --check
    """
    if val + test >= 1:
        raise Failure("--val and --test leave nothing to train on", 2)
    data = dataset.load(folder)
    if not check:
        data = split.drawn(data, {"val": val, "test": test}, seed, keep=keep, at_most=bits)
        data.save()
    _tell_split(data, split.leaks(data, bits), as_json, listed=check)


def _tell_split(data: dataset.Dataset, leaks: list[split.Link], as_json: bool, *, listed: bool) -> None:
    of = {photo.name: photo.split for photo in data.photos}
    photos, damages = Counter(of.values()), Counter(of[damage.photo] for damage in data.damages)
    if as_json:
        output.json_line(
            {
                "photos": photos,
                "damages": damages,
                "leaks": [{"a": link.a, "b": link.b, "why": link.why} for link in leaks],
            }
        )
    else:
        if listed and leaks:
            rows = [(of[link.a], link.a, of[link.b], link.b, link.why) for link in leaks]
            output.table(("split", "photo", "split", "photo", "why"), rows, title="Leaks")
        output.table(
            ("split", "photos", "damages"),
            [(name or "none", photos[name], damages[name]) for name in sorted(photos)],
        )
    if leaks:
        raise Failure(f"{len(leaks)} links between splits (the table of --check names them)")


@app.command("rephotograph")
def rephotograph(
    folder: Dataset,
    out: Out,
    views: Annotated[int, typer.Option(help="New photos of each photo.", min=1)] = 2,
    conditions: Annotated[
        list[Condition] | None,
        typer.Option(
            "--condition", help="What may happen beside standpoint, light and camera; default: all of these."
        ),
    ] = None,
    chance: Annotated[float, typer.Option(help="Of each condition.", min=0, max=1)] = 0.25,
    strength: Annotated[
        float, typer.Option(help="0: as it is; 1: clearly another photo.", min=0, max=2)
    ] = 1.0,
    mirrored: Annotated[float, typer.Option(help="Share of views that are mirrored.", min=0, max=1)] = 0.0,
    only: Only = "",
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.", min=1)] = None,
    seed: Seed = 1,
) -> None:
    """Photograph photos again: other standpoints, light and cameras, and what else happens.

    Writes the data set with views of its photos: polygons where they went, boxes as a detector would have drawn
    them, and in correspondences/ where each pixel went. --out may be the data set itself, which then grows.

    Examples:

      damagewatch-train data rephotograph data --views 6 --split train --out grown

      damagewatch-train data rephotograph data --condition curved --condition screen --chance 1 --out grown
    """
    data = dataset.load(folder)
    plan = second_views.Plan(views, tuple(conditions or Condition), chance, strength, mirrored, seed)
    with output.progress() as bar:
        task = bar.add_task(
            "photographing again", total=sum(only in {"", photo.split} for photo in data.photos)
        )
        grown = second_views.make(data, out, plan, only, workers, lambda: bar.advance(task))
    _tell_grown(grown)


@app.command("splice")
def splice_damages(
    folder: Dataset,
    out: Out,
    count: Annotated[int, typer.Option(help="Spliced damages.", min=1)] = 100,
    views: Annotated[int, typer.Option(help="Photos of each.", min=1)] = 2,
    onto: Annotated[
        Path | None,
        typer.Option(
            help="A data set of undamaged cars; default: undamaged places of labelled photos.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    only: Only = "",
    seed: Seed = 1,
) -> None:
    """Blend damages onto other cars.

    Writes the data set with new photos: the damage's polygons where it is now, and more views of each (as `data
    rephotograph` makes them). --out may be the data set itself, which then grows.

    Example:

      damagewatch-train data splice data --count 500 --views 3 --split train --out grown
    """
    data = dataset.load(folder)
    places = data if onto is None else dataset.load(onto)
    with output.progress("damages") as bar:
        task = bar.add_task("splicing", total=count)
        grown = splice.splice(data, places, out, count, views, seed, only, lambda: bar.advance(task))
    _tell_grown(grown)


def _tell_grown(data: dataset.Dataset) -> None:
    made = sum(dataset.MADE_FROM in photo.attributes for photo in data.photos)
    output.note(f"{data.folder}: {len(data.photos)} photos, {made} of them made; {len(data.damages)} damages")
    if not made:
        raise Failure("nothing could be made")


@app.command("export-coco")
def export_coco(
    folder: Dataset, out: Annotated[Path, typer.Argument(help="The JSON file to write.")]
) -> None:
    """Write the data set as COCO, for labelling tools; the photos lie where the file names say, below the data set.

    Example:

      damagewatch-train data export-coco data data/coco.json
    """
    coco.write(dataset.load(folder), out)
    output.note(f"{out} written")


def render_views(
    root: Data,
    run: Run = RUN,
    count: Annotated[int, typer.Option(help="Rephotographs of each window.", min=1)] = 6,
    seed: Seed = 1,
) -> None:
    """Render windows of all training photos, clean and photographed again, for the embedder.

    Then write the teacher's embeddings of them, in the teacher's own environment:
    `python -m damagewatch_training.embedder.teacher --model MODEL --data DATA --folder RUN`.
    """
    if not (run / "windows.npz").exists():
        views.list_windows(sources.training_photos(root), run, seed)
    views.render(root, run, count, seed)
