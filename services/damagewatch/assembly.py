"""Builds the parts from the settings: whatever runs (the matcher, a scan) is put together from these."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from damagewatch.evidence import EvidenceStore
from damagewatch.index import ActiveCollection, DamageIndex, RebuildableIndex, collection_name
from damagewatch.pipeline.closer import closer_look
from damagewatch.pipeline.intake import Intake
from damagewatch.pipeline.recognition import Options, Recognition
from damagewatch.pipeline.references import References
from damagewatch.settings import PREFIX, SEPARATOR, SettingError, Settings
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perception

if TYPE_CHECKING:
    from damagewatch.index.qdrant import QdrantIndex

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


def open_index(settings: Settings, models: Models) -> RebuildableIndex:
    """The Qdrant server of `DAMAGEWATCH_INDEX__URL`, or else Qdrant Edge in `DAMAGEWATCH_INDEX__PATH`.

    Raises:
        DependencyDownError: it does not answer, or another process holds the folder.
    """
    if settings.index.url is None:
        from damagewatch.index.edge import EdgeIndex

        return EdgeIndex(settings.index.path, collection_of(models), models.dimension)
    return _on_server(settings, models)


def open_beside(settings: Settings, models: Models, index: DamageIndex) -> RebuildableIndex:
    """The collection of other models, in the folder of an index that is open, or on the same server.

    Raises:
        DependencyDownError: it does not answer.
    """
    from damagewatch.index.edge import EdgeIndex

    if isinstance(index, EdgeIndex):
        return EdgeIndex.beside(index, collection_of(models), models.dimension)
    return _on_server(settings, models)


def collection_of(models: Models) -> str:
    """The name of the collection that holds the embedder's vectors."""
    embedder = models.manifest.embedder
    return collection_name(embedder.name, embedder.sha256)


def open_active(settings: Settings, models: Models) -> ActiveCollection:
    """Which collection of the index is searched."""
    if settings.index.url is None:
        from damagewatch.index.edge import FolderAlias

        return FolderAlias(settings.index.path)
    return _on_server(settings, models).alias


def load_next_models(settings: Settings, models: Models) -> Models:
    """The models of `DAMAGEWATCH_MODELS__NEXT`, which may differ in all but the local features.

    Raises:
        ModelRefusedError: one does not fit its manifest.
        SettingError: none are named, the embedder is the same, or the local features are others.
    """
    name = f"{PREFIX}MODELS{SEPARATOR}NEXT"
    if settings.models.next is None:
        raise SettingError(f"{name}: names the folder of the models to change over to, and is not set")
    following = Models.load(settings.models.next, settings.onnx.providers)
    if collection_of(following) == collection_of(models):
        raise SettingError(f"{name}: {settings.models.next} has the embedder that is in use; nothing changes")
    ours, theirs = models.manifest.local_features, following.manifest.local_features
    if ours.sha256 != theirs.sha256:
        raise SettingError(
            f"{name}: {settings.models.next} has other local features ({theirs.version}, in use: "
            f"{ours.version}); those are stored with each damage and cannot be carried over. Send the photos again"
        )
    return following


def _on_server(settings: Settings, models: Models) -> QdrantIndex:
    from damagewatch.index.qdrant import Layout, QdrantIndex

    assert settings.index.url is not None
    return QdrantIndex.server(
        settings.index.url,
        collection_of(models),
        models.dimension,
        api_key=settings.index.api_key.get_secret_value() or None,
        ca_file=settings.index.ca_file,
        timeout=settings.index.timeout,
        layout=Layout(
            shards=settings.index.shards,
            replicas=settings.index.replication_factor,
            write_consistency=settings.index.write_consistency_factor,
        ),
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
    settings: Settings,
    models: Models,
    index: DamageIndex,
    evidence: EvidenceStore,
    observe: Observe = ignore,
    also: DamageIndex | None = None,
    also_first: bool = False,
) -> Recognition:
    """What happens to a batch of photos. `evidence` holds the crops of what the index remembers.

    `also` and `also_first`: see `Recognition`.

    Raises:
        SettingError: similar damages are wanted, and no threshold says from which cosine on.
    """
    calibration = models.calibration.model_copy(
        update={"thresholds": settings.alerting.thresholds(models.calibration.thresholds)}
    )
    options = Options(candidates=settings.index.candidates, similar_damage=settings.alerting.similar_damage)
    return Recognition(
        index,
        calibration,
        models.versions,
        options,
        observe,
        also=also,
        also_first=also_first,
        closer=closer_look(models.local_features, evidence.read),
    )
