"""What turns a picture into numbers: everything that can be evaluated, by one word on the command line.

A method is a folder of models or of an experiment, an ONNX file, features in a `.npz` or `.npy`, `phash` (a
perceptual hash) or `imagenet` (pooled features of EfficientNet-Lite0). Torch is needed for `imagenet` alone.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

from damagewatch.domain import Box
from damagewatch.vision import resample
from damagewatch.vision.decode import Photo as Decoded
from damagewatch.vision.embed import to_tensor
from damagewatch.vision.hashing import perceptual_hashes
from damagewatch.vision.manifest import FILE, ModelInput, read_manifest
from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.evaluate.chain import in_order
from damagewatch_training.evaluate.task import Item, Task, file_sha256

Vector = NDArray[np.float32]
Embed = Callable[[Decoded, Box], Vector]

PHASH, IMAGENET = "phash", "imagenet"
RAW_SIZE = 288
"""Pixels that a model is given which takes bytes and scales itself; SSCD is meant to be run at this size."""
EXPERIMENT_FILE = "embedder.onnx"
UNREADABLE = (OSError, ValueError, EOFError, BadZipFile)
"""What numpy raises over files that are no arrays."""


class MethodRefusedError(DataRefusedError):
    """A method that cannot be used; the message names it and says why."""


def check(method: str) -> None:
    """Looks whether there is such a method, before a task is made for it.

    Raises:
        MethodRefusedError: There is none.
    """
    if Path(method).suffix in {".npz", ".npy"}:
        if not Path(method).is_file():
            raise MethodRefusedError(f"{method}: no such file")
    elif method not in {PHASH, IMAGENET}:
        model_file(method)


def features(method: str, task: Task, keep: Path, threads: int = 2) -> Iterator[int | Vector]:
    """Describes every item of a task.

    Args:
        method: See the module.
        task: The queries and the gallery.
        keep: Folder where features are kept; those of the same model and task are taken from there.
        threads: Pictures looked at at once.

    Yields:
        The number of items done, and last float32 (N, D) of unit length: the queries, then the gallery.

    Raises:
        MethodRefusedError: The method cannot be used, or lacks items of the task.
    """
    path = Path(method)
    if path.suffix == ".npz":
        found = _named(path, task)
    elif path.suffix == ".npy":
        found = _listed(path, task)
    else:
        embed = embedder(method)
        kept = keep / f"features-{_identity(method, task)}.npy"
        if not kept.exists():
            vectors: list[Vector] = []
            for some in in_order(lambda items: _embedded(embed, items), _by_file(task.items), threads):
                vectors += some
                yield len(vectors)
            keep.mkdir(parents=True, exist_ok=True)
            with kept.with_suffix(".part").open("wb") as file:
                np.save(file, np.stack(vectors))
            kept.with_suffix(".part").replace(kept)
        found = np.load(kept, allow_pickle=False)
    if not np.isfinite(found).all():
        raise MethodRefusedError(f"{method}: a feature is not a finite number")
    yield unit(found)


def unit(vectors: NDArray[np.floating]) -> Vector:
    """Each row scaled to length 1 (a row of zeros stays): cosines are then products."""
    wide = np.asarray(vectors, np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12), np.float32)


def embedder(method: str) -> Embed:
    """A method that looks at pictures.

    Raises:
        MethodRefusedError: There is no such method, or it cannot be used.
    """
    if method == PHASH:
        return _perceptual_hash
    if method == IMAGENET:
        return _imagenet()
    return onnx_embedder(model_file(method))


def model_file(method: str) -> Path:
    """The ONNX file of a method: itself, or the embedder of a folder of models or of an experiment.

    Raises:
        MethodRefusedError: There is none.
    """
    path = Path(method)
    if path.is_dir():
        if (path / FILE).exists():
            return path / read_manifest(path).embedder.file
        if not (path / EXPERIMENT_FILE).exists():
            raise MethodRefusedError(
                f"{method}: neither a folder of models ({FILE}) nor an exported experiment ({EXPERIMENT_FILE})"
            )
        return path / EXPERIMENT_FILE
    if path.suffix != ".onnx":
        raise MethodRefusedError(
            f"{method}: not a method; give an ONNX file, .npz, .npy, a folder, {PHASH} or {IMAGENET}"
        )
    if not path.is_file():
        raise MethodRefusedError(f"{method}: no such file")
    return path


def _identity(method: str, task: Task) -> str:
    """Of the model, the code that runs it, and the pictures."""
    pictures = {file: file_sha256(file) for file in dict.fromkeys(item.file for item in task.items)}
    told = hashlib.sha256(
        "".join(f"{item.name} {pictures[item.file]} {item.window}\n" for item in task.items).encode(
            errors="replace"
        )
    )
    for module in (sys.modules[__name__], resample):
        told.update(inspect.getsource(module).encode())
    if method in {PHASH, IMAGENET}:
        told.update(method.encode())
    else:
        file = model_file(method)
        told.update(file.read_bytes())
        if (manifest := file.parent / FILE).exists():
            told.update(read_manifest(manifest.parent).embedder.input.model_dump_json().encode())
    return told.hexdigest()[:16]


def onnx_embedder(path: Path) -> Embed:
    """A model that embeds windows.

    It takes either float32 (N, 3, h, w) RGB as the manifest beside it says (without one: value / 255), or uint8
    (N, h, w, 3) RGB, which it normalises itself. Its first output, (N, D), is the embedding.

    Raises:
        MethodRefusedError: It takes or gives something else.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen types without a common base
        raise MethodRefusedError(f"{path}: not a model that ONNX Runtime can load: {error}") from None
    (taken, *more), given = session.get_inputs(), session.get_outputs()[0].name
    if more or len(taken.shape) != 4 or taken.type not in {"tensor(float)", "tensor(uint8)"}:
        raise MethodRefusedError(f"{path}: takes {taken.type} {taken.shape}, not pictures")
    raw = taken.type == "tensor(uint8)"
    wanted = ModelInput(size=RAW_SIZE) if raw else _input(path, taken.shape[2])

    def embed(photo: Decoded, box: Box) -> Vector:
        part = resample.cut(photo, box, wanted.size, wanted.size)
        tensor = part[None, ..., ::-1] if raw else to_tensor(part, wanted)
        (output,) = session.run([given], {taken.name: np.ascontiguousarray(tensor)})
        if output.ndim != 2 or len(output) != 1:
            raise MethodRefusedError(f"{path}: gives {output.shape}, not one vector a picture")
        return np.asarray(output[0], np.float32)

    return embed


