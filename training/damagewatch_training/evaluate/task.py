"""What is to be found: queries, a gallery, and which of its items are right. One task for every method."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, Reason, Refused
from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision.decode import Photo as Decoded
from damagewatch.vision.decode import decode
from damagewatch.vision.regions import window
from damagewatch_training.data import windows
from damagewatch_training.data.dataset import MADE_FROM, DataRefusedError, Dataset
from damagewatch_training.data.groups import Groups
from damagewatch_training.data.sources import SAME, Pair, Photo

VERSION = 2
SCANS = frozenset({".bmp", ".tif", ".tiff"})
"""Formats of laboratories, which the service does not take."""
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"}) | SCANS
COPIES = frozenset({"copy", "mirror"})
"""Verdicts of pairs that are one photograph."""
MAX_PAIRS = 200_000_000
"""Of a query and a gallery item: their similarities take 0.8 GB."""


class TaskRefusedError(DataRefusedError):
    """A task that cannot be made of what was given; the message says why."""


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to be described: the part of `file` under `window` (None: all of it). `name` is unique."""

    name: str
    file: Path
    window: Box | None = None

    def read(self) -> tuple[Decoded, Box]:
        """The decoded photo, and the window in its pixels.

        Raises:
            Refused: The file is no photo; the detail names it.
        """
        content = self.file.read_bytes()
        try:
            photo = _scan(content) if self.file.suffix.lower() in SCANS else decode(content)
        except Refused as refused:
            raise Refused(refused.reason, f"{self.file}: {refused.detail}", refused.stage) from None
        return photo, self.window or Box(0, 0, photo.width, photo.height)


