"""No photo leaks: whatever shows one claim, one damage, one car or nearly one picture is in one split."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch.vision.hashing import perceptual_hashes
from damagewatch_training.data import split
from damagewatch_training.data.dataset import MADE_FROM, DamageEntry, Dataset, PairEntry, PhotoEntry
from damagewatch_training.data.groups import Groups

NAMES = [f"p{number}" for number in range(14)]
NAME = st.sampled_from(NAMES)
SPLITS = st.sampled_from(["", "train", "val", "test"])


def entry(name: str, **fields: object) -> PhotoEntry:
    rng = np.random.default_rng(zlib.crc32(name.encode()) if "looks" not in fields else fields.pop("looks"))
    plain, mirrored = (f"{int(value):016x}" for value in rng.integers(0, 2**63, 2))
    base = {
        "name": name,
        "file": "f",
        "sha256": "0" * 64,
        "width": 10,
        "height": 10,
        "hashes": (plain, mirrored),
    }
    return PhotoEntry(**(base | fields))  # type: ignore[arg-type]


@st.composite
def data_sets(draw: st.DrawFn) -> Dataset:
    photos = [
        entry(
            name,
            claim=draw(st.sampled_from(["", "", "c1", "c2", "c3"])),
            split=draw(SPLITS),
            looks=draw(st.integers(0, 20)),
            attributes={MADE_FROM: draw(NAME)} if draw(st.integers(0, 5)) == 0 else {},
        )
        for name in NAMES
    ]
    verdicts = st.sampled_from(["copy", "mirror", "same", "samecar", "diff", "unsure"])
    pairs = draw(
        st.lists(st.builds(lambda a, b, v: PairEntry(a=a, b=b, verdict=v), NAME, NAME, verdicts), max_size=6)
    )
    damages = [
        DamageEntry(
            id=f"{name}#{number}",
            photo=name,
            box=(0, 0, 1, 1),
            damage=draw(st.sampled_from([None, "d1", "d2"])),
        )
        for number, name in enumerate(draw(st.lists(NAME, max_size=8)))
    ]
    return Dataset(Path(), tuple(photos), tuple(damages), tuple(pairs))


def belong_together(data: Dataset) -> list[tuple[str, str]]:
    """Every pair that must not be parted, found the slow way."""
    showing = {
        p.name: {d.damage for d in data.damages if d.photo == p.name and d.damage} for p in data.photos
    }
    found = [(p.a, p.b) for p in data.pairs if p.verdict in {"copy", "mirror", "same", "samecar"}]
    for a in data.photos:
        for b in data.photos:
            bits = [int(a.hashes[0], 16) ^ int(other, 16) for other in b.hashes]
            near = a.name < b.name and min(value.bit_count() for value in bits) <= 6
            claim = a.claim and a.claim == b.claim
            made = a.attributes.get(MADE_FROM) == b.name
            if near or claim or made or showing[a.name] & showing[b.name]:
                found.append((a.name, b.name))
    return found


@settings(max_examples=60)
@given(data_sets(), st.integers(0, 1000), st.floats(0, 0.5), st.floats(0, 0.4))
def test_nothing_that_belongs_together_is_parted(data: Dataset, seed: int, val: float, test: float) -> None:
    drawn = split.drawn(data, {"val": val, "test": test}, seed)
    of = {photo.name: photo.split for photo in drawn.photos}
    assert all(of[a] == of[b] for a, b in belong_together(data))
    assert set(of.values()) <= {"train", "val", "test"}
    assert list(of.values()).count("val") <= val * len(of)
    assert list(of.values()).count("test") <= test * len(of)
    assert split.leaks(drawn) == []
    assert drawn == split.drawn(data, {"val": val, "test": test}, seed)


@settings(max_examples=60)
@given(data_sets())
def test_leaks_are_found_where_there_are_any(data: Dataset) -> None:
    of = {photo.name: photo.split for photo in data.photos}
    parted = {frozenset((a, b)) for a, b in belong_together(data) if of[a] and of[b] and of[a] != of[b]}
    found = split.leaks(data)
    assert bool(found) == bool(parted)
    # By claim and by damage one link a split is told, of the others all.
    assert {frozenset((link.a, link.b)) for link in found} <= parted


@settings(max_examples=30)
@given(data_sets(), st.integers(0, 1000))
def test_what_is_kept_stays_and_takes_its_group_along(data: Dataset, seed: int) -> None:
    drawn = split.drawn(data, {"val": 0.3}, seed, keep=True)
    before = {photo.name: photo.split for photo in data.photos}
    after = {photo.name: photo.split for photo in drawn.photos}
    assert all(after[name] == old for name, old in before.items() if old)
    if not split.leaks(data):
        assert split.leaks(drawn) == [] or any(
            len({before[name] for name in group if before[name]}) > 1 for group in split.groups(data)
        )


def test_the_photos_of_a_retrieval_task_stay_where_they_are() -> None:
    photos = (
        entry("q", split="query", claim="c"),
        entry("g", split="gallery", claim="c"),
        entry("x", claim="c"),
    )
    drawn = split.drawn(Dataset(Path(), photos), {"val": 0.5}, 0)
    assert [photo.split for photo in drawn.photos][:2] == ["query", "gallery"]
    assert drawn.photos[2].split in split.TASK
    assert split.leaks(drawn) == []


def test_photos_that_look_alike_are_found_mirrored_ones_too() -> None:
    rng = np.random.default_rng(4)
    images = [cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (320, 240)) for _ in range(30)]
    images += [cv2.resize(images[3], (200, 150)), cv2.GaussianBlur(images[7][:, ::-1], (0, 0), 1)]
    photos = []
    for number, image in enumerate(images):
        plain, mirrored = perceptual_hashes(np.ascontiguousarray(image))
        photos.append(entry(str(number), hashes=(f"{plain:016x}", f"{mirrored:016x}")))
    found = {(a, b, mirrored) for a, b, _, mirrored in split.near_copies(photos)}
    assert found == {(3, 30, False), (7, 31, True)}


def test_shares_are_reached_where_groups_are_small() -> None:
    data = Dataset(Path(), tuple(entry(f"photo {n}", looks=n) for n in range(200)))
    of = [photo.split for photo in split.drawn(data, {"val": 0.2, "test": 0.1}, 3).photos]
    assert (of.count("val"), of.count("test"), of.count("train")) == (40, 20, 140)


@given(st.lists(st.tuples(NAME, NAME)))
def test_groups_are_connected_components(joins: list[tuple[str, str]]) -> None:
    groups = Groups()
    for a, b in joins:
        groups.join(a, b)
    reached = {name: {name} for pair in joins for name in pair}
    for _ in range(len(reached)):
        for a, b in joins:
            union = reached[a] | reached[b]
            for name in union:
                reached[name] = reached[name] | union
    assert {frozenset(members) for members in groups.all().values()} == {
        frozenset(s) for s in reached.values()
    }


@pytest.mark.parametrize("verdict", ["diff", "unsure"])
def test_pairs_of_different_cars_join_nothing(verdict: str) -> None:
    photos = (entry("a", split="train", looks=1), entry("b", split="val", looks=2))
    data = Dataset(Path(), photos, pairs=(PairEntry(a="a", b="b", verdict=verdict),))
    assert split.leaks(data) == []
