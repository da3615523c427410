"""The same pipeline over folders, without Kafka: finds damages in an archive that were claimed twice."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from damagewatch.assembly import load_models, make_intake, make_recognition, open_index
from damagewatch.domain import ClaimImage, Origin, Refused
from damagewatch.evidence import EvidenceStore
from damagewatch.folders import PhotoFile
from damagewatch.pipeline.intake import Intake, Seen
from damagewatch.pipeline.parallel import ParallelStage
from damagewatch.pipeline.recognition import Decided, Positions, Recognition
from damagewatch.pipeline.stage import StageFull
from damagewatch.settings import Settings
from damagewatch.vision.models import Models

BATCH = 8
_ORDER = ("scan", 0)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scanned:
    """A photo and its verdict."""

    photo: PhotoFile
    verdict: Decided | Refused


class Scanner:
    """Scans photos from files, several at once."""

    def __init__(
        self, intake: Intake, recognition: Recognition, *, tenant: str, threads: int, max_photo_bytes: int
    ) -> None:
        """Prepares.

        Args:
            intake: looks at one photo.
            recognition: remembers and judges; its index should be empty.
            tenant: of all photos.
            threads: photos worked on at once.
            max_photo_bytes: larger files are refused unread.
        """
        self._intake = intake
        self._recognition = recognition
        self._tenant = tenant
        self._threads = threads
        self._max_photo_bytes = max_photo_bytes
        self._stage: ParallelStage[tuple[int, PhotoFile], Seen | Refused] | None = None

    def close(self) -> None:
        """Ends what is under way: nothing is written to the evidence store any more."""
        if self._stage is not None:
            self._stage.terminate()
            self._stage.settle()

    def scan(self, photos: Sequence[PhotoFile]) -> Iterator[Scanned]:
        """Every photo against all photos of other claims that come before it."""
        positions = Positions({_ORDER: 0})
        for batch in _chunks(self._look(photos), BATCH):
            verdicts = self._recognition([seen for _, seen in batch], positions)
            yield from (Scanned(photo, verdict) for (photo, _), verdict in zip(batch, verdicts, strict=True))

    def remember(self, gallery: Sequence[PhotoFile]) -> Iterator[tuple[PhotoFile, Refused | None]]:
        """Remembers photos without judging them; gives each with the reason if it was refused."""
        for batch in _chunks(self._look(gallery), BATCH):
            self._recognition.remember([seen for _, seen in batch if isinstance(seen, Seen)])
            yield from ((photo, seen if isinstance(seen, Refused) else None) for photo, seen in batch)

    def search(self, queries: Sequence[PhotoFile]) -> Iterator[Scanned]:
        """Every photo against those that were remembered, and not against each other."""
        for batch in _chunks(self._look(queries), BATCH):
            decided = iter(self._recognition.judge([seen for _, seen in batch if isinstance(seen, Seen)]))
            yield from (
                Scanned(photo, seen if isinstance(seen, Refused) else next(decided)) for photo, seen in batch
            )

    def _look(self, photos: Sequence[PhotoFile]) -> Iterator[tuple[PhotoFile, Seen | Refused]]:
        """Looks at photos on several threads and gives them in order, a few ahead of who takes them."""
        self._stage = stage = ParallelStage(
            self._look_at,
            threads=self._threads,
            max_items=4 * self._threads,
            max_bytes=8 * self._max_photo_bytes,
            size_of=lambda item: item[1].size,
        )
        under_way: deque[PhotoFile] = deque()
        try:
            for number, photo in enumerate(photos):
                while True:
                    for seen in stage.poll():
                        yield under_way.popleft(), seen
                    try:
                        stage.submit((number, photo))
                        break
                    except StageFull:
                        time.sleep(0.002)
                under_way.append(photo)
            stage.close()
            while under_way:
                for seen in stage.poll():
                    yield under_way.popleft(), seen
                time.sleep(0.002)
        finally:
            stage.terminate()

    def _look_at(self, item: tuple[int, PhotoFile]) -> Seen | Refused:
        number, photo = item
        try:
            content = photo.read(self._max_photo_bytes)
        except Refused as refused:
            return refused
        image = ClaimImage(self._tenant, photo.claim_id, photo.photo_id, content)
        return self._intake(image, Origin(*_ORDER, number))


def _chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@contextmanager
def open_scanner(settings: Settings) -> Iterator[tuple[Scanner, EvidenceStore, Models]]:
    """A scanner with an index and an evidence store of its own, in a folder that goes at the end.

    Raises:
        ModelRefusedError: a model does not fit its manifest.
    """
    models = load_models(settings)
    with tempfile.TemporaryDirectory(prefix="damagewatch-scan-") as folder:
        here = Path(folder)
        settings = settings.model_copy(
            update={
                "index": settings.index.model_copy(update={"url": None, "path": here / "index"}),
                "evidence": settings.evidence.model_copy(update={"url": str(here / "evidence")}),
            }
        )
        evidence = EvidenceStore(settings.evidence.url)
        with closing(open_index(settings, models)) as index:
            scanner = Scanner(
                make_intake(settings, models, evidence),
                make_recognition(settings, models, index, evidence),
                tenant=settings.tenant,
                threads=settings.onnx.threads,
                max_photo_bytes=settings.limits.photo_bytes,
            )
            with closing(scanner):
                yield scanner, evidence, models
