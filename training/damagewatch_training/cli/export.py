"""`damagewatch-train export`, `manifest` and `card`: what the service loads, and what is said of it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import print as show

from damagewatch.cli.failure import Failure
from damagewatch.vision.manifest import ModelInput
from damagewatch.vision.models import Models
from damagewatch_training.cli.parameters import MODELS, RUN, Data, Folder, Run
from damagewatch_training.export import card, comparison, manifest
from damagewatch_training.export.comparison import Precision

if TYPE_CHECKING:  # torch takes seconds, and `manifest`, `card` and --help need none of it
    from damagewatch_training.detector.examples import Examples
    from damagewatch_training.export.model import Model

app = typer.Typer(
    no_args_is_help=True,
    help="Write ONNX files in fp32, fp16 and int8, check them against torch, and measure them side by side.\n\n"
    "Examples:\n\n"
    "    damagewatch-train export detector --data DATA --run runs\n\n"
    "    damagewatch-train export embedder --data DATA --run runs --ship int8\n\n"
    f"A precision whose mean cosine to torch is below {comparison.LEAST_COSINE}, or that loses more than"
    f" {comparison.MOST_LOST:.0%} of one of fp32's figures, is not shipped: fp32 is, with a note.",
)

Ship = Annotated[Precision, typer.Option(help="The precision that goes into the models folder.")]
Photos = Annotated[int, typer.Option(help="At most so many val photos are measured on.", min=1)]


@app.command("detector")
def export_detector(
    root: Data, run: Run = RUN, folder: Folder = MODELS, ship: Ship = "fp32", photos: Photos = 200
) -> None:
    """The detector of a training."""
    from damagewatch_training.detector import train as detector
    from damagewatch_training.export import subjects

    learned, val = _examples(root, photos, "outlined")
    network, settings = detector.trained(run / "detector"), detector.settings_of(run / "detector")
    subject = subjects.detector(network, settings.size, learned, val)
    _export(subject, run / "detector" / "export", folder / "detector.onnx", ship)


@app.command("embedder")
def export_embedder(
    root: Data, run: Run = RUN, folder: Folder = MODELS, ship: Ship = "fp32", photos: Photos = 200
) -> None:
    """The embedder of a training."""
    from damagewatch_training.embedder import train as embedder
    from damagewatch_training.experiment.imagenet import MEAN, STD
    from damagewatch_training.export import subjects

    learned, val = _examples(root, photos, "outlined")
    network, settings = embedder.trained(run / "embedder"), embedder.settings_of(run / "embedder")
    wanted = ModelInput(size=settings.size, mean=MEAN, std=STD)
    subject = subjects.embedder(network, wanted, learned, val.outlined)
    _export(subject, run / "embedder" / "export", folder / "embedder.onnx", ship)


@app.command("local-features")
def export_local_features(
    root: Data, run: Run = RUN, folder: Folder = MODELS, ship: Ship = "fp32", photos: Photos = 200
) -> None:
    """XFeat: as `train local-features` left it where that was better, else with its published weights."""
    from damagewatch_training.export import local_features, subjects

    learned, val = _examples(root, photos, "outlined")
    network = local_features.trained(run / "local-features")
    subject = subjects.local_features(network, local_features.SIZE, learned, val.outlined)
    _export(subject, run / "local-features" / "export", folder / "xfeat.onnx", ship)


@app.command("severity")
def export_severity(
    root: Data, run: Run = RUN, folder: Folder = MODELS, ship: Ship = "fp32", photos: Photos = 200
) -> None:
    """The grader of whole photos of a training; a models folder may be without."""
    from damagewatch_training.export import subjects
    from damagewatch_training.severity import train as severity

    learned, val = _examples(root, photos, "graded")
    network, settings = severity.trained(run / "severity"), severity.settings_of(run / "severity")
    subject = subjects.severity(network, settings.size, learned, val)
    _export(subject, run / "severity" / "export", folder / "severity.onnx", ship)


def _examples(root: Path, photos: int, kind: Literal["outlined", "graded"]) -> tuple[Examples, Examples]:
    """What a network is calibrated on, and what it is measured on; each has photos of the kind that is needed.

    Measured on are at most `photos` outlined and as many graded ones, of all grades alike.
    """
    from damagewatch_training.detector.examples import gather, validation

    learned, val = gather(root), validation(root)
    for split, examples in (("train", learned), ("val", val)):
        if not getattr(examples, kind):
            raise Failure(f"{root} holds no {kind} photos of the split {split}")
    step = max(1, len(val.graded) // photos)
    return learned, replace(val, outlined=val.outlined[:photos], graded=val.graded[::step][:photos])


def _export(subject: Model, folder: Path, target: Path, ship: Precision) -> None:
    from damagewatch_training.export.model import export

    rows = []
    for measured in export(subject, folder, ("fp32", "fp16", "int8")):
        print(f"{measured.precision} written and measured", file=sys.stderr)
        rows.append(measured)
    show(comparison.table(rows, str(folder)))
    reason = comparison.unfit(next(row for row in rows if row.precision == ship), rows[0])
    if reason is not None:
        print(f"{ship} is not fit to be shipped: {reason}; fp32 is taken instead", file=sys.stderr)
        ship = "fp32"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / f"{ship}.onnx", target)
    print(f"{target} is {ship}")


def write_manifest(
    version: Annotated[str, typer.Argument(help="Of the set of models.")],
    folder: Folder = MODELS,
    trained_on: Annotated[
        str,
        typer.Option(
            help="What detector, embedder and grader were trained on, where these are not the shipped ones."
        ),
    ] = "",
) -> None:
    """Write manifest.json with the hashes of the exported files, and check that the service loads them.

    Example: damagewatch-train manifest 2026-11 --models models --trained-on "own claims, 2019 to 2026"
    """
    manifest.write(folder, version, trained_on)
    show(dict(Models.load(folder).versions))


def write_card(
    folder: Folder = MODELS,
    output: Annotated[Path | None, typer.Option(help="The file; none: print it.")] = None,
) -> None:
    """Write the model card, made from the manifest alone: files, data and licences, figures, notes.

    Example: damagewatch-train card --models deploy/models --output deploy/models/README.md
    """
    text = card.markdown(folder)
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")
