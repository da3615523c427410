"""Two embedders at once, while one takes over from the other: both remember every photo, one judges.

Each embedder has its own collection, and both are written to from before the old one's damages are carried over
(`damagewatch.pipeline.backfill`) until the operator drops the old one. So at every moment the collection that is
searched holds everything, whichever of the two that is, in every matcher, and turning back is as safe as going on.

Which one judges is the active collection: all matchers of an index see the same name, each within a second. While
some have seen it move and others not yet, they still write to both, so that of two photos of one damage at least
one is searched for after the other is visible in the collection that is searched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from damagewatch.domain import ClaimImage, DependencyDownError, Origin, Refused
from damagewatch.index.interface import ANY_LAYOUT_PREFIX, COLLECTION_PREFIX
from damagewatch.pipeline.backfill import Embeds
from damagewatch.pipeline.intake import Intake, Seen
from damagewatch.pipeline.recognition import Decided, Positions, Recognition

LOOK_SECONDS = 1.0
"""How old the answer may be to which collection is active."""


@dataclass(frozen=True, slots=True)
class Side:
    """One set of models and its collection. Its recognition also writes to the other side's collection."""

    collection: str
    intake: Intake
    recognition: Recognition
    embedder: Embeds


class Changeover:
    """Looks at photos with the models of the active collection, and judges each with those it was looked at with."""

    def __init__(
        self,
        one: Side,
        other: Side,
        active: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares.

        Args:
            one: judges where no collection is named active.
            other: the other one.
            active: the name of the active collection.
            clock: seconds.
        """
        self._sides: Mapping[str, Side] = {one.collection: one, other.collection: other}
        self._others = {one.collection: other, other.collection: one}
        self._default = one.collection
        self._ask = active
        self._clock = clock
        self._known: tuple[float, str] | None = None
        self._asking = threading.Lock()

    def look(self, image: ClaimImage, origin: Origin | None = None) -> Seen | Refused:
        """See `damagewatch.matcher.strategy.Look`.

        Raises:
            DependencyDownError: the index does not answer, or a collection is active that is neither of ours.
        """
        collection = self.active()
        seen = self._sides[collection].intake(image, origin)
        if isinstance(seen, Refused):
            return seen
        also = seen.perceived.embedded_by(self._others[collection].embedder.embed)
        return replace(seen, collection=collection, also=also)

    def recognise(
        self, batch: Sequence[Seen | Refused], positions: Positions | None = None
    ) -> list[Decided | Refused]:
        """See `damagewatch.matcher.strategy.Recognise`. Photos looked at before the switch are judged as before.

        Raises:
            DependencyDownError: the index does not answer.
        """
        outcomes: list[Decided | Refused] = []
        for collection, some in groupby(batch, self._judged_by):
            outcomes += self._sides[collection].recognition(list(some), positions)
        return outcomes

    def active(self) -> str:
        """The collection that judges.

        Raises:
            DependencyDownError: the index does not answer, or a collection is active that is neither of ours.
        """
        with self._asking:
            now = self._clock()
            if self._known is None or now - self._known[0] >= LOOK_SECONDS:
                named = self._ask() or self._default
                if named not in self._sides:
                    raise DependencyDownError("index", foreign(named, self._sides))
                self._known = now, named
            return self._known[1]

    def _judged_by(self, item: Seen | Refused) -> str:
        return self._default if isinstance(item, Refused) else item.collection


def foreign(active: str, ours: Mapping[str, object] | Sequence[str]) -> str:
    """What to tell a matcher whose models do not go with the collection that is searched."""
    if active.startswith(ANY_LAYOUT_PREFIX) and not active.startswith(COLLECTION_PREFIX):
        return (
            f"the active collection, {active}, was written by another release of damagewatch, in a layout that this "
            "one does not read, and its damages cannot be carried over. Run the release that wrote it, or begin anew "
            "from the photos that Kafka holds: see docs/runbooks/upgrade.md, another layout"
        )
    return (
        f"the active collection is {active}, and the models here write to {' and '.join(sorted(ours))}: "
        "set DAMAGEWATCH_MODELS__DIRECTORY (and __NEXT during a change) to the models of the active one, or move "
        "it with `damagewatch reindex switch`"
    )
