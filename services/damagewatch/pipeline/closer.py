"""Where the pictures of a closer look come from: the photo in hand, and what was kept of the remembered ones."""

from __future__ import annotations

from collections.abc import Callable

from damagewatch.domain import Box, Sighting
from damagewatch.vision.closer import Closer, CloserLook
from damagewatch.vision.features import FeatureExtractor
from damagewatch.vision.perceive import Perceived


def closer_look(extractor: FeatureExtractor, read: Callable[[str], bytes]) -> Callable[[Perceived], Closer]:
    """For each photo in hand, what sees parts of its windows and of remembered ones again.

    Args:
        extractor: of local features.
        read: the crop at an address; raises FileNotFoundError where it was erased, ValueError where the address is
            none of the store's, and `DependencyDownError` where the store does not answer.
    """

    def of(perceived: Perceived) -> Closer:
        def crop_of(sighting: Sighting, window: Box) -> bytes | None:
            if sighting.photo == perceived.photo:
                return perceived.crops.get(window)
            try:
                return read(sighting.crop_uri) if sighting.crop_uri else None
            except (FileNotFoundError, ValueError):  # erased, or kept where another store was
                return None

        return CloserLook(extractor, crop_of)

    return of
