"""`damagewatch compare`: two photos judged against each other, with everything that was measured."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from damagewatch.cli import output
from damagewatch.cli.failure import Failure
from damagewatch.cli.looking import Looker, save_picture
from damagewatch.cli.parameters import Json, Photo
from damagewatch.folders import PhotoFile

if TYPE_CHECKING:
    from damagewatch.domain import Sighting


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel="Photos, without Kafka")(compare)


def compare(
    photo: Photo,
    other: Photo,
    json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="PNG of both photos with the matched points.", show_default=False)
    ] = None,
) -> None:
    """Judge whether two photos show one damage, with all signals of their most telling pair of damages.

    The exit code is 0 whatever the verdict.

    Examples:

      damagewatch compare claim-1/front.jpg claim-7/bumper.jpg --out pair.png
    """
    from damagewatch.pipeline.recognition import Options
    from damagewatch.vision.closer import of_photos
    from damagewatch.vision.draw import draw_match
    from damagewatch.vision.looks import at_photos, most_telling

    looker = Looker()
    files = PhotoFile(photo, "query", photo.name), PhotoFile(other, "match", other.name)
    one, two = looker(files[0]), looker(files[1])
    if one is None or two is None:
        raise Failure("nothing was compared")
    thresholds = looker.settings.alerting.thresholds(looker.models.calibration.thresholds)
    looks = at_photos(
        list(itertools.product(one.sightings, two.sightings)),  # as if the search had named them all
        one.sightings,
        lambda: two.sightings,
        looker.models.calibration.model_copy(update={"thresholds": thresholds}),
        Options().least_cosine,
        one.mirrored,
        of_photos(looker.models.local_features, one, two),
    )
    match = most_telling(look.found for look in looks)
    likeliest = max(looks, key=lambda look: look.probability)
    query, remembered = (match.query, match.match) if match else likeliest.shown
    judged = match or likeliest
    told = {
        "kind": match.kind.value if match else None,
        "probability": round(judged.probability, 6),
        "mirrored": judged.mirrored,
        "signals": asdict(judged.signals),
        "query": _side(query, photo),
        "match": _side(remembered, other),
    }
    if json:
        output.json_line(told)
    else:
        rows = [("verdict", told["kind"] or "no alert"), ("probability", told["probability"])]
        rows += [("mirrored", "yes" if told["mirrored"] else "no"), *asdict(judged.signals).items()]
        rows += [
            ("query", f"{query.damage.type} in {photo}"),
            ("match", f"{remembered.damage.type} in {other}"),
        ]
        output.table(
            ("what", "value"),
            [(name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in rows],
        )
    if out is not None:
        pixels = looker.pixels(files[0]), looker.pixels(files[1])
        assert pixels[0] is not None
        assert pixels[1] is not None
        save_picture(out, draw_match(pixels[0], pixels[1], query, remembered, match.points if match else ()))
        output.note(f"drawn in {out}")


def _side(sighting: Sighting, photo: Path) -> dict[str, object]:
    box = sighting.damage.box
    return {
        "photo": str(photo),
        "type": sighting.damage.type.value,
        "severity": sighting.damage.severity.value,
        "box": [round(value, 2) for value in (box.x0, box.y0, box.x1, box.y1)],
    }
