"""`damagewatch-train data import`: one command a format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch_training.data import crops, dataset
from damagewatch_training.data.dataset import PairEntry
from damagewatch_training.data.importers import coco, folders, tables, via, video, yolo
from damagewatch_training.data.importers.found import Found
from damagewatch_training.data.intake import Intake, take_all
from damagewatch_training.data.report import Report

app = typer.Typer(
    no_args_is_help=True,
    help="Bring photos and labels of other formats into one.\n\n"
    "Each command adds to the folder --out (made where missing) and reports what was wrong in the input. Photos are "
    "copied there under their hash, each decoded once, so that nothing broken is met later. Exit code 1: nothing "
    "usable came in.",
)

Out = Annotated[
    Path, typer.Option("--out", help="The data set to add to.", file_okay=False, show_default=False)
]
Prefix = Annotated[str, typer.Option(help="Put before the photos' names, so that sources do not clash.")]
Split = Annotated[str, typer.Option(help="train, val or test, where the source names none.")]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME=MEANING",
        help="What a class means: any of scratch, dent, broken; minor, moderate, severe; a part; damage; ignore.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Photos = Annotated[
    Path | None,
    typer.Option(help="Folder of the photos; default: the labels' own.", exists=True, file_okay=False),
]


def _source(what: str, *, folder: bool) -> typer.models.ArgumentInfo:
    argument = typer.Argument(
        help=what, exists=True, file_okay=not folder, dir_okay=folder, show_default=False
    )
    assert isinstance(argument, typer.models.ArgumentInfo)
    return argument


@app.command("via")
def import_via(
    labels: Annotated[Path, _source("via_region_data.json, or a VIA project.", folder=False)],
    out: Out,
    photos: Photos = None,
    prefix: Prefix = "",
    split: Split = "",
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Polygons of the VGG Image Annotator.

    Example:

      damagewatch-train data import via photos/via_region_data.json --out data --class Beule=dent
    """
    intake = _intake(out, prefix, split, classes)
    _finish(intake, via.read(labels, photos or labels.parent, intake.report), as_json)


