"""Whether a picture that was altered and sent in again is alerted: by kind of alteration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from damagewatch_training.data.sources import Photo
from damagewatch_training.evaluate.alterations import KINDS, jpeg
from damagewatch_training.evaluate.chain import STAGES, Chain, Told


@dataclass(frozen=True, slots=True)
class Altered:
    """An altered picture and what was said of it.

    `found` is the alert that names its original; without one, `lost` is the stage that lost it (`Chain.lost`).
    """

    photo: str
    kind: str
    found: Told | None
    lost: str = ""


def altered(photo: Photo, kind: str, seed: int) -> bytes:
    """The photo after an alteration, as a JPEG file; the same for the same seed."""
    rng = np.random.default_rng([seed, *photo.name.encode(), *kind.encode()])
    return jpeg(KINDS[kind](photo.read(), rng), rng)


def copies(
    chain: Chain, photos: Sequence[Photo], originals: dict[str, set[str]], seed: int
) -> Iterable[Altered]:
    """Sends each photo in again, once for each kind.

    Args:
        chain: Which remembers the photos already, and others.
        photos: To alter.
        originals: For a photo the names that are the same picture, itself among them.
        seed: Of all chance.
    """
    asked = {f"{kind}: {photo.name}": (photo, kind) for photo in photos for kind in KINDS}
    sent = (
        (name, lambda photo=photo, kind=kind: altered(photo, kind, seed))
        for name, (photo, kind) in asked.items()
    )
    for name, alerts in chain.ask(sent):
        photo, kind = asked[name]
        right = [told for told in alerts if told.match in originals[photo.name]]
        if right:
            yield Altered(photo.name, kind, max(right, key=lambda told: told.probability))
        else:
            original = chain.look(photo.name, photo.path.read_bytes())
            sent_in = chain.look(name, altered(photo, kind, seed))
            yield Altered(photo.name, kind, None, chain.lost(sent_in, original, kind == "mirrored"))


def figures(said: Sequence[Altered]) -> dict[str, dict[str, float]]:
    """By kind: `photos`, the share `alerted`, of these the shares `duplicate_photo` and `said_mirrored`; and how many
    were lost by each stage.
    """
    result = {}
    for kind in KINDS:
        of_kind = [one for one in said if one.kind == kind]
        found = [one.found for one in of_kind if one.found is not None]
        if of_kind:
            result[kind] = {
                "photos": len(of_kind),
                "alerted": round(len(found) / len(of_kind), 4),
                "duplicate_photo": _share([told.kind == "DUPLICATE_PHOTO" for told in found]),
                "said_mirrored": _share([told.mirrored for told in found]),
                **{f"lost_{stage}": sum(one.lost == stage for one in of_kind) for stage in STAGES},
            }
    return result


def _share(said: list[bool]) -> float:
    return round(float(np.mean(said)), 4) if said else 0.0
