"""One model in several precisions, side by side: how alike, how good, how large, how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray
from rich.table import Table

Precision = Literal["fp32", "fp16", "int8"]

LEAST_COSINE = 0.95
"""To torch, the mean over images and outputs, of a file that may be shipped: int8 gives 0.987 to 0.999. Below, a part
of the network was broken, whatever its figures say of a few photos."""
MOST_LOST = 0.05
"""Share of each of fp32's figures that a file that may be shipped may lose."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One file's figures."""

    precision: Precision
    megabytes: float
    cosine: float
    """To torch: the mean over images and outputs."""
    worst_cosine: float
    quality: dict[str, float]
    milliseconds: dict[int, float]
    """An image, median, by the number of threads."""


def unfit(measured: Measured, exact: Measured) -> str | None:
    """Why a file should not be shipped, compared with that in fp32; None: it may be."""
    if not measured.cosine >= LEAST_COSINE:  # NaN is no better
        return f"its cosine to torch is {measured.cosine:.3f}, at least {LEAST_COSINE} is wanted"
    for name, wanted in exact.quality.items():
        found = measured.quality[name]
        if found < (1 - MOST_LOST) * wanted:
            return f"{name} falls from {wanted:.4f} to {found:.4f}, by more than {MOST_LOST:.0%}"
    return None


def cosines(
    path: Path, images: Sequence[NDArray[np.float32]], wanted: Sequence[Sequence[NDArray[np.float32]]]
) -> list[float]:
    """Between a file's outputs and those that torch gave: one for each image and output."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = []
    for image, theirs in zip(images, wanted, strict=True):
        for ours, right in zip(session.run(None, {"image": image}), theirs, strict=True):
            a, b = np.ravel(ours).astype(np.float64), np.ravel(right).astype(np.float64)
            found.append(float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
    return found


def milliseconds(path: Path, image: NDArray[np.float32], threads: int, runs: int = 15) -> float:
    """The median time of one image."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    took = []
    for _ in range(runs + 2):
        started = time.perf_counter()
        session.run(None, {"image": image})
        took.append(time.perf_counter() - started)
    return 1000 * statistics.median(took[2:])


def table(rows: Sequence[Measured], title: str) -> Table:
    """For the terminal."""
    shown = Table(title=title)
    for name in ("precision", "MB", "cosine", "worst", *rows[0].quality, "ms, 1 thread", "ms, 2 threads"):
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(
            row.precision,
            f"{row.megabytes:.1f}",
            f"{row.cosine:.5f}",
            f"{row.worst_cosine:.5f}",
            *(f"{value:.4f}" for value in row.quality.values()),
            *(f"{row.milliseconds[threads]:.1f}" for threads in (1, 2)),
        )
    return shown
