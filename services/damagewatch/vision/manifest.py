"""The manifest of a models folder: which files, what they take and give, their sources and quality.

A model that does not fit its manifest is refused: a wrong embedder would fill the index with vectors that
mean nothing, and nobody would notice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from damagewatch.vision.calibration import Calibration

FILE = "manifest.json"
MAX_MANIFEST_BYTES = 1_000_000
MAX_MODEL_BYTES = 200_000_000

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Positive = Annotated[FiniteFloat, Field(gt=0)]


class ModelRefusedError(Exception):
    """A models folder that cannot be used; the message names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelInput(_Part):
    """The image a model takes: a square of `size` pixels, (value / 255 - mean) / std for each channel."""

    size: Annotated[int, Field(ge=32, le=2048, multiple_of=8)]
    mean: tuple[FiniteFloat, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)

    @model_validator(mode="after")
    def _one_length(self) -> ModelInput:
        if len(self.mean) not in {1, 3} or len(self.mean) != len(self.std):
            raise ValueError("mean and std want one value each, or three each")
        return self


class DataSource(_Part):
    """A data set that a model was trained on."""

    name: str
    licence: str = ""
    source: str = ""


class Model(_Part):
    """One ONNX file beside the manifest."""

    name: Name
    file: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    input: ModelInput
    data: tuple[DataSource, ...] = ()
    quality: dict[str, Any] = {}
    notes: str = ""

    @property
    def version(self) -> str:
        """Name and the first twelve hexadecimal digits of the hash: names the model and nothing but it."""
        return f"{self.name}-{self.sha256[:12]}"


class DetectorThresholds(_Part):
    """Which pixels are damage, and which of their regions are reported.

    `damage`: probability from which a pixel is damage; `certain`: probability that the surest pixel of a region has
    at least; `min_area`: least share of the photo, 0 to 1.
    """

    damage: Annotated[float, Field(gt=0, lt=1)] = 0.5
    certain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    min_area: Annotated[float, Field(ge=0, lt=1)] = 0.0005


class DetectorModel(Model):
    """The detector."""

    thresholds: DetectorThresholds = DetectorThresholds()


class EmbeddingStatistics(_Part):
    """Of the embeddings of whole photos as they are expected: what drift is measured against.

    `spread` is the root of the mean squared distance from the `mean`; `photos` were measured.
    """

    mean: tuple[FiniteFloat, ...]
    spread: Positive
    photos: Annotated[int, Field(ge=1)]


class EmbedderModel(Model):
    """The embedder; `dimension` of its vectors."""

    dimension: Annotated[int, Field(ge=8, le=4096)]
    statistics: EmbeddingStatistics | None = None

    @model_validator(mode="after")
    def _one_dimension(self) -> EmbedderModel:
        if self.statistics is not None and len(self.statistics.mean) != self.dimension:
            raise ValueError(f"statistics.mean has {len(self.statistics.mean)} values, not {self.dimension}")
        return self


class LocalFeaturesModel(Model):
    """The local features; at most `keypoints` a window."""

    keypoints: Annotated[int, Field(ge=16, le=4096)] = 512


class Manifest(_Part):
    """`manifest.json` of a models folder. Without `severity` photos are not graded as a whole."""

    version: str
    detector: DetectorModel
    embedder: EmbedderModel
    local_features: LocalFeaturesModel
    severity: Model | None = None
    calibration: Calibration = Calibration()

    @property
    def models(self) -> Mapping[str, Model]:
        """Those that the manifest names, by its field."""
        parts = {
            "detector": self.detector,
            "embedder": self.embedder,
            "local_features": self.local_features,
            "severity": self.severity,
        }
        return {part: model for part, model in parts.items() if model is not None}


def read_manifest(directory: Path) -> Manifest:
    """Reads and validates the manifest of a models folder.

    Raises:
        ModelRefusedError: there is none, or it is not valid.
    """
    path = directory / FILE
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ModelRefusedError(f"{path}: larger than {MAX_MANIFEST_BYTES:,} bytes")
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelRefusedError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise ModelRefusedError(f"{path}: {problems}") from None


def read_model(directory: Path, part: str, model: Model) -> bytes:
    """The bytes of one model's file, checked against the manifest's hash.

    Args:
        directory: the models folder.
        part: the manifest's field, for the error.
        model: its entry.

    Raises:
        ModelRefusedError: the file is missing, lies outside the folder, is huge, or has another hash.
    """
    path = directory / model.file
    where = f"{directory / FILE}: {part}.file: {model.file}"
    try:
        # `Name` admits no separator; a link may still lead elsewhere.
        if path.resolve().parent != directory.resolve():
            raise ModelRefusedError(f"{where} lies outside the models folder")
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise ModelRefusedError(f"{where} is larger than {MAX_MODEL_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ModelRefusedError(f"{where}: {error.strerror or error}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != model.sha256:
        raise ModelRefusedError(
            f"{where} has the sha256 {found[:12]}..., {part}.sha256 is {model.sha256[:12]}..."
        )
    return content
