"""Between records and photos: reads a record, sends it through the pipeline, writes what came of it.

record -> parse, fetch, decode, detect, embed: on threads -> upsert, search, decide: in batches -> outputs
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

from damagewatch.broker.record import OutgoingRecord, Partition, Processed, Record
from damagewatch.broker.strategy import Backpressure
from damagewatch.contracts import codec
from damagewatch.domain import ClaimImage, DependencyDownError, Erasure, Origin, Reason, Refused
from damagewatch.pipeline.batched import BatchedStage
from damagewatch.pipeline.intake import Seen
from damagewatch.pipeline.parallel import ParallelStage
from damagewatch.pipeline.recognition import Decided, Positions
from damagewatch.pipeline.stage import StageFull

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Forget:
    """The wish to erase a claim."""

    tenant: str
    claim_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A record on its way, with what was made of it so far."""

    record: Record
    content: Seen | Refused | Forget
    image: ClaimImage | None = None
    """As it was read, without its bytes; None where it could not be."""


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A record with its verdict."""

    record: Record
    verdict: Decided | Refused | Erasure
    image: ClaimImage | None = None
    """As in `Work`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is in work at once, in photos and bytes; `batch_age` in seconds."""

    threads: int
    photos: int
    bytes: int
    batch_photos: int
    batch_bytes: int
    batch_age: float


class Eraser(Protocol):
    """Forgets a claim everywhere."""

    def __call__(self, tenant: str, claim_id: str) -> Erasure:
        """Erases the claim and returns the receipt."""
        ...


class Look(Protocol):
    """What happens to one photo on its own (`damagewatch.pipeline.intake.Intake`)."""

    def __call__(self, image: ClaimImage, origin: Origin | None = None) -> Seen | Refused:
        """Called on several threads at once."""
        ...


class Recognise(Protocol):
    """What happens to a batch (`damagewatch.pipeline.recognition.Recognition`)."""

    def __call__(
        self, batch: Sequence[Seen | Refused], positions: Positions | None = None
    ) -> list[Decided | Refused]:
        """Called on one thread; one result for each photo, in order."""
        ...


class Outputs(Protocol):
    """Writes what is to be published because of a record."""

    def __call__(self, done: Done) -> tuple[OutgoingRecord, ...]:
        """The records to publish, perhaps none."""
        ...


class Watch(Protocol):
    """Told what happens, for metrics, logs and traces. None of the methods may raise or wait."""

    def looking(self, record: Record) -> AbstractContextManager[None]:
        """Around the work on one photo alone; on one of several threads."""
        ...

    def judging(self, records: Sequence[Record]) -> AbstractContextManager[None]:
        """Around the work on a batch; on the batch thread."""
        ...

    def judged(self, batch: Sequence[Work], done: Sequence[Done], seconds: float) -> None:
        """A batch has its verdicts, in its order; on the batch thread."""
        ...

    def queues(self, fill: Mapping[str, float]) -> None:
        """How full each queue is, 0 to 1; on the polling thread."""
        ...


class Unwatched:
    """Tells nobody."""

    def looking(self, record: Record) -> AbstractContextManager[None]:
        """See `Watch`."""
        return nullcontext()

    def judging(self, records: Sequence[Record]) -> AbstractContextManager[None]:
        """See `Watch`."""
        return nullcontext()

    def judged(self, batch: Sequence[Work], done: Sequence[Done], seconds: float) -> None:
        """See `Watch`."""

    def queues(self, fill: Mapping[str, float]) -> None:
        """See `Watch`."""


class MatcherStrategy:
    """A `damagewatch.broker` strategy over one topic, for one assignment: see there for the five verbs.

    An erasure goes through alone: it waits until everything before it is done, and nothing enters until it
    is, so that no photo of the claim is half-way in when the claim is erased. Only a worker that lost the
    partition just while it writes a photo of the claim may write it after another has erased the claim: what it
    writes is published nowhere, but stays in the index until the claim is erased again.
    """

    def __init__(
        self,
        *,
        intake: Look,
        recognition: Recognise,
        erase: Eraser,
        outputs: Outputs,
        starts: Mapping[Partition, int],
        bounds: Bounds,
        tenant: str,
        watch: Watch | None = None,
    ) -> None:
        """Starts the stages' threads.

        Args:
            intake: what happens to one photo.
            recognition: what happens to a batch.
            erase: forgets a claim.
            outputs: writes verdicts.
            starts: of each partition of this assignment the offset that it starts from.
            bounds: how much is in work at once.
            tenant: of messages that name none.
            watch: told what happens, if anybody is.
        """
        self._intake = intake
        self._recognition = recognition
        self._erase = erase
        self._outputs = outputs
        self._starts = starts
        self._positions = Positions()
        self._tenant = tenant
        self._watch = watch or Unwatched()
        self._photos: ParallelStage[Record, Work] = ParallelStage(
            self._look,
            threads=bounds.threads,
            max_items=bounds.photos,
            max_bytes=bounds.bytes,
            size_of=lambda record: record.size,
        )
        self._batches: BatchedStage[Work, Done] = BatchedStage(
            self._recognise,
            max_items=bounds.batch_photos,
            max_bytes=bounds.batch_bytes,
            max_age=bounds.batch_age,
            size_of=lambda work: work.record.size,
        )
        self._between: deque[Work] = deque()
        self._bounds = bounds
        self._items = 0
        self._bytes = 0
        self._erasing = False

    def submit(self, record: Record) -> None:
        """See `Strategy`."""
        erasure = record.value is None
        if self._erasing or (erasure and self._items) or self._is_full(record):
            raise Backpressure
        self._photos.submit(record)
        self._items += 1
        self._bytes += record.size
        self._erasing = erasure
        if not self._positions.next_offset:
            self._positions.next_offset.update(
                {(record.topic_id, source.number): offset for source, offset in self._starts.items()}
            )

    def poll(self) -> Sequence[Processed]:
        """See `Strategy`."""
        self._between.extend(self._photos.poll())
        self._hand_on()
        results = self._processed(self._batches.poll())
        self._watch.queues(
            {
                "photos": self._items / self._bounds.photos,
                "bytes": self._bytes / self._bounds.bytes,
                "batch": len(self._between) / self._bounds.photos,
            }
        )
        return results

    def close(self) -> None:
        """See `Strategy`."""
        self._photos.close()

    def join(self, timeout: float) -> Sequence[Processed]:
        """See `Strategy`."""
        deadline = time.monotonic() + timeout
        results: list[Processed] = []
        while self._items and time.monotonic() < deadline:
            if not self._photos.items and not self._between:
                self._batches.close()  # what waits for more to come need not
            results.extend(self.poll())
            time.sleep(0.005)
        self.terminate()
        return results

    def terminate(self) -> None:
        """See `Strategy`."""
        self._photos.terminate()
        self._batches.terminate()
        self._between.clear()

    def _is_full(self, record: Record) -> bool:
        """Whether a record has no room: all that is inside counts, wherever it is, as it holds its bytes."""
        return self._items > 0 and (
            self._items >= self._bounds.photos or self._bytes + record.size > self._bounds.bytes
        )

    def _hand_on(self) -> None:
        while self._between:
            try:
                self._batches.submit(self._between[0])
            except StageFull:
                return
            self._between.popleft()

    def _look(self, record: Record) -> Work:
        """On one of several threads."""
        with self._watch.looking(record):
            return self._looked_at(record)

    def _looked_at(self, record: Record) -> Work:
        try:
            if record.value is None:
                tenant, claim_id = codec.decode_tombstone(record.key, record.headers, self._tenant)
                return Work(record, Forget(tenant, claim_id))
            image = codec.decode_claim_image(record.value, record.key, record.headers, self._tenant)
        except Refused as refused:
            return Work(record, refused)
        except Exception as error:
            log.exception("a record could not be read")
            return Work(record, _failed(error, "parse"))
        origin = Origin(record.topic_id, record.partition, record.offset)
        return Work(record, self._intake(image, origin), replace(image, content=None))

    def _recognise(self, batch: Sequence[Work]) -> Sequence[Done]:
        """On the batch thread."""
        start = time.perf_counter()
        with self._watch.judging([work.record for work in batch]):
            done = self._judged(batch)
        self._watch.judged(batch, done, time.perf_counter() - start)
        return done

    def _judged(self, batch: Sequence[Work]) -> Sequence[Done]:
        """An erasure is alone in its batch."""
        if isinstance(batch[0].content, Forget):
            return [Done(batch[0].record, self._forget(batch[0].content))]
        contents = [work.content for work in batch if not isinstance(work.content, Forget)]
        turns = dict(self._positions.next_offset)
        try:
            verdicts = self._recognition(contents, self._positions)
        except DependencyDownError:
            raise
        except Exception:  # which photo it was shows when each goes alone; the others must not suffer
            log.exception("a batch of %d photos failed; each goes alone now", len(batch))
            self._positions.next_offset = turns  # each has its turn again
            verdicts = [self._alone(content) for content in contents]
        return [Done(work.record, verdict, work.image) for work, verdict in zip(batch, verdicts, strict=True)]

    def _forget(self, wish: Forget) -> Erasure | Refused:
        try:
            return self._erase(wish.tenant, wish.claim_id)
        except DependencyDownError:
            raise
        except Exception as error:
            log.exception("a claim could not be erased")
            return _failed(error, "erase")

    def _alone(self, content: Seen | Refused) -> Decided | Refused:
        try:
            return self._recognition([content], self._positions)[0]
        except DependencyDownError:
            raise
        except Exception as error:
            log.exception("a photo could not be judged")
            return _failed(error, "recognise")

    def _processed(self, finished: Sequence[Done]) -> list[Processed]:
        results: list[Processed] = []
        for done in finished:
            self._items -= 1
            self._bytes -= done.record.size
            if done.record.value is None:
                self._erasing = False
            outputs, reason = self._written(done)
            results.append(Processed.of(done.record, outputs, reason))
        return results

    def _written(self, done: Done) -> tuple[tuple[OutgoingRecord, ...], Reason | None]:
        """The outputs of a record, and why it was refused if it was."""
        try:
            return self._outputs(done), done.verdict.reason if isinstance(done.verdict, Refused) else None
        except Exception as error:  # a verdict that cannot be written must not come back for ever
            log.exception("the outputs of a photo could not be written")
            failed = _failed(error, "publish")
            return self._outputs(Done(done.record, failed)), failed.reason


def _failed(error: Exception, stage: str) -> Refused:
    """A bug of ours, met by one record: it becomes a dead letter and must not stop all others."""
    return Refused(Reason.PROCESSING_FAILED, f"{type(error).__name__}: {error}"[:300], stage)
