"""Models that compute nothing twice: their answers are kept in a folder, so that a later run redoes what changed.

An answer is filed under the model's hash, its thresholds, the code that runs it, and the pixels it was asked about.
A new embedder therefore costs new embeddings and nothing else.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from damagewatch.domain import Box, DamageType, LocalFeatures, Severity
from damagewatch.vision import detect, embed, features, resample
from damagewatch.vision.decode import Photo
from damagewatch.vision.detect import Detector, Region
from damagewatch.vision.embed import Embedder
from damagewatch.vision.features import FeatureExtractor
from damagewatch.vision.manifest import Model
from damagewatch.vision.models import Models

Arrays = dict[str, NDArray[Any]]


def keeping(models: Models, folder: Path) -> Models:
    """The same models, answering from `folder` what they were asked before. Many threads may share them.

    They do not grade photos as a whole: no figure asks for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = models.manifest
    return replace(
        models,
        detector=_Detector(models.detector, _Answers(folder, "detect", manifest.detector, detect)),
        embedder=_Embedder(models.embedder, _Answers(folder, "embed", manifest.embedder, embed)),
        local_features=_Features(
            models.local_features, _Answers(folder, "features", manifest.local_features, features)
        ),
        severity=None,
    )


class _Answers:
    """Arrays by key in one SQLite file."""

    def __init__(self, folder: Path, part: str, model: Model, code: ModuleType) -> None:
        told = model.model_dump_json(exclude={"data", "quality", "notes"})
        sources = inspect.getsource(code) + inspect.getsource(resample)
        name = hashlib.sha256((told + sources).encode()).hexdigest()[:16]
        self._lock = threading.Lock()
        self._store = sqlite3.connect(folder / f"{part}-{name}.sqlite", timeout=60, check_same_thread=False)
        self._store.execute("PRAGMA synchronous = OFF")  # what is lost is computed again
        self._store.execute("PRAGMA journal_mode = WAL")
        self._store.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, value BLOB NOT NULL)")

    def __call__(self, photo: Photo, where: tuple[object, ...], compute: Callable[[], Arrays]) -> Arrays:
        key = hashlib.sha256(repr((photo.width, photo.height, *where)).encode())
        key.update(repr(photo.image.shape).encode())
        key.update(photo.image.tobytes())
        with self._lock:
            row = self._store.execute("SELECT value FROM answers WHERE key = ?", (key.digest(),)).fetchone()
        if row is not None:
            with np.load(io.BytesIO(row[0]), allow_pickle=False) as kept:
                return dict(kept)
        answer = compute()
        written = io.BytesIO()
        np.savez(written, allow_pickle=False, **answer)
        with self._lock, self._store:
            self._store.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key.digest(), written.getvalue())
            )
        return answer


class _Detector(Detector):
    def __init__(self, inner: Detector, answers: _Answers) -> None:
        self._inner, self._answers = inner, answers

    def detect(self, photo: Photo) -> tuple[Region, ...]:
        def compute() -> Arrays:
            found = [
                [(r.box.x0, r.box.y0, r.box.x1, r.box.y1), r.polygons, r.type, r.severity, r.score]
                for r in self._inner.detect(photo)
            ]
            return {"regions": np.frombuffer(json.dumps(found).encode(), np.uint8)}

        kept = json.loads(self._answers(photo, (), compute)["regions"].tobytes())
        return tuple(
            Region(
                Box(*box),
                tuple(tuple((x, y) for x, y in polygon) for polygon in polygons),
                DamageType(kind),
                Severity(severity),
                score,
            )
            for box, polygons, kind, severity, score in kept
        )


class _Embedder(Embedder):
    def __init__(self, inner: Embedder, answers: _Answers) -> None:
        self._inner, self._answers = inner, answers

    def embed(self, photo: Photo, window: Box) -> NDArray[np.float32]:
        answer = self._answers(photo, (window,), lambda: {"x": self._inner.embed(photo, window)})
        return np.asarray(answer["x"], np.float32)


class _Features(FeatureExtractor):
    def __init__(self, inner: FeatureExtractor, answers: _Answers) -> None:
        self._inner, self._answers = inner, answers

    def extract(self, photo: Photo, window: Box, mirror: bool = False) -> LocalFeatures:
        def compute() -> Arrays:
            found = self._inner.extract(photo, window, mirror)
            return {"points": found.points, "descriptors": found.descriptors}

        answer = self._answers(photo, (window, mirror), compute)
        return LocalFeatures(answer["points"], answer["descriptors"])
