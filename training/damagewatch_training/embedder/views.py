"""Renders once what the embedder trains on: each window of each photo, clean and photographed again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from damagewatch.domain import Box
from damagewatch.synthesis.rephotograph import rephotograph
from damagewatch.vision.regions import window
from damagewatch_training.data import windows
from damagewatch_training.data.dataset import write_whole
from damagewatch_training.data.sources import Photo

Image = NDArray[np.uint8]

SIZE = 128
"""Pixels of a rendered view: somewhat more than the embedder takes."""


def list_windows(photos: list[Photo], folder: Path, seed: int) -> None:
    """Chooses the windows and writes them to `folder`/windows.npz.

    Arrays: `names` (P,) of the photos, `photo` int32 (W,) which of them, `box` float32 (W, 4) the damage in
    pixels (the whole photo for window 0 of each).
    """
    owners, boxes = [], []
    for index, photo in enumerate(track(photos, "choosing windows")):
        height, width = photo.read().shape[:2]
        rng = np.random.default_rng([seed, index])
        for box in windows.to_train_on([label.box for label in photo.labels], width, height, rng):
            owners.append(index)
            boxes.append((box.x0, box.y0, box.x1, box.y1))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "windows.npz",
        names=np.array([photo.name for photo in photos]),
        photo=np.array(owners, np.int32),
        box=np.array(boxes, np.float32),
    )


def render(root: Path, folder: Path, views: int, seed: int) -> None:
    """Writes `folder`/views.npy, uint8 (W, 1 + views, SIZE, SIZE, 3) RGB: the clean window, then its views.

    A view in which less than half of the damage is left repeats the clean window. Goes on where an earlier
    run was stopped: `folder`/views.done counts finished photos.
    """
    listed = np.load(folder / "windows.npz")
    names, owner, boxes = listed["names"], listed["photo"], listed["box"]
    path, counter = folder / "views.npy", folder / "views.done"
    shape = (len(owner), 1 + views, SIZE, SIZE, 3)
    done = int(counter.read_text()) if counter.exists() and path.exists() else 0
    store = np.lib.format.open_memmap(path, "r+" if done else "w+", np.uint8, None if done else shape)
    if store.shape != shape:
        raise ValueError(f"{path} has shape {store.shape}, not {shape}: remove it and {counter}")
    tasks = (
        (
            root / str(names[index]),
            [Box(*box) for box in boxes[owner == index].tolist()],
            views,
            [seed, index],
        )
        for index in range(done, len(names))
    )
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        results = workers.map(_render_photo, tasks, chunksize=4)
        for index, rendered in enumerate(track(results, "rendering", total=len(names) - done), done):
            store[owner == index] = rendered
            if index % 100 == 99 or index == len(names) - 1:
                store.flush()
                write_whole(counter, str(index + 1).encode())


def _render_photo(task: tuple[Path, list[Box], int, list[int]]) -> Image:
    path, boxes, views, seed = task
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    photo = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)
    height, width = photo.shape[:2]
    out = np.empty((len(boxes), 1 + views, SIZE, SIZE, 3), np.uint8)
    for number, box in enumerate(boxes):
        out[number, 0] = windows.cut(photo, window(box, width, height), SIZE)
    for view, (image, homography) in enumerate(_photographed_again(photo, views, rng), 1):
        for number, box in enumerate(boxes):
            seen = box if number == 0 else windows.mapped(box, homography, width, height)
            if seen is None:
                out[number, view] = out[number, 0]
                continue
            guess = seen if number == 0 else windows.jittered(seen, rng, width, height)
            shrink = cv2.INTER_AREA if rng.random() < 0.5 else cv2.INTER_LINEAR
            out[number, view] = windows.cut(image, window(guess, width, height), SIZE, shrink)
    return out[..., ::-1]


def _photographed_again(
    photo: Image, views: int, rng: np.random.Generator
) -> Iterator[tuple[Image, NDArray[np.float64]]]:
    for _ in range(views):
        again = rephotograph(photo, rng, strength=rng.uniform(0.5, 1.2))
        stored = cv2.imdecode(np.frombuffer(again.encoded(), np.uint8), cv2.IMREAD_COLOR)
        yield np.asarray(stored, np.uint8), again.homography
