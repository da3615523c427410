"""Builds the parts from the settings: whatever runs (the matcher, a scan) is put together from these."""

from __future__ import annotations

from collections.abc import Callable

from damagewatch.evidence import EvidenceStore
from damagewatch.index import DamageIndex, collection_name
from damagewatch.pipeline.intake import Intake
from damagewatch.pipeline.recognition import Options, Recognition
from damagewatch.pipeline.references import References
from damagewatch.settings import PREFIX, SEPARATOR, SettingError, Settings
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perception

Observe = Callable[[str, float], None]
"""Told the seconds of a stage."""


def ignore(_stage: str, _seconds: float) -> None:
    """An observer that looks away."""


def load_models(settings: Settings) -> Models:
    """The models of `DAMAGEWATCH_MODELS__DIRECTORY`.

    Raises:
        ModelRefusedError: one does not fit its manifest.
    """
    return Models.load(settings.models.directory, settings.onnx.providers)


def open_index(settings: Settings, models: Models) -> DamageIndex:
    """The Qdrant server of `DAMAGEWATCH_INDEX__URL`, or else Qdrant Edge in `DAMAGEWATCH_INDEX__PATH`.

    Raises:
        DependencyDownError: it does not answer, or another process holds the folder.
    """
    embedder = models.manifest.embedder
    collection = collection_name(embedder.name, embedder.sha256)
    if settings.index.url is None:
        from damagewatch.index.edge import EdgeIndex

        return EdgeIndex(settings.index.path, collection, models.dimension)
    from damagewatch.index.qdrant import QdrantIndex

    return QdrantIndex.server(
        settings.index.url,
        collection,
        models.dimension,
        api_key=settings.index.api_key.get_secret_value() or None,
        ca_file=settings.index.ca_file,
        timeout=settings.index.timeout,
    )


def open_evidence(settings: Settings) -> EvidenceStore:
    """The folder or object store of `DAMAGEWATCH_EVIDENCE__URL`.

    Raises:
        SettingError: no store of that kind is known or installed.
    """
    try:
        return EvidenceStore(settings.evidence.url)
    except ValueError as error:
        raise SettingError(f"{PREFIX}EVIDENCE{SEPARATOR}URL: {error}") from None


def make_intake(
    settings: Settings, models: Models, evidence: EvidenceStore, observe: Observe = ignore
) -> Intake:
    """What happens to one photo.

    Raises:
        SettingError: a prefix that photos may be fetched from is malformed, or needs what is not installed.
    """
    try:
        references = References(
            settings.references.allowed,
            max_bytes=settings.limits.photo_bytes,
            timeout=settings.references.timeout,
        )
    except ValueError as error:
        raise SettingError(f"{PREFIX}REFERENCES{SEPARATOR}ALLOWED: {error}") from None
    return Intake(Perception(models, settings.limits.limits(), observe), evidence, references.fetch)


def make_recognition(
    settings: Settings, models: Models, index: DamageIndex, observe: Observe = ignore
) -> Recognition:
    """What happens to a batch of photos.

    Raises:
        SettingError: similar damages are wanted, and no threshold says from which cosine on.
    """
    calibration = models.calibration.model_copy(
        update={"thresholds": settings.alerting.thresholds(models.calibration.thresholds)}
    )
    options = Options(candidates=settings.index.candidates, similar_damage=settings.alerting.similar_damage)
    return Recognition(index, calibration, models.versions, options, observe)
