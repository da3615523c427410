r"""Features of a task's items by a model that wants a Python of its own: needs numpy, OpenCV and ONNX Runtime alone.

The teacher of the shipped embedder, SSCD, is packed so (`embedder.teacher`)::

    damagewatch-train evaluate items items.csv --data DATA
    PYTHONPATH=services:training python3.12 -m damagewatch_training.evaluate.elsewhere \
        --model MODEL --items items.csv --out teacher.npz --centre RUN/teacher.npy
    damagewatch-train evaluate teacher.npz --data DATA
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from damagewatch.domain import Box
from damagewatch.vision.decode import decode
from damagewatch.vision.resample import cut

SIZE = 288


def write(model: Path, items: Path, out: Path, centre: Path | None) -> None:
    """Embeds each item and writes `name` and `x`, float32 (N, D), to a .npz.

    Args:
        model: Takes uint8 (N, H, W, 3) RGB and normalises itself.
        items: As `evaluate items` lists them.
        out: The .npz.
        centre: Embeddings of other pictures, (M, D), whose mean is taken off: of those that a student learned from.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0].name
    names, vectors, opened = [], [], None
    with items.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if opened is None or opened[0] != row["file"]:
                opened = row["file"], decode(Path(row["file"]).read_bytes())
            photo = opened[1]
            box = Box(0, 0, photo.width, photo.height)
            if row["x0"]:
                box = Box(*(float(row[corner]) for corner in ("x0", "y0", "x1", "y1")))
            picture = np.ascontiguousarray(cut(photo, box, SIZE, SIZE)[None, ..., ::-1])
            vectors.append(session.run(None, {taken: picture})[0][0])
            names.append(row["name"])
            if len(names) % 500 == 0:
                print(f"{len(names)} items", flush=True)
    x = np.asarray(vectors, np.float32)
    if centre is not None:
        x = x - np.load(centre, allow_pickle=False).mean(0)
    np.savez(out, name=np.array(names), x=x)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in ("--model", "--items", "--out"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--centre", type=Path)
    given = parser.parse_args()
    write(given.model, given.items, given.out, given.centre)
