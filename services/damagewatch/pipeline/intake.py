"""What happens to one photo on its own: fetched, looked at, its crops kept. Safe to run on many threads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from damagewatch.domain import (
    Box,
    ClaimImage,
    DependencyDownError,
    Origin,
    PhotoRef,
    Reason,
    Refused,
    Sighting,
)
from damagewatch.vision.perceive import Perceived, Perception

log = logging.getLogger(__name__)


class Crops(Protocol):
    """Where crops are kept: see `damagewatch.evidence`."""

    def keep(self, photo: PhotoRef, name: str, jpeg: bytes) -> str:
        """Keeps a crop and returns its address. Repeating it is harmless."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A photo that was looked at, on its way to be remembered."""

    perceived: Perceived
    origin: Origin | None
    collection: str = ""
    """Of the index that judges it; during a change of embedder alone."""
    also: tuple[Sighting, ...] = ()
    """Its sightings as another embedder describes them: during a change both are remembered."""

    def described_in(self, collection: str) -> tuple[Sighting, ...]:
        """The sightings with the vectors of that collection's embedder."""
        return self.also if self.also and collection != self.collection else self.perceived.sightings


class Intake:
    """From a claim image, inline or by reference, to what is to be remembered of it."""

    def __init__(self, perception: Perception, crops: Crops, fetch: Callable[[str], bytes]) -> None:
        """Prepares.

        Args:
            perception: looks at photos.
            crops: keeps each window's picture, before the index may name it.
            fetch: the bytes behind a reference; raises `Refused` where it is not allowed or not there.
        """
        self._perception = perception
        self._crops = crops
        self._fetch = fetch

    def __call__(self, image: ClaimImage, origin: Origin | None = None) -> Seen | Refused:
        """Looks at one photo. What is wrong with the photo is returned, so that it can be told in its turn.

        Raises:
            DependencyDownError: the photo could be processed later, as it is.
        """
        try:
            if image.content is None:
                if image.uri is None:
                    raise Refused(
                        Reason.PHOTO_MISSING, "the message has neither bytes nor a reference", "parse"
                    )
                image = replace(image, content=self._fetch(image.uri), uri=None)
            perceived = self._perception.perceive(image, origin)
            return Seen(self._kept(perceived), origin)
        except Refused as refused:
            return refused
        except DependencyDownError:
            raise
        except Exception as error:  # a photo that we fail on must not stop all others
            log.exception("photo %s of claim %s could not be processed", image.photo_id, image.claim_id)
            return Refused(Reason.PROCESSING_FAILED, f"{type(error).__name__}: {error}"[:300], "perceive")

    def _kept(self, perceived: Perceived) -> Perceived:
        uris: dict[Box, str] = {
            window: self._crops.keep(perceived.photo, str(number), jpeg)
            for number, (window, jpeg) in enumerate(perceived.crops.items())
        }
        sightings = tuple(
            replace(sighting, crop_uri=uris[sighting.window]) for sighting in perceived.sightings
        )
        return replace(perceived, sightings=sightings)
