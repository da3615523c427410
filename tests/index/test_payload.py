from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from damagewatch.domain import (
    Box,
    Damage,
    DamageType,
    LocalFeatures,
    Origin,
    PhotoRef,
    Severity,
    Sighting,
)
from damagewatch.index import Entry, payload

coordinates = st.floats(-1e6, 1e6)
names = st.text(max_size=30)
hashes = st.integers(0, 2**64 - 1)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x0, x1 = sorted((draw(coordinates), draw(coordinates)))
    y0, y1 = sorted((draw(coordinates), draw(coordinates)))
    return Box(x0, y0, x1, y1)


@st.composite
def sightings(draw: st.DrawFn) -> Sighting:
    count = draw(st.integers(0, 6))
    return Sighting(
        photo=PhotoRef(draw(names), draw(names), draw(names), draw(names)),
        damage=Damage(
            damage_id=draw(st.uuids()),
            box=draw(boxes()),
            polygons=tuple(
                map(
                    tuple,
                    draw(st.lists(st.lists(st.tuples(coordinates, coordinates), max_size=4), max_size=3)),
                )
            ),
            type=draw(st.sampled_from(DamageType)),
            severity=draw(st.sampled_from(Severity)),
            score=draw(st.floats(0, 1)),
        ),
        width=draw(st.integers(1, 100_000)),
        height=draw(st.integers(1, 100_000)),
        window=draw(boxes()),
        embedding=draw(npst.arrays(np.float32, 8, elements=st.floats(-1, 1, width=32))),
        features=LocalFeatures(
            draw(npst.arrays(np.float32, (count, 2), elements=st.floats(-1e6, 1e6, width=32))),
            draw(npst.arrays(np.int8, (count, 64))),
        ),
        thumbnail=draw(npst.arrays(np.uint8, (64, 64), elements=st.integers(0, 255), fill=st.just(7))),
        photo_hash=draw(hashes),
        crop_uri=draw(names),
        origin=draw(st.none() | st.builds(Origin, names, st.integers(0, 99), st.integers(0, 2**63 - 1))),
        received_at=draw(
            st.none()
            | st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))
        ),
        attributes=draw(st.dictionaries(names, names, max_size=4)),
    )


@given(sightings())
def test_a_sighting_comes_back_as_it_was_stored(sighting: Sighting) -> None:
    stored = json.loads(json.dumps(payload.encode(sighting)))
    back = payload.decode(sighting.damage.damage_id, sighting.embedding.tolist(), stored)
    for name in (
        "photo",
        "damage",
        "width",
        "height",
        "window",
        "photo_hash",
        "crop_uri",
        "origin",
        "received_at",
    ):
        assert getattr(back, name) == getattr(sighting, name), name
    entry = payload.decode_entry(
        sighting.damage.damage_id, {name: stored.get(name) for name in payload.ENTRY}
    )
    assert entry == Entry(sighting.damage.damage_id, sighting.photo, sighting.origin)
    assert dict(back.attributes) == dict(sighting.attributes)
    for one, other in (
        (back.embedding, sighting.embedding),
        (back.features.points, sighting.features.points),
        (back.features.descriptors, sighting.features.descriptors),
        (back.thumbnail, sighting.thumbnail),
    ):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert np.array_equal(one, other)


@given(hashes, st.sets(st.integers(0, 63), max_size=3))
def test_hashes_at_most_three_bits_apart_share_a_band(photo_hash: int, flipped: set[int]) -> None:
    other = photo_hash
    for bit in flipped:
        other ^= 1 << bit
    assert set(payload.hash_bands(photo_hash)) & set(payload.hash_bands(other))


@given(sightings())
def test_only_the_whole_photo_answers_look_ups_of_copies(sighting: Sighting) -> None:
    assert (payload.COPY_KEYS in payload.encode(sighting)) == (sighting.damage.type is DamageType.WHOLE)


@pytest.mark.parametrize(
    "broken", [{}, {"about": "nonsense"}, {"about": "{}"}, {"descriptors": "AAAA"}, {"origin": "?"}]
)
def test_a_payload_of_another_hand_is_refused_by_name(
    broken: dict[str, object], sighting: Callable[..., Sighting]
) -> None:
    stored = {**payload.encode(sighting()), **broken} if broken else {}
    point = uuid.uuid4()
    with pytest.raises(ValueError, match=str(point)):
        payload.decode(point, [0.0], stored)
