"""The regions of a photo, and the window of each: the part of the photo that is embedded and compared."""

from __future__ import annotations

import math

from damagewatch.domain import Box, Damage, DamageType, PhotoRef, Severity

CONTEXT = 4.0
"""The window's sides over the damage's. Recall at 95% precision of an ImageNet embedding on rephotographed
damages was 0.18 at 1.3 times, 0.40 at 2, 0.63 at 4, 0.64 at 8."""

LEAST = 0.4
"""The window's sides over the photo's shorter one, at least. Half of the labelled damages are smaller than a 25th of
their photo: 4 times that is bare paint, a few pixels enlarged. Rank-1 of rephotographed damages among 1,293 was 0.73
without a least window, 0.89 at 0.25, 0.91 at 0.4, 0.94 at 0.6 (OSNet, the same weights); beyond that it is the photo
that is recognised, and no longer the damage."""

_NARROWEST = 0.5
_WHOLE = 0.85


def window(box: Box, width: int, height: int) -> Box:
    """The damage's box with context.

    Enlarged `CONTEXT` times about its centre, or to `LEAST` of the photo, made no narrower than 1:2, rounded outwards
    to whole pixels and clipped to the photo; the whole photo where that covers nearly all of it, so that they share
    an embedding.

    Args:
        box: within the photo, pixels.
        width: of the photo, pixels.
        height: of the photo, pixels.

    Returns:
        A box of at least one pixel within the photo, around `box`.
    """
    least = LEAST * min(width, height)
    wide, high = max(CONTEXT * box.width, least), max(CONTEXT * box.height, least)
    wide, high = max(wide, _NARROWEST * high, 1.0), max(high, _NARROWEST * wide, 1.0)
    x, y = box.centre
    x0, y0 = max(0, math.floor(x - wide / 2)), max(0, math.floor(y - high / 2))
    x1, y1 = min(width, math.ceil(x + wide / 2)), min(height, math.ceil(y + high / 2))
    found = Box(min(x0, width - 1), min(y0, height - 1), max(x1, 1), max(y1, 1))
    whole = Box(0, 0, width, height)
    return whole if found.area >= _WHOLE * whole.area else found


def whole_photo(photo: PhotoRef, width: int, height: int) -> Damage:
    """The region of the whole photo, ordinal 0: a recycled photo is found even where no damage was seen."""
    return Damage(
        damage_id=photo.damage_id(0),
        box=Box(0, 0, width, height),
        polygons=(),
        type=DamageType.WHOLE,
        severity=Severity.UNKNOWN,
        score=1.0,
    )


def mirrored(box: Box, width: int) -> Box:
    """Where a box lies after the photo of that width was mirrored left to right."""
    return Box(width - box.x1, box.y0, width - box.x0, box.y1)
