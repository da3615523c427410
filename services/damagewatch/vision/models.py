"""The shipped models of a folder, loaded, checked and ready for many threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from damagewatch.vision.calibration import Calibration
from damagewatch.vision.detect import Detector
from damagewatch.vision.embed import Embedder
from damagewatch.vision.engine import CPU, Engine
from damagewatch.vision.features import OUTPUTS, FeatureExtractor
from damagewatch.vision.manifest import FILE, Manifest, Model, ModelRefusedError, read_manifest, read_model
from damagewatch.vision.severity import Grader


@dataclass(frozen=True, slots=True)
class Models:
    """The parts that judge a photo, and which versions they are."""

    manifest: Manifest
    detector: Detector
    embedder: Embedder
    local_features: FeatureExtractor
    providers: tuple[str, ...]
    """Execution providers in use, by preference."""
    severity: Grader | None = None
    """None: the folder has no such model."""

    @classmethod
    def load(cls, directory: Path, providers: Sequence[str] = (CPU,)) -> Models:
        """Loads a models folder.

        Args:
            directory: holds manifest.json and the files that it names.
            providers: ONNX Runtime's execution providers by preference; the CPU is always the last.

        Raises:
            ModelRefusedError: something is missing or does not fit; names the file and the field.
        """
        manifest = read_manifest(directory)

        def refused(part: str, model: Model, error: ValueError) -> ModelRefusedError:
            return ModelRefusedError(f"{directory / FILE}: {part}.file: {model.file}: {error}")

        def engine(part: str, model: Model, channels: int, outputs: Sequence[str]) -> Engine:
            content, side = read_model(directory, part, model), model.input.size
            try:
                return Engine(content, (channels, side, side), outputs, providers)
            except ValueError as error:
                raise refused(part, model, error) from None

        detector = engine("detector", manifest.detector, 3, ("logits",))
        embedder = engine("embedder", manifest.embedder, 3, ("embedding",))
        side, dimension = manifest.embedder.input.size, manifest.embedder.dimension
        (vectors,) = embedder.run(np.zeros((1, 3, side, side), np.float32))
        if vectors.shape != (1, dimension):  # an index of that dimension would be made, and take nothing
            raise ModelRefusedError(
                f"{directory / FILE}: embedder.dimension is {dimension}, but the model gives {vectors.shape[1:]}"
            )
        local_features = engine("local_features", manifest.local_features, 1, OUTPUTS)
        severity = None
        if (graded := manifest.severity) is not None:
            try:
                severity = Grader(engine("severity", graded, 3, ("severity",)), graded)
            except ValueError as error:
                raise refused("severity", graded, error) from None
        return cls(
            manifest=manifest,
            detector=Detector(detector, manifest.detector),
            embedder=Embedder(embedder, manifest.embedder),
            local_features=FeatureExtractor(local_features, manifest.local_features),
            providers=detector.providers,
            severity=severity,
        )

    @property
    def calibration(self) -> Calibration:
        """What turns signals into a probability."""
        return self.manifest.calibration

    @property
    def dimension(self) -> int:
        """Of the embedder's vectors."""
        return self.manifest.embedder.dimension

    @property
    def versions(self) -> Mapping[str, str]:
        """Of each part, its name and the first twelve digits of its hash: goes into every alert."""
        versions = {part: model.version for part, model in self.manifest.models.items()}
        return MappingProxyType(versions | {"calibration": self.manifest.calibration.version})
