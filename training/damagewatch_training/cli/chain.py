"""`damagewatch-train evaluate stream` and `evaluate copies`: the whole chain, as the service runs it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from damagewatch.cli.output import messages, note, progress, table
from damagewatch.domain import Box
from damagewatch.pipeline.recognition import Options
from damagewatch.report.elements import Element
from damagewatch.vision.decode import decode
from damagewatch_training.cli.parameters import MODELS, Data, Folder, Seed, Threads
from damagewatch_training.cli.retrieval import KEEP, Known
from damagewatch_training.data import sources
from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.data.sources import SAME, Photo
from damagewatch_training.evaluate import copies, known_pairs, page, stream
from damagewatch_training.evaluate.alterations import KINDS
from damagewatch_training.evaluate.chain import STAGES, Told, open_chain, readers, wider
from damagewatch_training.evaluate.page import Image

Keep = Annotated[
    Path, typer.Option(help="Where the models' answers are kept: a later run computes only what changed.")
]
Out = Annotated[Path, typer.Option(help="Folder for figures.json and report.html.")]


def evaluate_stream(
    root: Data,
    folder: Folder = MODELS,
    count: Annotated[int, typer.Option("--photos", help="Distinct photos of a draw, at most.", min=2)] = 2500,
    rate: Annotated[float, typer.Option(help="Returns for each photo.", min=0.0001, max=1)] = 0.003,
    draws: Annotated[int, typer.Option(help="Streams drawn.", min=1)] = 20,
    mirrored: Annotated[
        float, typer.Option(help="Share of the returns that are mirrored.", min=0, max=1)
    ] = 0.2,
    earlier: Annotated[
        Path | None,
        typer.Option(
            help="alerts.json of an earlier run, instead of asking again.", exists=True, dir_okay=False
        ),
    ] = None,
    keep: Keep = KEEP,
    out: Out = Path("runs/stream"),
    known: Known = [],  # noqa: B006 - how Typer wants a repeated option
    threads: Threads = 2,
    seed: Seed = 17,
) -> None:
    """The whole chain at the base rate of the field: alerts, precision, recall, false alerts, losses by stage.

    All distinct photos (of known copies one) are remembered, and each asks for the others. A draw is a stream of
    them in an order by chance, a share of which is rephotographed and comes again; an alert counts where the photo
    that it names came earlier. Searched twice as widely as the service does, since half of the photos come later.

    Look through report.html: copies that nobody listed count as false until `--known` names them. With `--earlier`
    that costs seconds.

    Examples:

    damagewatch-train evaluate stream --data photos --draws 20

    damagewatch-train evaluate stream --data photos --known judged.csv --earlier runs/stream/alerts.json
    """
    pairs = sources.pairs(root, known)
    photos = {photo.name: photo for photo in sources.without_leaks(_all_photos(root), set(), pairs)}
    if len(photos) < 2:
        raise DataRefusedError(
            f"{root}: {len(photos)} photos of the splits train and val: a stream wants more"
        )
    if count > len(photos):
        note(f"only {len(photos)} photos are distinct: each draw has all of them")
    if earlier is None:
        asked = _asked(
            list(photos.values()),
            folder,
            draws * stream.returns_wanted(min(count, len(photos)), rate),
            mirrored,
            keep,
            threads,
            seed,
        )
        out.mkdir(parents=True, exist_ok=True)
        asked.save(out / "alerts.json")  # before anything can go wrong: it took long
    else:
        asked = stream.Asked.load(earlier)
        asked = asked.without(set(asked.photos) - photos.keys())
    verdicts = {frozenset((pair.a, pair.b)): pair.verdict for pair in pairs}
    returned = {again: name for name, again in asked.returns.items()}
    judged = {
        name: [
            told
            for told in found
            if verdicts.get(frozenset((returned.get(name, name), told.match))) != "unsure"
        ]
        for name, found in asked.alerts.items()
    }
    asked = replace(asked, alerts=judged)
    rng = np.random.default_rng(seed)
    drawn = [stream.draw(asked, min(count, len(asked.photos)), rate, rng) for _ in range(draws)]
    back = {again: photos[name] for name, again in asked.returns.items()}
    right = {
        name
        for name, again in asked.returns.items()
        if any(told.match == name for told in asked.alerts[again])
    }
    false = _once(told for name in asked.photos for told in asked.alerts[name])
    false += [
        told for name, again in asked.returns.items() for told in asked.alerts[again] if told.match != name
    ]
    figures = stream.figures(drawn) | {
        "distinct_photos": len(asked.photos),
        "returns_tried": len(asked.returns),
        "returns_alerted": len(right),
        "lost": stream.losses([stage for name, stage in asked.lost.items() if name not in right]),
        "false_pairs_of_photos": len(false),
    }
    rows = [(name, json.dumps(value)) for name, value in figures.items()]
    table(("figure", "value"), rows)
    parts = [
        page.table(("figure", "value"), rows),
        page.heading(f"{len(false)} pairs alerted that are not known to show one damage"),
        page.sheet(_pair(told, photos, verdicts, back) for told in false[:200]),
        page.heading(f"{len(asked.lost)} returns that were not alerted"),
        page.sheet(
            (
                f"{name}: lost at {stage}",
                (photos[name].read(), stream.returning(photos[name], mirrored, seed).taken.image),
            )
            for name, stage in asked.lost.items()
        ),
    ]
    _write(out, "The chain at the base rate", figures, parts)
    asked.save(out / "alerts.json")


def _asked(
    photos: Sequence[Photo],
    folder: Path,
    returns: int,
    mirrored: float,
    keep: Path,
    threads: int,
    seed: int,
) -> stream.Asked:
    """Lets all photos ask for each other, and `returns` of them come again."""
    pool = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))[:returns]]
    note(f"{len(photos)} distinct photos, {len(pool)} of them come again")
    sent = (
        (back.name, back.taken.encoded)
        for back in (stream.returning(photo, mirrored, seed) for photo in pool)
    )
    with open_chain(folder, keep, threads, wider(Options(), 2)) as chain:
        _told(chain.remember(readers(photos)), len(photos), "remembering")
        alerts: dict[str, list[Told]] = dict(_told(chain.ask(readers(photos)), len(photos), "asking"))
        answers: dict[str, list[Told]] = dict(_told(chain.ask(sent), len(pool), "coming again"))
        names = {photo.name: stream.name_again(photo.name) for photo in pool}
        missed = [
            photo for photo in pool if all(told.match != photo.name for told in answers[names[photo.name]])
        ]
        lost = {
            photo.name: stage
            for photo, stage in zip(
                missed,
                _told(
                    (stream.lost(chain, stream.returning(photo, mirrored, seed)) for photo in missed),
                    len(missed),
                    "looking for what was lost",
                ),
                strict=True,
            )
        }
    return stream.Asked(tuple(photo.name for photo in photos), names, alerts | answers, lost)


def evaluate_copies(
    root: Data,
    folder: Folder = MODELS,
    count: Annotated[int, typer.Option("--photos", help="How many photos are altered.", min=1)] = 300,
    others: Annotated[int, typer.Option(help="Other photos that are remembered as well.", min=0)] = 1000,
    keep: Keep = KEEP,
    out: Out = Path("runs/copies"),
    threads: Threads = 2,
    seed: Seed = 5,
) -> None:
    """Photos that are altered and sent in again: the share alerted, by kind of alteration.

    Re-encoded, cropped to 60 % of width and height, scaled, brightened, mirrored, hue-shifted, sepia, put before
    another background, photographed from a screen. An alert (DUPLICATE_PHOTO or SAME_DAMAGE) must name the original.

    Example: damagewatch-train evaluate copies --data photos
    """
    distinct = sources.without_leaks(_all_photos(root), set(), sources.pairs(root))
    shuffled = np.random.default_rng(seed).permutation(len(distinct))
    photos = [distinct[i] for i in shuffled[:count]]
    remembered = [distinct[i] for i in shuffled[: count + others]]
    originals = {photo.name: {photo.name} for photo in photos}
    with open_chain(folder, keep, threads) as chain:
        _told(chain.remember(readers(remembered)), len(remembered), "remembering")
        sent = copies.copies(chain, photos, originals, seed)
        said = _told(sent, len(photos) * len(KINDS), "sending in again")
    figures = copies.figures(said)
    columns = (
        "kind",
        "photos",
        "alerted",
        "duplicate_photo",
        "said_mirrored",
        *(f"lost_{s}" for s in STAGES),
    )
    rows: list[Sequence[str | float]] = [
        (kind, *(values[column] for column in columns[1:])) for kind, values in figures.items()
    ]
    table(columns, rows)
    by_name = {photo.name: photo for photo in photos}
    missed = [one for one in said if one.found is None or one.found.mirrored != (one.kind == "mirrored")]
    shown = page.sheet(
        (
            f"{one.kind}: {one.photo}: "
            + (f"lost at {one.lost}" if one.lost else "told mirrored the wrong way"),
            (by_name[one.photo].read(), decode(copies.altered(by_name[one.photo], one.kind, seed)).image),
        )
        for one in missed[:200]
    )
    parts = [
        page.table(columns, rows),
        page.heading(f"{len(missed)} not alerted, or not as what they are"),
        shown,
    ]
    _write(out, "Altered pictures sent in again", figures, parts)


def evaluate_pairs(
    root: Data,
    folder: Folder = MODELS,
    everything: Annotated[
        bool, typer.Option("--all", help="All pairs, not only those with a photo of the val split.")
    ] = False,
    keep: Keep = KEEP,
    out: Out = Path("runs/pairs"),
    known: Known = [],  # noqa: B006 - how Typer wants a repeated option
    threads: Threads = 2,
) -> None:
    """Pairs of photos judged by eye: the share that is alerted, by verdict, the chain over all photos.

    Every photo is remembered, known copies too, and both photos of a pair ask.

    Example: damagewatch-train evaluate pairs --data photos
    """
    photos = {photo.name: photo for photo in _all_photos(root)}
    train = {photo.name for photo in sources.train_split(root)}
    judged = sources.pairs(root, known)
    chosen = [
        pair
        for pair in judged
        if {pair.a, pair.b} <= photos.keys() and (everything or not {pair.a, pair.b} <= train)
    ]
    if not chosen:
        raise typer.BadParameter(
            f"no pair of {root} has a photo of the val split; see --all", param_hint="--data"
        )
    asking = [photos[name] for name in sorted({name for pair in chosen for name in (pair.a, pair.b)})]
    with open_chain(folder, keep, threads) as chain:
        _told(chain.remember(readers(list(photos.values()))), len(photos), "remembering")
        alerts: dict[str, list[Told]] = dict(_told(chain.ask(readers(asking)), len(asking), "asking"))
    said = known_pairs.alerted(chosen, alerts)
    figures = known_pairs.figures(said)
    columns = ("verdict", "pairs", "alerted", "said_mirrored")
    rows: list[Sequence[str | float]] = [
        (verdict, *(values[column] for column in columns[1:])) for verdict, values in figures.items()
    ]
    table(columns, rows)
    wrong = [(pair, told) for pair, told in said if (told is not None) != (pair.verdict in SAME)]
    listed = {frozenset((pair.a, pair.b)) for pair in judged}
    others = [
        told
        for told in _once(told for found in alerts.values() for told in found)
        if frozenset((told.query, told.match)) not in listed
    ]
    parts = [
        page.table(columns, rows),
        page.heading(f"{len(wrong)} pairs that were missed, or alerted although they show no one damage"),
        page.sheet(
            (f"{pair.verdict}: {pair.a} and {pair.b}", (photos[pair.a].read(), photos[pair.b].read()))
            for pair, _ in wrong
        ),
        page.heading(f"{len(others)} alerts of pairs that nobody has judged"),
        page.sheet(_pair(told, photos, {}, {}) for told in others[:200]),
    ]
    _write(out, "Pairs judged by eye", figures, parts)


def _all_photos(root: Path) -> list[Photo]:
    held_out = [*sources.damage_polygons(root, "val"), *sources.severity(root, "val")]
    return [*held_out, *sources.train_split(root)]


def _pair(
    told: Told,
    photos: Mapping[str, Photo],
    verdicts: Mapping[frozenset[str], str],
    again: Mapping[str, Photo],
) -> tuple[str, tuple[Image, ...]]:
    """A caption, and both photos with the windows that were found alike."""
    query = again.get(told.query) or photos[told.query]
    match = photos[told.match]
    said = verdicts.get(frozenset((query.name, match.name)), "not judged")
    mirrored = ", mirrored" if told.mirrored else ""
    caption = f"{told.kind} {told.probability:.3f}{mirrored} ({said}): {told.query} and {told.match}"
    pictures = [_marked(match, told.match_window)]
    pictures.insert(0, query.read() if told.query in again else _marked(query, told.query_window))
    return caption, tuple(pictures)


def _marked(photo: Photo, window: Box) -> Image:
    image = photo.read()
    corner, opposite = (round(window.x0), round(window.y0)), (round(window.x1), round(window.y1))
    cv2.rectangle(image, corner, opposite, (0, 220, 255), max(2, max(image.shape) // 150))
    return image


def _write(out: Path, title: str, figures: Mapping[str, Any], parts: Sequence[Element]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    page.write(out / "report.html", title, parts)
    note(f"written: {out / 'report.html'}")


def _told(items: Iterable[Any], total: int, doing: str) -> list[Any]:
    """All items, with progress: a bar on a terminal, else a line for each tenth."""
    done = []
    with progress() as bar:
        task = bar.add_task(doing, total=total)
        for item in items:
            done.append(item)
            bar.advance(task)
            if not messages.is_terminal and len(done) * 10 // total > (len(done) - 1) * 10 // total:
                note(f"{doing}: {len(done)} of {total}")
    return done


def _once(alerts: Iterable[Told]) -> list[Told]:
    """One alert for each pair of photos, whichever asked."""
    first: dict[frozenset[str], Told] = {}
    for told in sorted(alerts, key=lambda told: -told.probability):
        first.setdefault(frozenset((told.query, told.match)), told)
    return list(first.values())
