"""Where the pictures of a closer look come from: the photo in hand, and what was kept of the remembered ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from damagewatch.domain import Box, PhotoRef, Sighting
from damagewatch.vision.closer import Closer, CloserLook
from damagewatch.vision.features import FeatureExtractor
from damagewatch.vision.perceive import Perceived

MOST = 40
"""Windows that are seen again for one photo in hand, some 12 milliseconds each: the most alike photos come first."""


def closer_look(extractor: FeatureExtractor, read: Callable[[str], bytes]) -> Callable[[Perceived], Closer]:
    """For each photo in hand, what sees parts of its windows and of remembered ones again, `MOST` of them.

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

        look = CloserLook(extractor, crop_of)
        seen: dict[tuple[PhotoRef, Box, Box, bool], Sighting | None] = {}

        def once(sighting: Sighting, part: Box, mirrored: bool) -> Sighting | None:
            key = sighting.photo, sighting.window, part, mirrored
            if key not in seen:
                if len(seen) >= MOST:
                    return None
                seen[key] = look(sighting, part, mirrored)
            found = seen[key]  # perhaps of another damage with the same window
            return None if found is None else replace(found, damage=sighting.damage)

        return once

    return of
