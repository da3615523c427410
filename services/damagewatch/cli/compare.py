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
    from damagewatch.domain import Box, Match, Sighting, Signals
    from damagewatch.vision.calibration import Calibration
    from damagewatch.vision.features import FeatureExtractor
    from damagewatch.vision.perceive import Perceived


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
    from damagewatch.vision.draw import draw_match

    look = Looker()
    files = PhotoFile(photo, "query", photo.name), PhotoFile(other, "match", other.name)
    one, two = look(files[0]), look(files[1])
    if one is None or two is None:
        raise Failure("nothing was compared")
    thresholds = look.settings.alerting.thresholds(look.models.calibration.thresholds)
    calibration = look.models.calibration.model_copy(update={"thresholds": thresholds})
    match = _best_match(one, two, look.models.local_features, calibration)
    if match is not None:
        query, seen, signals = match.query, match.match, match.signals
    else:
        query, seen, signals = _most_alike(one, two, calibration)
    told = {
        "kind": match.kind.value if match else None,
        "probability": round(match.probability if match else calibration.probability(signals), 6),
        "mirrored": bool(match and match.mirrored),
        "signals": asdict(signals),
        "query": _side(query, photo),
        "match": _side(seen, other),
    }
    if json:
        output.json_line(told)
    else:
        rows = [("verdict", told["kind"] or "no alert"), ("probability", told["probability"])]
        rows += [("mirrored", "yes" if told["mirrored"] else "no"), *asdict(signals).items()]
        rows += [("query", f"{query.damage.type} in {photo}"), ("match", f"{seen.damage.type} in {other}")]
        output.table(
            ("what", "value"),
            [(name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in rows],
        )
    if out is not None:
        pixels = look.pixels(files[0]), look.pixels(files[1])
        assert pixels[0] is not None
        assert pixels[1] is not None
        save_picture(out, draw_match(pixels[0], pixels[1], query, seen, match.points if match else ()))
        output.note(f"drawn in {out}")


def _best_match(
    one: Perceived, two: Perceived, extractor: FeatureExtractor, calibration: Calibration
) -> Match | None:
    from damagewatch.vision.closer import CloserLook
    from damagewatch.vision.decide import judge, most_telling

    def crop_of(sighting: Sighting, window: Box) -> bytes:
        return (one if sighting.photo == one.photo else two).crops[window]

    closer = CloserLook(extractor, crop_of)
    return most_telling(
        match
        for query, candidate in itertools.product(one.sightings, two.sightings)
        if (match := judge(query, candidate, calibration, one.mirrored, closer=closer)) is not None
    )


def _most_alike(
    one: Perceived, two: Perceived, calibration: Calibration
) -> tuple[Sighting, Sighting, Signals]:
    from damagewatch.vision.decide import compared, measure

    pairs = [
        (query, candidate, measure(query, candidate, compared(query, candidate), calibration))
        for query, candidate in itertools.product(one.sightings, two.sightings)
    ]
    return max(pairs, key=lambda pair: calibration.probability(pair[2]))


def _side(sighting: Sighting, photo: Path) -> dict[str, object]:
    box = sighting.damage.box
    return {
        "photo": str(photo),
        "type": sighting.damage.type.value,
        "severity": sighting.damage.severity.value,
        "box": [round(value, 2) for value in (box.x0, box.y0, box.x1, box.y1)],
    }
