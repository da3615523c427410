"""What the embedder learns from: several views of each of many damages, wherever they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from damagewatch.vision.regions import window
from damagewatch_training.data import naming, windows
from damagewatch_training.data.dataset import DataRefusedError, Dataset
from damagewatch_training.experiment import record

Image = NDArray[np.uint8]

SIZE = 160
"""Pixels of a view that is kept in memory: more than the embedder takes, so that it can be changed."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Views by identity: a damage on a car, or a window of a photo where nothing else is known.

    `views` holds for each identity uint8 (V, S, S, 3) RGB, V of its own. `teacher`, float32 (I, D), is what a
    teacher sees in each identity, where there is one. `sha256` is of all that they were made of.
    """

    views: Sequence[NDArray[np.uint8]]
    sha256: str
    teacher: NDArray[np.float32] | None = None

    def split(self, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Identities to train on, and that share of those with two views which is held out."""
        several = np.array([i for i, views in enumerate(self.views) if len(views) > 1], np.int64)
        drawn = np.random.default_rng([seed, 9]).permutation(several)
        held_out = np.sort(drawn[: round(share * len(several))])
        return np.setdiff1d(np.arange(len(self.views)), held_out), held_out


def rendered(run: Path, *, teacher: bool) -> Examples:
    """The windows that `damagewatch-train views` rendered, each an identity of its own.

    Raises:
        DataRefusedError: `run` lacks views.npy, or the teacher's embeddings that are asked for.
    """
    files = ["windows.npz", "views.npy", *(["teacher.npy"] if teacher else [])]
    for file in files:
        if not (run / file).exists():
            raise DataRefusedError(f"{run / file} is missing: see `damagewatch-train views --help`")
    views = np.load(run / "views.npy", mmap_mode="r", allow_pickle=False)
    taught = np.load(run / "teacher.npy", allow_pickle=False) if teacher else None
    if taught is not None and len(taught) != len(views):
        raise DataRefusedError(f"{run}: {len(views)} windows, but the teacher saw {len(taught)}")
    return Examples(views, record.data_sha256([run / file for file in files]), taught)


def named(folder: Path) -> Examples:
    """A folder of crops called `damageid_imageid.jpg` (`data.naming`), as `data encode` writes them.

    Raises:
        DataRefusedError: no file is called so, a picture cannot be read, or no damage has two.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if ids := naming.parsed(path.name):
            files[ids[0]].append(path)
    if not files:
        raise DataRefusedError(f"{folder}: no file is called damageid_imageid.jpg")
    if all(len(paths) < 2 for paths in files.values()):
        raise DataRefusedError(f"{folder}: no damage has two pictures: nothing can be learned from them")
    views = [
        np.stack([_read(path) for path in paths])
        for _, paths in track(sorted(files.items()), "reading crops")
    ]
    return Examples(views, record.data_sha256([path for paths in files.values() for path in paths]))


def damages(data: Dataset, split: str | None) -> Examples:
    """The damages of a dataset: the window of each from every photo that shows it.

    A damage of which one photo is known is seen in that one alone, changed each time.

    Raises:
        DataRefusedError: there are none in that split.
    """
    showing: dict[str, list[Image]] = defaultdict(list)
    of_photo = data.damages_of()
    chosen = [photo for photo in data.photos if split is None or photo.split == split]
    for photo in track(chosen, "reading photos"):
        if photo.name not in of_photo:
            continue
        image = cv2.imread(str(data.folder / photo.file), cv2.IMREAD_COLOR)
        if image is None:
            raise DataRefusedError(f"{data.folder / photo.file} is not an image")
        for damage in of_photo[photo.name]:
            box = window(damage.area, photo.width, photo.height)
            crop = windows.cut(np.asarray(image, np.uint8), box, SIZE, cv2.INTER_AREA)
            showing[damage.physical].append(crop[..., ::-1])
    if not showing:
        raise DataRefusedError(
            f"{data.folder}: no damages in {'any' if split is None else repr(split)} split"
        )
    return Examples([np.stack(views) for _, views in sorted(showing.items())], data.sha256)


def _read(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataRefusedError(f"{path} is not an image")
    return np.asarray(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)[..., ::-1]
