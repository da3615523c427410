"""The whole chain as the service runs it, over photos in memory: look, remember, search, verify, decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from damagewatch.domain import Alert, Box, ClaimImage, PhotoRef, Refused
from damagewatch.evidence import EvidenceStore
from damagewatch.index import collection_name
from damagewatch.index.edge import EdgeIndex
from damagewatch.pipeline.closer import closer_look
from damagewatch.pipeline.intake import Intake, Seen
from damagewatch.pipeline.recognition import Options, Recognition
from damagewatch.pipeline.references import References
from damagewatch.vision import looks
from damagewatch.vision.models import Models
from damagewatch.vision.perceive import Perceived, Perception
from damagewatch_training.data.sources import Photo
from damagewatch_training.evaluate.kept import keeping

T = TypeVar("T")
R = TypeVar("R")

TENANT = "evaluation"
STAGES = ("candidate", "geometry", "judgement")
"""At which a photo can be lost that was seen well, in the order in which it passes them."""


@dataclass(frozen=True, slots=True)
class Told:
    """An alert in few words: who asked (`query`), which photo was found (`match`), and where on both."""

    query: str
    match: str
    kind: str
    mirrored: bool
    probability: float
    query_window: Box
    match_window: Box

    @staticmethod
    def of(alert: Alert) -> Told:
        """The alert's."""
        return Told(
            alert.query.photo_id,
            alert.match.photo_id,
            alert.kind.value,
            alert.mirrored,
            alert.probability,
            alert.query.crop_box,
            alert.match.crop_box,
        )


class Chain:
    """The shipped models, an index that is empty at first, and the service's own recognition between them."""

    def __init__(
        self, models: Models, index: EdgeIndex, evidence: EvidenceStore, options: Options, threads: int
    ) -> None:
        """Prepares; `open_chain` makes the parts."""
        self.models = models
        self._intake = Intake(Perception(models), evidence, References().fetch)
        self._index = index
        self._recognition = Recognition(
            index,
            models.calibration,
            models.versions,
            options,
            closer=closer_look(models.local_features, evidence.read),
        )
        self._threads = threads

    def look(self, name: str, content: bytes) -> Perceived:
        """All that the service sees in a photo, which is a claim of its own called `name`.

        Raises:
            Refused: The photo cannot be processed.
        """
        seen = self._intake(ClaimImage(TENANT, name, name, content))
        if isinstance(seen, Refused):
            raise seen
        return seen.perceived

    def remember(self, photos: Iterable[tuple[str, Callable[[], bytes]]]) -> Iterator[PhotoRef]:
        """Looks at photos (name, and what reads its bytes) and remembers each."""

        def look(photo: tuple[str, Callable[[], bytes]]) -> Perceived:
            return self.look(photo[0], photo[1]())

        for perceived in in_order(look, photos, self._threads):
            self._recognition.remember([Seen(perceived, None)])
            yield perceived.photo

    def ask(self, photos: Iterable[tuple[str, Callable[[], bytes]]]) -> Iterator[tuple[str, list[Told]]]:
        """What the service would alert of each photo against all that is remembered. Remembers nothing."""

        def judge(photo: tuple[str, Callable[[], bytes]]) -> tuple[str, list[Told]]:
            seen = Seen(self.look(photo[0], photo[1]()), None)
            return photo[0], [Told.of(alert) for alert in self._recognition.judge([seen])[0].alerts]

        return in_order(judge, photos, self._threads)

    def candidates(self, perceived: Perceived) -> set[str]:
        """Names of the photos that are verified for a photo."""
        return {near.candidate.photo.photo_id for near in self._recognition.nearest(perceived)}

    def lost(self, asking: Perceived, original: Perceived, mirrored: bool) -> str:
        """The stage at which a photo that should have found `original` did not.

        `candidate`: the original was not among the photos that are verified. `geometry`: no pair of their damages has
        a homography. `judgement`: one had, and the verdict was no.
        """
        if original.photo.photo_id not in self.candidates(asking):
            return "candidate"
        for query in asking.sightings:
            turned = asking.mirrored(query) if mirrored else query
            for match in original.sightings:
                if looks.compared(turned, match, mirrored) is not None:
                    return "judgement"
        return "geometry"


@contextmanager
def open_chain(folder: Path, keep: Path, threads: int, options: Options | None = None) -> Iterator[Chain]:
    """The chain over a folder of models, with an index in a temporary folder.

    Args:
        folder: Of models, with its manifest.
        keep: Where the models' answers are kept from run to run: see `evaluate.kept`.
        threads: Photos looked at at once.
        options: How widely is searched; the service's defaults where not given.

    Raises:
        ModelRefusedError: The folder of models cannot be used.
    """
    models = keeping(Models.load(folder), keep)
    embedder = models.manifest.embedder
    with TemporaryDirectory(prefix="damagewatch-evaluate-") as place:
        here = Path(place)
        collection = collection_name(embedder.name, embedder.sha256)
        index = EdgeIndex(here / "index", collection, models.dimension)
        evidence = EvidenceStore(str(here / "evidence"))
        try:
            yield Chain(models, index, evidence, options or Options(), threads)
        finally:
            index.close()


def wider(options: Options, times: int) -> Options:
    """The same search over `times` as many damages and photos."""
    return replace(options, candidates=times * options.candidates, photos=times * options.photos)


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`map` on several threads, at most a few items ahead of who takes the results."""
    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[Future[R]] = deque()
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) >= 2 * threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def readers(photos: Sequence[Photo]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Photos as `Chain` takes them."""
    return ((photo.name, photo.path.read_bytes) for photo in photos)