def _input(path: Path, side: object) -> ModelInput:
    """The preprocessing that the manifest beside a model tells; its size is the model's own where that is fixed."""
    told = None
    if (path.parent / FILE).exists():
        told = read_manifest(path.parent).embedder.input
    size = side if isinstance(side, int) else told.size if told else None
    if size is None:
        raise MethodRefusedError(f"{path}: takes pictures of any size, and no {FILE} beside it tells which")
    return (
        told.model_copy(update={"size": size})
        if told
        else ModelInput(size=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    )


def _perceptual_hash(photo: Decoded, box: Box) -> Vector:
    """The 64 bits as +1 and -1, so that the cosine is 1 - 2 * distance / 64."""
    bits, _ = perceptual_hashes(resample.cut(photo, box, 256, 256))
    return np.array([1.0 if bits >> place & 1 else -1.0 for place in range(64)], np.float32)


def _imagenet() -> Embed:
    """The baseline: pooled features of EfficientNet-Lite0, trained on ImageNet alone, at 224 pixels."""
    try:
        import torch

        from damagewatch_training.experiment import imagenet
    except ImportError as error:
        raise MethodRefusedError(f"{IMAGENET} needs the extra `train`: {error}") from None
    model = imagenet.pooled_features()
    wanted = ModelInput(size=224, mean=imagenet.MEAN, std=imagenet.STD)

    def embed(photo: Decoded, box: Box) -> Vector:
        part = resample.cut(photo, box, wanted.size, wanted.size)
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(to_tensor(part, wanted)))[0], np.float32)

    return embed


def _by_file(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Items in order, those of one file that follow each other together, so that it is decoded once."""
    for _, some in groupby(items, key=lambda item: item.file):
        yield list(some)


def _embedded(embed: Embed, items: Sequence[Item]) -> list[Vector]:
    photo, _ = items[0].read()
    whole = Box(0, 0, photo.width, photo.height)
    return [embed(photo, item.window or whole) for item in items]


def _named(path: Path, task: Task) -> Vector:
    with _opened(path) as stored:
        if not {"name", "x"} <= set(stored):
            raise MethodRefusedError(f"{path}: must hold `name` and `x`")
        try:
            rows = {str(name): row for row, name in enumerate(stored["name"].tolist())}
            x = stored["x"]
        except UNREADABLE as error:
            raise MethodRefusedError(f"{path}: `name` or `x` cannot be read: {error}") from None
    if x.ndim != 2 or len(x) != len(rows):
        raise MethodRefusedError(f"{path}: {len(rows)} different names for `x` of shape {x.shape}")
    missing = [item.name for item in task.items if item.name not in rows]
    if missing:
        raise MethodRefusedError(
            f"{path}: {len(missing)} of {len(task.items)} items are missing, such as {missing[0]!r}; "
            "`evaluate items` lists what a task holds"
        )
    return np.asarray(x[[rows[item.name] for item in task.items]], np.float32)


def _listed(path: Path, task: Task) -> Vector:
    try:
        x = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise MethodRefusedError(f"{path}: not an array that numpy can load: {error}") from None
    if not isinstance(x, np.ndarray) or x.ndim != 2 or len(x) != len(task.items):
        raise MethodRefusedError(
            f"{path}: of shape {getattr(x, 'shape', None)}; wanted are {len(task.queries)} rows for the queries, "
            f"then {len(task.gallery)} for the gallery, in the order of `evaluate items`"
        )
    return np.asarray(x, np.float32)


def _opened(path: Path) -> np.lib.npyio.NpzFile:
    try:
        stored = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise MethodRefusedError(f"{path}: not a file that numpy can load: {error}") from None
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise MethodRefusedError(f"{path}: one array, not several with names")
    return stored
