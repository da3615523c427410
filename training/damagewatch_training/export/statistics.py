"""Where the embeddings of ordinary photos lie: the reference that the service measures drift against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np

from damagewatch.domain import Box, Refused
from damagewatch.telemetry.drift import spread_of
from damagewatch.vision.decode import decode
from damagewatch.vision.models import Models

LEAST: Final = 200
"""Photos, below which the mean is chance: of n photos it lies 1 / sqrt(n) spreads from the truth."""


class TooFewPhotosError(Exception):
    """Too few photos could be read; the text says how many."""


def measure(
    models: Models, photos: Iterable[bytes], each: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Mean and spread of the embeddings of whole photos, as `embedder.statistics` of the manifest has them.

    Args:
        models: with the embedder.
        photos: the files' bytes; those that cannot be decoded are left out.
        each: called after each photo.

    Raises:
        TooFewPhotosError: fewer than 200 can be decoded.
    """
    embeddings = []
    for content in photos:
        try:
            photo = decode(content)
        except Refused:
            continue
        finally:
            each()
        embeddings.append(models.embedder.embed(photo, Box(0, 0, photo.width, photo.height)))
    if len(embeddings) < LEAST:
        raise TooFewPhotosError(f"{len(embeddings)} photos could be read; {LEAST} are needed at least")
    vectors = np.array(embeddings, np.float64)
    return {
        "mean": [round(float(value), 5) for value in vectors.mean(axis=0)],
        "spread": round(spread_of(vectors), 5),
        "photos": len(vectors),
    }