@app.command("coco")
def import_coco(
    labels: Annotated[Path, _source("The JSON file of annotations.", folder=False)],
    out: Out,
    photos: Photos = None,
    prefix: Prefix = "",
    split: Split = "",
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """COCO polygons, masks or boxes.

    Example:

      damagewatch-train data import coco train.json --photos train --split train --out data
    """
    intake = _intake(out, prefix, split, classes)
    _finish(intake, coco.read(labels, photos or labels.parent, intake.report), as_json)


@app.command("yolo")
def import_yolo(
    folder: Annotated[
        Path, _source("Folder with photos, labels, and classes.txt or data.yaml.", folder=True)
    ],
    out: Out,
    prefix: Prefix = "",
    split: Split = "",
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """YOLO polygons or boxes.

    Example:

      damagewatch-train data import yolo dataset/ --out data
    """
    intake = _intake(out, prefix, split, classes)
    _finish(intake, yolo.read(folder, intake.report), as_json)


@app.command("claims")
def import_claims(
    folder: Annotated[Path, _source("Folder with a folder of photos for each claim.", folder=True)],
    out: Out,
    attribute: Annotated[
        str, typer.Option(help="The folders name no claims but this: severity, model, colour, any other.")
    ] = "",
    prefix: Prefix = "",
    split: Split = "",
    as_json: AsJson = False,
) -> None:
    """Photos without labels, in one folder a claim (or one a class: --attribute).

    Examples:

      damagewatch-train data import claims claims/ --out data

      damagewatch-train data import claims by-severity/ --attribute severity --out data
    """
    intake = _intake(out, prefix, split, None)
    _finish(intake, folders.claims(folder, intake.report, attribute=attribute), as_json)


@app.command("query-gallery")
def import_query_gallery(
    query: Annotated[Path, _source("Folder of queries.", folder=True)],
    gallery: Annotated[Path, _source("Folder in which they are looked for.", folder=True)],
    out: Out,
    prefix: Prefix = "",
    as_json: AsJson = False,
) -> None:
    """A retrieval task: photos named damageid_imageid.jpg, or in a folder for each damage.

    Example:

      damagewatch-train data import query-gallery query/ gallery/ --out task
    """
    intake = _intake(out, prefix, "", None)
    _finish(intake, folders.query_gallery(query, gallery, intake.report), as_json)


@app.command("labels")
def import_labels(
    table: Annotated[Path, _source("CSV with the columns query and reference.", folder=False)],
    query: Annotated[Path, typer.Option(help="Folder of queries.", exists=True, file_okay=False)],
    reference: Annotated[Path, typer.Option(help="Folder of references.", exists=True, file_okay=False)],
    out: Out,
    prefix: Prefix = "",
    as_json: AsJson = False,
) -> None:
    """A retrieval task whose answers are in a table; shoeprints work the same.

    Example:

      damagewatch-train data import labels labels.csv --query prints --reference soles --out task
    """
    intake = _intake(out, prefix, "", None)
    found, pairs = tables.labels(table, query, reference, intake.report, prefix)
    _finish(intake, found, as_json, pairs)


@app.command("pairs")
def import_pairs(
    table: Annotated[Path, _source("CSV with the columns a, b and verdict.", folder=False)],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Pairs judged by eye (copy, mirror, same, samecar, diff, unsure) of photos that the data set holds.

    Example:

      damagewatch-train data import pairs same_damage_pairs.csv --out data
    """
    intake = _intake(out, "", "", None)
    _finish(intake, (), as_json, tables.judged(table, set(intake.photos), intake.report))


@app.command("video")
def import_video(
    videos: Annotated[
        list[Path], typer.Argument(help="Videos, or folders of videos.", exists=True, show_default=False)
    ],
    out: Out,
    rate: Annotated[float, typer.Option(help="Photos a second, at most.", min=0.01, max=60)] = 1.0,
    frames: Annotated[int, typer.Option(help="Frames looked at of one video, at most.", min=1)] = 20_000,
    prefix: Prefix = "",
    split: Split = "",
    as_json: AsJson = False,
) -> None:
    """Photos from videos: the sharpest frame of each window of time, near-copies dropped. A video is a claim.

    Example:

      damagewatch-train data import video walkaround.mp4 --rate 2 --out data
    """
    intake = _intake(out, prefix, split, None)
    pace = video.Pace(rate, frames)
    _finish(intake, video.read(video.videos_in(videos), pace, intake.report, intake.limits), as_json)


@app.command("crops")
def import_crops(
    table: Annotated[Path, _source("crops.csv of `data crop --detector`, looked through.", folder=False)],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Detected damages that a person kept: rows of crops.csv whose column `keep` is still 1.

    Example:

      damagewatch-train data import crops crops/crops.csv --out data
    """
    report = Report()
    data = crops.reviewed(table, dataset.load(out), report)
    if report.damages:
        data.save()
    _tell(report, out, as_json)


def _intake(out: Path, prefix: str, split: str, classes: list[str] | None) -> Intake:
    mapping = {}
    for given in classes or []:
        name, found, meaning = given.rpartition("=")
        if not found or not name:
            raise Failure(f"--class {given}: NAME=MEANING is wanted", 2)
        mapping[name] = meaning
    return Intake(out, Report(), prefix, split, mapping)


def _finish(intake: Intake, found: Iterable[Found], as_json: bool, pairs: Iterable[PairEntry] = ()) -> None:
    with output.progress() as bar:
        task = bar.add_task("importing", total=len(found) if isinstance(found, list | tuple) else None)

        def told() -> Iterable[Found]:
            for one in found:
                yield one
                bar.advance(task)

        take_all(told(), intake, pairs)
    _tell(intake.report, intake.folder, as_json)


def _tell(report: Report, folder: Path, as_json: bool) -> None:
    if as_json:
        output.line(json.dumps(report.as_json()))
    elif report.counts:
        rows = []
        for trouble, count in report.counts.most_common():
            example = next((p for p in report.problems if p.trouble is trouble), None)
            rows.append(
                (trouble.value, count, example.where if example else "", example.detail if example else "")
            )
        output.table(
            ("problem", "count", "for example", "what was done"), rows, title="Problems of the input"
        )
    output.note(f"{report.photos} photos, {report.damages} damages, {report.pairs} pairs taken into {folder}")
    if not (report.photos or report.damages or report.pairs):
        raise Failure("nothing usable came in")