def _scan(content: bytes) -> Decoded:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise Refused(Reason.CORRUPT, "cannot be decoded", "decode")
    return Decoded(np.asarray(image, np.uint8), image.shape[1], image.shape[0], 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Queries and a gallery.

    `relevant` and `junk`, (Q, G): see `evaluate.metrics`. `clusters`, (Q,), which queries are of one damage. `about`
    says in words what the task is.
    """

    queries: tuple[Item, ...]
    gallery: tuple[Item, ...]
    relevant: NDArray[np.bool_]
    junk: NDArray[np.bool_]
    clusters: NDArray[np.int64]
    about: str

    @property
    def items(self) -> tuple[Item, ...]:
        """The queries, then the gallery: the order of features without names."""
        return self.queries + self.gallery

    @property
    def sha256(self) -> str:
        """Of what is asked and what is right: figures of tasks with another hash cannot be compared."""
        told = hashlib.sha256()
        for item in self.items:
            told.update(f"{item.name} {item.window}\n".encode())
        told.update(np.packbits(self.relevant).tobytes() + np.packbits(self.junk).tobytes())
        return told.hexdigest()


@dataclass(frozen=True, slots=True)
class _Shown:
    item: Item
    damage: str
    photo: str


def rephotographed(
    asked: Sequence[Photo],
    others: Sequence[Photo],
    known: Sequence[Pair],
    folder: Path,
    views: int = 2,
    gallery: int = 4000,
    seed: int = 7,
) -> Iterator[str | Task]:
    """Damages that are photographed again, to be found among all damages, parts and random windows of other photos.

    The queries are `views` rephotographs of each labelled damage of `asked`, with the box moved a little, as another
    detection would be. The gallery is every labelled region of `asked`, then of `others`, then one random window of
    each photo without regions, until it is full. Regions of the query's own photo but the right one, and of
    known copies of it, are junk.

    Args:
        asked: Photos that were never trained on.
        others: More photos for the gallery.
        known: Pairs judged by eye.
        folder: Where the rephotographs are kept; those made before from the same photos are used again.
        views: Rephotographs of each damage.
        gallery: Other items beside the damages that are asked for, at most.
        seed: Of all chance.

    Yields:
        The name of each photo of `asked` when it is done, and last the task.
    """
    group = Groups()
    for pair in known:
        if pair.verdict in SAME:
            group.join(pair.a, pair.b)
    key = hashlib.sha256(json.dumps([VERSION, views, seed]).encode())
    for photo in asked:
        key.update(photo.path.read_bytes())
        key.update(repr([label.box for label in photo.labels]).encode())
    place = folder / key.hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    queries, shown = [], []
    for number, photo in enumerate(asked):
        right = [f"{photo.name}#{i}" for i in range(len(photo.labels))]
        of = group.of(photo.name)
        for view in _again(photo, place, number, views, seed):
            queries.append(_Shown(view[0], right[view[1]], of))
        shown += _regions(photo, of)
        yield photo.name
    rng = np.random.default_rng(seed)
    rest = [photo for photo in others if photo.labels]
    plain = [photo for photo in [*asked, *others] if not photo.labels]
    more = [one for photo in rest for one in _regions(photo, group.of(photo.name))]
    more = [more[i] for i in sorted(rng.permutation(len(more))[:gallery])]
    for photo in (plain[i] for i in rng.permutation(len(plain))[: gallery - len(more)]):
        more.append(_random(photo, group.of(photo.name), rng))
    shown += more
    if not queries:
        raise TaskRefusedError("no photo of the val split has a labelled damage: there is nothing to ask for")
    damages = {damage: i for i, damage in enumerate(dict.fromkeys(one.damage for one in queries))}
    relevant = np.array([one.damage for one in queries])[:, None] == np.array([one.damage for one in shown])
    same = np.array([one.photo for one in queries])[:, None] == np.array([one.photo for one in shown])
    yield Task(
        tuple(one.item for one in queries),
        tuple(one.item for one in shown),
        relevant,
        same & ~relevant,
        np.array([damages[one.damage] for one in queries]),
        f"{len(damages)} damages of {len(asked)} photos held out from training, each photographed again {views} "
        f"times (seed {seed}), to be found among {len(shown)} damages, damaged parts and random windows. Other "
        f"regions of the query's photo and of its known copies are left out. {len(more)} items of the gallery are of "
        "other photos, which a method may have been trained on; no query's photo was, if it kept to the train split.",
    )


def _again(photo: Photo, place: Path, number: int, views: int, seed: int) -> Iterator[tuple[Item, int]]:
    """Each damage of a photo seen again: the item, and which damage."""
    listed = place / f"{number:05d}.json"
    if not listed.exists():
        listed.write_text(json.dumps(list(_photographed(photo, place, number, views, seed))))
    for which, file, width, height, box in json.loads(listed.read_text()):
        around = window(Box(*box), width, height)  # as the service cuts it today
        yield Item(f"query/{photo.name}#{which}/{Path(file).stem[-1]}", place / file, around), which


def _photographed(
    photo: Photo, place: Path, number: int, views: int, seed: int
) -> Iterator[tuple[int, str, int, int, tuple[float, float, float, float]]]:
    image = photo.read()
    height, width = image.shape[:2]
    for which, label in enumerate(photo.labels):
        rng = np.random.default_rng([seed, number, which])
        for view in range(views):
            seen = None
            while seen is None:  # the damage left the frame: another photograph
                again = rephotograph(image, rng)
                seen = windows.mapped(label.box, again.homography, width, height)
            box = windows.jittered(seen, rng, width, height)
            file = f"{number:05d}-{which:02d}-{view}.jpg"
            (place / file).write_bytes(again.encoded())
            yield which, file, width, height, (box.x0, box.y0, box.x1, box.y1)


def _regions(photo: Photo, of: str) -> list[_Shown]:
    if not photo.labels:
        return []
    height, width = photo.read().shape[:2]
    whole = Box(0, 0, width, height)
    return [
        _Shown(
            Item(
                f"{photo.name}#{i}", photo.path, window(label.box.intersection(whole) or whole, width, height)
            ),
            f"{photo.name}#{i}",
            of,
        )
        for i, label in enumerate(photo.labels)
    ]


def _random(photo: Photo, of: str, rng: np.random.Generator) -> _Shown:
    """A window as of a damage of usual size, anywhere on the photo."""
    height, width = photo.read().shape[:2]
    w, h = np.exp(rng.uniform(np.log(0.04), np.log(0.2), 2)) * (width, height)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    box = window(Box(x, y, x + w, y + h), width, height)
    return _Shown(Item(f"{photo.name}#random", photo.path, box), "", of)


def real(data: Dataset, split: str = "val") -> Task:
    """Damages of which the data set holds several photos: each region asks for the others of its damage.

    The gallery is every region of `split`, but for photos that were made. Regions of the query's own photo, itself
    among them, and of known copies of it are junk.

    Args:
        data: Whose regions name the damage that they show (`DamageEntry.damage`).
        split: Of the photos.

    Raises:
        TaskRefusedError: No damage is on two photos.
    """
    files = {
        photo.name: photo
        for photo in data.photos
        if photo.split == split and MADE_FROM not in photo.attributes
    }
    copies = Groups()
    for photo in files.values():
        copies.join(photo.sha256, photo.name)
    for pair in data.pairs:
        if pair.verdict in COPIES:
            copies.join(pair.a, pair.b)
    regions = [damage for damage in data.damages if damage.photo in files]
    physical, photos = (
        np.array([r.physical for r in regions]),
        np.array([copies.of(r.photo) for r in regions]),
    )
    if len(regions) ** 2 > MAX_PAIRS:
        raise TaskRefusedError(f"{data.folder}: {len(regions):,} regions are too many to rank at once")
    own = photos[:, None] == photos
    relevant = (physical[:, None] == physical) & ~own if regions else np.zeros((0, 0), bool)
    asking = np.flatnonzero(relevant.any(axis=1))
    if not len(asking):
        raise TaskRefusedError(f"{data.folder}: no damage of the split {split!r} is on two photos")
    shown = [
        Item(
            r.id,
            data.folder / files[r.photo].file,
            window(r.area, files[r.photo].width, files[r.photo].height),
        )
        for r in regions
    ]
    clusters = np.unique(physical[asking], return_inverse=True)[1].astype(np.int64)
    return Task(
        tuple(Item(f"query/{shown[i].name}", shown[i].file, shown[i].window) for i in asking),
        tuple(shown),
        relevant[asking],
        own[asking],
        clusters,
        f"{clusters.max() + 1} damages of the split {split!r} that are on several photos, {len(asking)} regions; "
        f"each asks for the others among {len(shown)} regions. Regions of its own photo and of known "
        "copies of it are left out.",
    )


def labelled(query: Path, gallery: Path, labels: Path) -> Task:
    """A task of any domain: whole pictures of two folders, and a table of what belongs together.

    A query file that lies in the gallery as well (the same folder, or the same bytes) is junk for itself.

    Args:
        query: Folder of pictures.
        gallery: Folder of pictures; may be the same.
        labels: CSV with the columns `query` and `reference`: paths below the folders, with or without the file's
            ending. A query with several references has several rows.

    Raises:
        TaskRefusedError: A folder has no pictures, or the table does not fit them; names what is wrong.
    """
    asked, shown = _pictures(query), _pictures(gallery)
    if len(asked) * len(shown) > MAX_PAIRS:
        raise TaskRefusedError(
            f"{len(asked):,} queries and {len(shown):,} references are too many to rank at once"
        )
    by_query, by_reference = _by_name(asked, query), _by_name(shown, gallery)
    relevant = np.zeros((len(asked), len(shown)), bool)
    for number, row in enumerate(_rows(labels), 2):
        for column, names, folder in (("query", by_query, query), ("reference", by_reference, gallery)):
            if row[column] not in names:
                raise TaskRefusedError(f"{labels}, line {number}: no picture {row[column]!r} in {folder}")
        relevant[by_query[row["query"]], by_reference[row["reference"]]] = True
    asking, there = [file_sha256(path) for path in asked], [file_sha256(path) for path in shown]
    damages = Groups()
    for q, g in np.argwhere(relevant).tolist():
        damages.join(there[g], asking[q])
    places: dict[str, list[int]] = defaultdict(list)
    for g, value in enumerate(there):
        places[value].append(g)
    junk = np.zeros_like(relevant)
    for q, value in enumerate(asking):
        junk[q, places.get(value, [])] = True
    relevant &= ~junk
    if not relevant.any():
        raise TaskRefusedError(f"{labels}: no query has a reference other than itself")
    return Task(
        tuple(Item(f"query/{path.relative_to(query)}", path) for path in asked),
        tuple(Item(f"reference/{path.relative_to(gallery)}", path) for path in shown),
        relevant,
        junk,
        np.unique([damages.of(value) for value in asking], return_inverse=True)[1].astype(np.int64),
        f"{len(asked)} queries of {query.name}, {int(relevant.any(axis=1).sum())} of them with a reference, to be "
        f"found among {len(shown)} pictures of {gallery.name}, by {labels.name}. A picture is no answer to itself.",
    )


def file_sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _rows(labels: Path) -> list[dict[str, str]]:
    try:
        with labels.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns, rows = set(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskRefusedError(f"{labels}: not a CSV file in UTF-8: {error}") from None
    if not {"query", "reference"} <= columns:
        raise TaskRefusedError(f"{labels}: the first line must name the columns query and reference")
    return rows


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    if not found:
        raise TaskRefusedError(f"{folder}: no pictures in it")
    return found


def _by_name(paths: Sequence[Path], folder: Path) -> dict[str, int]:
    """Index by path below the folder, and by the path without its ending where that is unique."""
    exact = {path.relative_to(folder).as_posix(): i for i, path in enumerate(paths)}
    short: dict[str, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        short[path.relative_to(folder).with_suffix("").as_posix()].append(i)
    return {name: found[0] for name, found in short.items() if len(found) == 1} | exact


def crop(item: Item, side: int) -> NDArray[np.uint8]:
    """An item as a picture, for people: uint8 (h, w, 3) BGR, its longer side at most `side`."""
    photo, box = item.read()
    x0, y0, x1, y1 = (round(v * photo.scale) for v in (box.x0, box.y0, box.x1, box.y1))
    part = photo.image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    by = min(1.0, side / max(part.shape[:2]))
    size = max(1, round(part.shape[1] * by)), max(1, round(part.shape[0] * by))
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
