"""Which damages of two photos are judged: not only those that the index named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast
from uuid import UUID

import numpy as np

from damagewatch.domain import Box, DamageType, Sighting
from damagewatch.index.interface import Candidate, Copy, DamageIndex, Entry
from damagewatch.pipeline.intake import Seen
from damagewatch.pipeline.recognition import Options, Recognition
from damagewatch.vision.calibration import Calibration
from damagewatch.vision.perceive import Perceived

from ..vision import sightings
from ..vision.test_verify import IMAGE, POINTS, homography, seen_from
from .test_turns import FakePerceived

CERTAIN = Calibration(coefficients=(0.0,) * 8, intercept=10.0)
"""Takes every pair for probable; whole photos want pixels that agree as well."""
MATRIX = homography(8, 1.1, 10, 5, 0.1)


class WholePhotosOnly:
    """An index whose search names whole photos alone, however many damages are remembered."""

    def __init__(self, remembered: Sequence[Sighting]) -> None:
        self._points = {sighting.damage.damage_id: sighting for sighting in remembered}

    def search(self, queries: Sequence[Sighting], limit: int, but: object = None) -> list[list[Candidate]]:
        whole = [point for point in self._points.values() if point.damage.type is DamageType.WHOLE]
        found = [Candidate(Entry(p.damage.damage_id, p.photo, p.origin), 0.9) for p in whole]
        return [found if query.damage.type is DamageType.WHOLE else [] for query in queries]

    def complete(self, entries: Iterable[Entry]) -> dict[UUID, Sighting]:
        ids = [entry.damage_id for entry in entries]
        return {damage_id: self._points[damage_id] for damage_id in ids if damage_id in self._points}

    def copies(self, photos: Sequence[Sighting], hashes: Sequence[int], limit: int) -> list[list[Copy]]:
        return [[] for _ in photos]


def photo_with_damage(claim: str, image: np.ndarray, points: object, box: Box) -> tuple[Sighting, Sighting]:
    """A whole photo, and a damage in its middle that is as large; their pixels agree with nothing."""
    whole = sightings.whole(image, points, claim)  # type: ignore[arg-type]
    noise = np.random.default_rng(ord(claim)).integers(0, 255, (64, 64)).astype(np.uint8)
    whole = replace(whole, thumbnail=noise)
    return whole, replace(sightings.damaged(whole, image, box), window=whole.window, thumbnail=noise)


def alerted(query: Sequence[Sighting], remembered: Sequence[Sighting]) -> list[tuple[DamageType, DamageType]]:
    index = cast(DamageIndex, WholePhotosOnly(remembered))
    perceived = FakePerceived(query[0].photo, tuple(query))
    recognition = Recognition(index, CERTAIN, {}, Options())
    (decided,) = recognition.judge([Seen(cast(Perceived, perceived), None)])
    return [(alert.query.type, alert.match.type) for alert in decided.alerts]


def test_damages_that_the_index_did_not_name_are_judged_where_photos_have_something_in_common() -> None:
    box = Box(160, 120, 480, 360)
    query = photo_with_damage("a", IMAGE, POINTS, box)
    match = photo_with_damage("b", seen_from(MATRIX), sightings.moved(POINTS, MATRIX, 0.3, 0.2), box)
    assert alerted(query, match) == [(DamageType.DENT, DamageType.DENT)]
    assert alerted(query[:1], match[:1]) == []


def test_photos_with_nothing_in_common_are_left_after_the_first_pairs() -> None:
    box = Box(160, 120, 480, 360)
    query = photo_with_damage("a", IMAGE, POINTS, box)
    other = photo_with_damage("b", IMAGE, sightings.features(300, seed=9), box)
    assert alerted(query, other) == []


def test_a_damage_that_the_other_photo_was_not_found_to_have_is_looked_for_in_it() -> None:
    whole = sightings.whole(IMAGE, POINTS)
    embedding = np.eye(8, dtype=np.float32)[1]  # like nothing that is remembered
    found = replace(sightings.damaged(whole, IMAGE, Box(280, 200, 360, 280)), embedding=embedding)
    overlooked = sightings.whole(seen_from(MATRIX), sightings.moved(POINTS, MATRIX, 0.3, 0.2), "b")
    noise = np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8)
    whole = replace(whole, thumbnail=noise)  # of the photos as a whole nothing agrees
    assert alerted([whole], [overlooked]) == []
    assert alerted([whole, found], [overlooked]) == [(DamageType.DENT, DamageType.WHOLE)]
