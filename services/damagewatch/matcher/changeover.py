"""A change of embedder, seen from a matcher: which collection is searched, and who carries the old damages over."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import structlog

from damagewatch.assembly import (
    Observe,
    collection_of,
    load_next_models,
    make_intake,
    make_recognition,
    open_beside,
)
from damagewatch.domain import DependencyDownError
from damagewatch.evidence import EvidenceStore
from damagewatch.index import ActiveCollection, RebuildableIndex
from damagewatch.pipeline.backfill import Backfill
from damagewatch.pipeline.changeover import Changeover, Side, foreign
from damagewatch.settings import SettingError, Settings
from damagewatch.vision.models import Models

log = structlog.stdlib.get_logger("damagewatch.matcher")

PROGRESS: Final = "carried-over.json"
"""In the index's folder: how far the matcher is that has the folder open."""
AGAIN_SECONDS: Final = 30.0
"""Between two walks over the old collection: the second finds what the first one could not."""


class ActiveWatch:
    """Sees to it that a matcher with one set of models writes to the collection that is searched."""

    def __init__(self, active: ActiveCollection, *collections: str) -> None:
        self.active = active
        self._ours = collections

    def also(self, collection: str) -> None:
        """We write to this one too."""
        self._ours = (*self._ours, collection)

    def check(self) -> None:
        """Names ours active where none is; does nothing while the index does not answer.

        Raises:
            SettingError: another one is active: what we write would not be found, nor we find what was written.
        """
        with suppress(DependencyDownError):
            named = self.active.get()
            if named is None:
                self.active.set(self._ours[0])
            elif named not in self._ours:
                raise SettingError(foreign(named, self._ours))


def start_changeover(
    settings: Settings,
    models: Models,
    index: RebuildableIndex,
    evidence: EvidenceStore,
    active: ActiveWatch,
    observe: Observe,
    stop: threading.Event,
    closing: ExitStack,
) -> Changeover:
    """Both sets of models at work. Where the index is in a folder, which is ours alone, also carries over.

    Raises:
        ModelRefusedError: one of the next models does not fit its manifest.
        SettingError: see `load_next_models`.
    """
    following = load_next_models(settings, models)
    beside = open_beside(settings, following, index)
    closing.callback(beside.close)
    active.also(collection_of(following))
    active.check()

    def side(of: Models, own: RebuildableIndex, other: RebuildableIndex) -> Side:
        return Side(
            collection_of(of),
            make_intake(settings, of, evidence, observe),
            make_recognition(settings, of, own, evidence, observe, also=other, also_first=other is beside),
            of.embedder,
        )

    if settings.index.url is None:
        rate = settings.models.carry_over_rate
        backfill = Backfill(index, beside, evidence, following.embedder, rate)
        progress = settings.index.path / PROGRESS
        thread = threading.Thread(
            target=_carry_over,
            args=(backfill, active.active, collection_of(models), collection_of(following), progress, stop),
            name="carry-over",
            daemon=True,
        )
        thread.start()
        closing.callback(thread.join, AGAIN_SECONDS)
    return Changeover(side(models, index, beside), side(following, beside, index), active.active.get)


def forget_progress(settings: Settings) -> None:
    """One set of models again: what is told of an earlier change must not speak for the next one."""
    if settings.index.url is None:
        (settings.index.path / PROGRESS).unlink(missing_ok=True)


def _carry_over(
    backfill: Backfill, active: ActiveCollection, old: str, new: str, progress: Path, stop: threading.Event
) -> None:
    """Walks until nothing is missing but what is lost, and writes how far it is."""
    while not stop.is_set():
        try:
            progress.unlink(missing_ok=True)
            if active.get() == old:
                backfill.withdraw()
            while not stop.is_set():
                done = backfill.walk(stopped=stop.is_set)
                if stop.is_set():
                    return
                state = {"collection": new, "damages": done.seen, "missing": done.missing, "lost": done.lost}
                aside = progress.with_suffix(".new")
                aside.write_text(json.dumps(state))
                aside.replace(progress)
                log.info("carried over to the next embedder", **state)
                if not done.written:
                    return
        except DependencyDownError as error:
            log.warning("carrying over waits", dependency=error.dependency, detail=error.detail)
        except Exception:  # nobody waits for this thread: it must not end unheard
            log.exception("carrying over failed, and is tried again")
        stop.wait(AGAIN_SECONDS)
