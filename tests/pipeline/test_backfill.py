"""Carrying damages over to another embedder, between two real collections."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from damagewatch.domain import (
    Box,
    Damage,
    DamageType,
    LocalFeatures,
    PhotoRef,
    Severity,
    Sighting,
)
from damagewatch.index.edge import EdgeIndex
from damagewatch.pipeline.backfill import Backfill, Pass, compare, count_missing
from damagewatch.vision.decode import Photo

NO_FEATURES = LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 64), np.int8))
NO_THUMBNAIL = np.zeros((64, 64), np.uint8)

OLD, NEW = "damages-v1-old-0123456789ab", "damages-v1-new-0123456789ab"
OLD_SIZE, NEW_SIZE = 16, 8


def sighting(claim: str, tenant: str = "acme", looks: int = 0) -> Sighting:
    ref = PhotoRef(tenant, claim, "front.jpg", hashlib.sha256(f"{tenant}/{claim}".encode()).hexdigest())
    vector = np.full(OLD_SIZE, 0.01, np.float32)
    vector[looks % OLD_SIZE] = 1
    return Sighting(
        photo=ref,
        damage=Damage(ref.damage_id(0), Box(0, 0, 64, 48), (), DamageType.WHOLE, Severity.UNKNOWN, 1.0),
        width=64,
        height=48,
        window=Box(0, 0, 64, 48),
        embedding=vector / np.linalg.norm(vector),
        features=NO_FEATURES,
        thumbnail=NO_THUMBNAIL,
        photo_hash=0,
        crop_uri=f"crop://{tenant}/{claim}/{looks}",
    )


class Brightness:
    """An embedder whose vector says how bright the crop is: crops are painted by their number."""

    def embed(self, photo: Photo, window: Box) -> NDArray[np.float32]:
        assert (window.width, window.height) == (photo.width, photo.height)
        vector = np.full(NEW_SIZE, 0.01, np.float32)
        vector[round(float(photo.image.mean()) / 20) % NEW_SIZE] = 1
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


@dataclass
class Crops:
    """Crops painted by the number that their address ends in; some are gone; reading may have side effects."""

    gone: set[str] = field(default_factory=set)
    read_by: list[str] = field(default_factory=list)
    on_read: Callable[[str], None] = lambda uri: None

    def read(self, uri: str) -> bytes:
        self.on_read(uri)
        self.read_by.append(uri)
        if uri in self.gone:
            raise FileNotFoundError(uri)
        level = int(uri.rsplit("/", 1)[1]) * 20
        return cv2.imencode(".png", np.full((48, 64, 3), level, np.uint8))[1].tobytes()


@dataclass
class Sides:
    old: EdgeIndex
    new: EdgeIndex
    crops: Crops

    @property
    def backfill(self) -> Backfill:
        return Backfill(self.old, self.new, self.crops, Brightness())


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    old = EdgeIndex(tmp_path, OLD, OLD_SIZE)
    new = EdgeIndex.beside(old, NEW, NEW_SIZE)
    yield Sides(old, new, Crops())
    new.close()
    old.close()


def test_every_damage_is_carried_over_with_all_that_is_stored_of_it(sides: Sides) -> None:
    stored = [sighting(f"C-{i}", tenant, looks=i % 5) for tenant in ("acme", "zeta") for i in range(70)]
    sides.old.upsert(stored)
    assert sides.backfill.walk() == Pass(seen=140, written=140, lost=0)
    assert sides.backfill.walk() == Pass(seen=140, written=0, lost=0)
    (again,) = sides.new.whole("zeta", {stored[73].damage.damage_id})
    assert np.argmax(again.embedding) == 3
    assert (again.photo, again.damage, again.crop_uri) == (
        stored[73].photo,
        stored[73].damage,
        stored[73].crop_uri,
    )


def test_what_was_carried_over_before_is_not_read_again(sides: Sides) -> None:
    sides.old.upsert([sighting(f"C-{i}") for i in range(10)])
    pages = iter([False, True])
    sides.backfill.walk(stopped=lambda: next(pages))
    sides.old.upsert([sighting("C-late")])
    assert sides.backfill.walk().written == 1
    assert sorted(sides.crops.read_by) == sorted({*sides.crops.read_by})
    assert sides.new.count() == 11


def test_counting_writes_nothing(sides: Sides) -> None:
    sides.old.upsert([sighting(f"C-{i}") for i in range(3)])
    assert count_missing(sides.old, sides.new) == 3
    assert sides.new.count() == 0
    assert sides.crops.read_by == []
    sides.backfill.walk()
    assert count_missing(sides.old, sides.new) == count_missing(sides.new, sides.old) == 0


def test_a_damage_erased_while_a_killed_walk_wrote_it_is_withdrawn(sides: Sides) -> None:
    """And no other that the new collection alone holds: its matcher is about to write it to the old one."""
    left, live = sighting("C-left"), sighting("C-live")
    sides.new.upsert([replace(one, embedding=one.embedding[:NEW_SIZE]) for one in (left, live)])
    sides.crops.gone = {left.crop_uri}
    assert sides.backfill.withdraw() == 1
    assert sides.new.present("acme", {left.damage.damage_id, live.damage.damage_id}) == {
        live.damage.damage_id
    }


def test_damages_without_a_crop_are_told_of_and_the_others_carried_over(sides: Sides) -> None:
    sides.old.upsert([sighting(f"C-{i}") for i in range(4)])
    sides.crops.gone = {"crop://acme/C-2/0"}
    assert sides.backfill.walk() == Pass(seen=4, written=3, lost=1)
    assert sides.backfill.walk() == Pass(seen=4, written=0, lost=1)


@pytest.mark.parametrize("moment", ["while its crop is read", "while it is written"])
def test_a_claim_erased_meanwhile_does_not_come_back(sides: Sides, moment: str) -> None:
    sides.old.upsert([sighting("C-1"), sighting("C-2")])
    if moment == "while its crop is read":
        sides.crops.on_read = lambda uri: sides.old.erase("acme", "C-1") and None
    else:
        upsert = sides.new.upsert

        def erased_just_before(sightings: list[Sighting]) -> None:
            sides.old.erase("acme", "C-1")
            upsert(sightings)

        sides.new.upsert = erased_just_before  # type: ignore[method-assign, assignment]
    sides.backfill.walk()
    assert sides.new.present("acme", {sighting("C-1").damage.damage_id}) == set()
    assert sides.new.count() == sides.old.count() == 1


def test_two_collections_of_like_answers_agree(sides: Sides) -> None:
    sides.old.upsert([sighting(f"C-{i}", looks=i // 2) for i in range(12)])
    sides.backfill.walk()
    found = compare(sides.old, sides.new, queries=50, depth=1)
    assert (found.queries, found.shared, found.first) == (12, 1.0, 1.0)


def test_collections_of_unlike_answers_do_not(sides: Sides) -> None:
    sides.old.upsert([sighting(f"C-{i}", looks=i // 2) for i in range(12)])
    sides.crops.on_read = lambda uri: None
    crossed = {f"crop://acme/C-{i}/{i // 2}": i % 6 for i in range(12)}
    read = sides.crops.read
    sides.crops.read = lambda uri: read(f"crop://acme/C/{crossed[uri]}")  # type: ignore[method-assign]
    sides.backfill.walk()
    assert compare(sides.old, sides.new, queries=12, depth=1).shared == 0.0


def test_nothing_to_compare_is_said(sides: Sides) -> None:
    sides.old.upsert([sighting("C-1")])
    with pytest.raises(ValueError, match="no damage"):
        compare(sides.old, sides.new, queries=5)
