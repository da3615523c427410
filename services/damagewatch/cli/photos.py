"""Commands on photos in files: no Kafka is needed for any of these."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from damagewatch.cli import output
from damagewatch.cli.looking import Looker, fail_if_any, files_of, save_picture
from damagewatch.cli.parameters import Json, Paths

if TYPE_CHECKING:
    from damagewatch.domain import Damage, PhotoSeverity, Sighting

PANEL = "Photos, without Kafka"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (detect, embed, rephotograph):
        app.command(rich_help_panel=PANEL)(command)


def detect(
    photos: Paths,
    json: Json = False,
    masks: Annotated[
        Literal["polygons", "rle"], typer.Option(help="How --json gives masks: rle is COCO's, uncompressed.")
    ] = "polygons",
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures with the damages drawn in.", show_default=False)
    ] = None,
) -> None:
    """Show what damages are found in photos.

    Boxes are x0 y0 x1 y1 in pixels of the upright photo; the score is the detector's confidence, 0 to 1. With --json
    also how badly the car is damaged as a whole, where the models tell.

    Examples:

      damagewatch detect photo.jpg

      damagewatch detect photos/ --json --out drawn/
    """
    from damagewatch.vision import rle
    from damagewatch.vision.draw import draw_damages

    look = Looker()
    failed = 0
    if not json:
        output.line("\t".join(("photo", "type", "severity", "score", "box")))
    for file in files_of(photos):
        seen = look(file)
        if seen is None:
            failed += 1
            continue
        if out is not None:
            pixels = look.pixels(file)
            assert pixels is not None
            save_picture(
                out / f"{file.path.stem}-damages.png", draw_damages(pixels, seen.damages, seen.width)
            )
        if json:
            outlined = [
                _damage_json(damage)
                | (
                    {"polygons": damage.polygons}
                    if masks == "polygons"
                    else {"rle": rle.encode(rle.fill(damage.polygons, seen.width, seen.height))}
                )
                for damage in seen.damages
            ]
            told = {"photo": str(file.path), "width": seen.width, "height": seen.height, "damages": outlined}
            if seen.severity is not None:
                told["severity"] = _severity_json(seen.severity)
            output.json_line(told)
            continue
        for damage in seen.damages:
            box = " ".join(f"{value:.0f}" for value in _corners(damage))
            output.line(f"{file.path}\t{damage.type}\t{damage.severity}\t{damage.score:.2f}\t{box}")
    fail_if_any(failed)


def embed(
    photos: Paths,
    out: Annotated[Path, typer.Option(help="The .npz file to write.", show_default=False)],
    whole: Annotated[
        bool, typer.Option("--whole", help="One row a photo, of the whole photo; otherwise one a damage.")
    ] = False,
) -> None:
    """Write embeddings of photos or their damages to a NumPy archive.

    Arrays: `name` (the file, str), `x` (float32, N x D, L2-normalised), `box` (float32, N x 4, pixels: the
    damage's; with --whole the photo's).

    Examples:

      damagewatch embed photos/ --out damages.npz

      damagewatch embed photos/ --whole --out photos.npz
    """
    import numpy as np

    from damagewatch.domain import DamageType

    look = Looker()
    rows: list[tuple[str, Sighting]] = []
    failed = 0
    files = files_of(photos)
    with output.progress() as bar:
        task = bar.add_task("embedding", total=len(files))
        for file in files:
            seen = look(file)
            bar.advance(task)
            if seen is None:
                failed += 1
                continue
            rows.extend(
                (str(file.path), sighting)
                for sighting in seen.sightings
                if (sighting.damage.type is DamageType.WHOLE) == whole
            )
    dimension = look.models.dimension
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file_out:
        np.savez(
            file_out,
            name=np.array([name for name, _ in rows], dtype=str),
            x=np.array([s.embedding for _, s in rows], np.float32).reshape(-1, dimension),
            box=np.array([_corners(s.damage) for _, s in rows], np.float32).reshape(-1, 4),
        )
    output.note(f"{len(rows)} embeddings of {len(files) - failed} photos in {out}")
    fail_if_any(failed)


def rephotograph(
    photos: Paths,
    out: Annotated[Path, typer.Option(help="Folder for the new photos.", show_default=False)],
    seed: Annotated[int, typer.Option(help="The same seed gives the same photos.")] = 0,
    strength: Annotated[
        float, typer.Option(min=0, max=2, help="0: as it is; 1: clearly another photo.")
    ] = 1.0,
    mirror: Annotated[bool, typer.Option("--mirror", help="Mirror them too.")] = False,
) -> None:
    """Make second photographs: another standpoint, light and camera.

    To try what would be found if a damage came back. The file names stay; folders are kept.

    Examples:

      damagewatch rephotograph claims/0001 --out claims/9001

      damagewatch rephotograph photo.jpg --out again/ --seed 7 --strength 1.3
    """
    import numpy as np

    from damagewatch.synthesis.rephotograph import rephotograph as photograph_again

    look = Looker()
    failed = 0
    files = files_of(photos)
    with output.progress() as bar:
        task = bar.add_task("photographing again", total=len(files))
        for file in files:
            pixels = look.pixels(file)
            bar.advance(task)
            if pixels is None:
                failed += 1
                continue
            # A photo's chance depends on its name and the seed alone, not on what else is in the folder.
            rng = np.random.default_rng([seed, zlib.crc32(file.photo_id.encode())])
            again = photograph_again(pixels, rng, strength, mirror=mirror)
            target = out / file.path.with_suffix(".jpg").name
            if len(photos) == 1 and photos[0].is_dir():
                target = out / file.path.relative_to(photos[0]).with_suffix(".jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(again.encoded())
    output.note(f"{len(files) - failed} photos in {out}")
    fail_if_any(failed)


def _corners(damage: Damage) -> list[float]:
    return [damage.box.x0, damage.box.y0, damage.box.x1, damage.box.y1]


def _damage_json(damage: Damage) -> dict[str, Any]:
    return {
        "box": [round(value, 2) for value in _corners(damage)],
        "type": damage.type.value,
        "severity": damage.severity.value,
        "score": damage.score,
    }


def _severity_json(severity: PhotoSeverity) -> dict[str, Any]:
    return {
        "class": severity.severity.value,
        "probabilities": {
            "minor": severity.minor,
            "moderate": severity.moderate,
            "severe": severity.severe,
        },
    }
