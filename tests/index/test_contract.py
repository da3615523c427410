"""What every adapter of the index has to keep."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest

from damagewatch.domain import Sighting
from damagewatch.index import DamageIndex, Entry, RebuildableIndex
from damagewatch.index.points import Scope

# The local mode says that it ignores search parameters; it scans all vectors, which is what we want of it.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

SERVER = os.environ.get("DAMAGEWATCH_INDEX__URL")
Make = Callable[..., Sighting]


def claims(found: list[list[object]]) -> list[set[str]]:
    return [{item.entry.photo.claim_id for item in one} for one in found]  # type: ignore[attr-defined]


def test_what_was_upserted_is_found_at_once_and_whole(index: DamageIndex, sighting: Make) -> None:
    stored = sighting(claim="C-1", ordinal=2)
    index.upsert([stored])
    ((candidate,),) = index.search([sighting(claim="C-2")], limit=5)
    assert candidate.entry == Entry(stored.damage.damage_id, stored.photo, stored.origin)
    (found,) = index.complete([candidate.entry]).values()
    assert found.damage == stored.damage
    assert found.photo == stored.photo
    assert found.embedding == pytest.approx(stored.embedding, abs=1e-6)
    assert np.array_equal(found.features.descriptors, stored.features.descriptors)
    assert np.array_equal(found.features.points, stored.features.points)
    assert np.array_equal(found.thumbnail, stored.thumbnail)


def test_the_score_is_the_cosine_and_the_nearest_come_first(index: DamageIndex, sighting: Make) -> None:
    query = sighting(claim="query")
    stored = [sighting(claim=f"C-{i}", direction=i // 2, noise=0.3 * i) for i in range(12)]
    index.upsert(stored)
    (found,) = index.search([query], limit=5)
    cosines = sorted((float(query.embedding @ s.embedding) for s in stored), reverse=True)
    assert [c.score for c in found] == pytest.approx(cosines[:5], abs=1e-5)
    known = index.complete([candidate.entry for candidate in found])
    for candidate in found:
        cosine = float(query.embedding @ known[candidate.entry.damage_id].embedding)
        assert candidate.score == pytest.approx(cosine, abs=1e-5)


def test_what_was_found_and_then_erased_is_left_out_of_what_is_read(
    index: DamageIndex, sighting: Make
) -> None:
    stored = [sighting(claim=f"C-{i}", photo_hash=7) for i in range(80)]
    index.upsert(stored)
    query = sighting(claim="query", photo_hash=7)
    (found,) = index.search([query], limit=70)
    (copies,) = index.copies([query], [7], limit=3)
    entries = [item.entry for item in (*found, *copies)]
    gone = found[3].entry
    index.erase("acme", gone.photo.claim_id)
    known = index.complete(entries)
    assert known.keys() == {entry.damage_id for entry in entries} - {gone.damage_id}
    assert index.complete([]) == {}


def test_each_query_of_a_batch_gets_its_own_answer(index: DamageIndex, sighting: Make) -> None:
    index.upsert([sighting(claim=f"C-{i}", direction=i) for i in range(6)])
    found = index.search([sighting(claim="query", photo=str(i), direction=i) for i in range(6)], limit=1)
    assert claims(found) == [{f"C-{i}"} for i in range(6)]
    assert index.search([], limit=1) == []


def test_what_is_left_out_of_a_search_gives_its_place_to_the_next(index: DamageIndex, sighting: Make) -> None:
    stored = [sighting(claim=f"C-{i}", noise=0.3 * i) for i in range(6)]
    index.upsert(stored)
    queries = [sighting(claim="query", photo=str(i)) for i in range(2)]
    nearest, _ = index.search(queries, limit=2)
    first = nearest[0].entry.damage_id
    without, all_of_them = index.search(queries, limit=2, but=[{first}, set()])
    assert first not in {c.entry.damage_id for c in without}
    assert without[0].entry == nearest[1].entry
    assert len(without) == 2
    assert all_of_them[0].entry.damage_id == first


def test_a_claim_never_meets_itself(index: DamageIndex, sighting: Make) -> None:
    index.upsert([sighting(claim="C-1", photo=p, photo_hash=5) for p in ("a", "b")])
    again = sighting(claim="C-1", photo="c", photo_hash=5)
    assert index.search([again], limit=10) == [[]]
    assert index.copies([again], [5], limit=10) == [[]]


def test_the_same_claim_number_at_another_tenant_is_another_claim(index: DamageIndex, sighting: Make) -> None:
    index.upsert([sighting("acme", "C-1"), sighting("acme", "C-2"), sighting("bolt", "C-1")])
    (found,) = index.search([sighting("bolt", "C-2", "query")], limit=10)
    assert [(c.entry.photo.tenant, c.entry.photo.claim_id) for c in found] == [("bolt", "C-1")]


def test_a_replay_changes_nothing(index: DamageIndex, sighting: Make) -> None:
    batch = [sighting(claim=f"C-{i}", ordinal=o) for i in range(3) for o in range(3)]
    index.upsert(batch)
    before = index.search([sighting(claim="query")], limit=20)
    index.upsert(batch)
    assert index.count() == 9
    after = index.search([sighting(claim="query")], limit=20)
    assert [[c.entry.damage_id for c in found] for found in after] == [
        [c.entry.damage_id for c in found] for found in before
    ]


def test_more_than_one_write_chunk_at_once(index: DamageIndex, sighting: Make) -> None:
    index.upsert([sighting(claim=f"C-{i}") for i in range(150)])
    assert index.count() == 150
    (found,) = index.search([sighting(claim="query")], limit=140)
    assert len(found) == 140


def test_exact_copies_come_first_then_near_ones_by_distance(index: DamageIndex, sighting: Make) -> None:
    query = sighting(claim="query", photo_hash=0xF0F0_1234_5678_9ABC, content="the photo")
    mirror = 0x0123_4567_89AB_CDEF
    index.upsert(
        [
            sighting(claim="exact", photo_hash=query.photo_hash, content="the photo"),
            sighting(claim="one bit", photo_hash=query.photo_hash ^ 1 << 63),
            sighting(claim="three bits", photo_hash=query.photo_hash ^ (1 << 63 | 1 << 40 | 1)),
            sighting(claim="four bits", photo_hash=query.photo_hash ^ 0b1111),
            sighting(claim="two bits mirrored", photo_hash=mirror ^ 0b11),
            sighting(claim="other", photo_hash=~query.photo_hash & (1 << 64) - 1),
        ]
    )
    ((*copies,),) = index.copies([query], [mirror], limit=10)
    assert [(c.entry.photo.claim_id, c.exact, c.distance, c.mirrored) for c in copies] == [
        ("exact", True, 0, False),
        ("one bit", False, 1, False),
        ("two bits mirrored", False, 2, True),
        ("three bits", False, 3, False),
    ]
    ((first,),) = index.copies([query], [mirror], limit=1)
    assert first.exact


def test_a_copy_is_named_once_by_its_whole_photo(index: DamageIndex, sighting: Make) -> None:
    index.upsert([sighting(claim="C-1", ordinal=o, photo_hash=9) for o in range(4)])
    ((copy,),) = index.copies([sighting(claim="C-2", ordinal=1, photo_hash=9)], [9], limit=10)
    assert copy.entry.damage_id == sighting(claim="C-1", ordinal=0).damage.damage_id


def test_an_exact_copy_is_found_among_any_number_of_blank_photos(
    index: DamageIndex, sighting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("damagewatch.index.points.BAND_LIMIT", 4)
    blank = [sighting(claim=f"blank-{i}", photo_hash=0, features=0) for i in range(40)]
    index.upsert([*blank, sighting(claim="exact", photo_hash=0, content="the photo")])
    query = sighting(claim="query", photo_hash=0, content="the photo")
    ((copy,),) = index.copies([query], [0], limit=1)
    assert copy.entry.photo.claim_id == "exact"


def test_an_erased_claim_is_gone_and_nothing_else(index: DamageIndex, sighting: Make) -> None:
    index.upsert([sighting(claim="C-1", photo=p, ordinal=o, photo_hash=3) for p in "ab" for o in range(3)])
    index.upsert([sighting(claim="C-2", photo_hash=3), sighting("bolt", "C-1", photo_hash=3)])
    assert index.erase("acme", "C-1") == 6
    assert index.erase("acme", "C-1") == 0
    query = sighting(claim="query", photo_hash=3)
    assert claims(index.search([query], 10)) == claims(index.copies([query], [3], 10)) == [{"C-2"}]
    assert claims(index.search([sighting("bolt", "query")], 10)) == [{"C-1"}]
    assert index.count() == 2


def test_everything_is_there_after_closing_and_opening(
    open_index: Callable[..., DamageIndex], sighting: Make
) -> None:
    index = open_index()
    index.upsert([sighting(claim=f"C-{i}") for i in range(20)])
    index.erase("acme", "C-3")
    index.flush()
    index.close()
    again = open_index()
    assert again.count() == 19
    (found,) = again.search([sighting(claim="query")], limit=50)
    assert {c.entry.photo.claim_id for c in found} == {f"C-{i}" for i in range(20) if i != 3}


def test_an_erasure_reaches_the_collections_of_other_embedders(
    open_index: Callable[..., DamageIndex], sighting: Make
) -> None:
    old_name = "damages-v0-old_net-0123456789ab"
    old = open_index(old_name)
    old.upsert([sighting(claim="C-1"), sighting(claim="C-2")])
    old.close()
    index = open_index()
    index.upsert([sighting(claim="C-1")])
    assert index.erase("acme", "C-1") == 2
    index.close()
    assert open_index(old_name).count() == 1


def test_optimizing_loses_nothing(index: DamageIndex, sighting: Make) -> None:
    index.upsert([sighting(claim=f"C-{i}") for i in range(60)])
    index.erase("acme", "C-7")
    index.optimize()
    (found,) = index.search([sighting(claim="query")], limit=100)
    assert {c.entry.photo.claim_id for c in found} == {f"C-{i}" for i in range(60) if i != 7}


@pytest.mark.parametrize("open_index", ["edge", *(["server"] if SERVER else [])], indirect=True)
def test_many_threads_use_one_index(index: DamageIndex, sighting: Make) -> None:
    """Each upserts before it searches: of any two, at least the later sees the other (no pair is missed).

    Not in qdrant-client's local mode, which is not thread safe.
    """
    seen: dict[int, set[str]] = {}
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            own = sighting(claim=f"C-{number}")
            index.upsert([own])
            (found,) = index.search([own], limit=50)
            seen[number] = {c.entry.photo.claim_id for c in found}
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for one in range(12):
        for other in range(one):
            assert f"C-{one}" in seen[other] or f"C-{other}" in seen[one]


@pytest.mark.parametrize("broken", [np.zeros(3, np.float32), np.full(16, np.nan, np.float32)])
def test_a_vector_that_does_not_fit_is_refused(index: DamageIndex, sighting: Make, broken: object) -> None:
    wrong = dataclasses.replace(sighting(), embedding=broken)
    with pytest.raises(ValueError, match="16 finite values"):
        index.upsert([wrong])
    with pytest.raises(ValueError, match="16 finite values"):
        index.search([wrong], 1)


@pytest.mark.parametrize("tenant", ["", None])
def test_no_query_can_be_made_without_a_tenant(tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        Scope(tenant=tenant)
    with pytest.raises(TypeError):
        Scope()  # type: ignore[call-arg]


def test_all_damages_are_named_a_page_at_a_time(index: RebuildableIndex, sighting: Make) -> None:
    stored = [sighting(tenant=t, claim=f"C-{i}") for t in ("acme", "zeta") for i in range(23)]
    index.upsert(stored)
    pages, start = [], None
    while True:
        page, start = index.ids(start, 10)
        pages.append(page)
        if start is None:
            break
    assert [len(page) for page in pages] == [10, 10, 10, 10, 6]
    assert {known for page in pages for known in page} == {
        (s.photo.tenant, s.damage.damage_id) for s in stored
    }


def test_damages_are_discarded_from_one_collection_within_one_tenant(
    index: RebuildableIndex, sighting: Make
) -> None:
    one, two, foreign = sighting(claim="C-1"), sighting(claim="C-2"), sighting(tenant="zeta")
    index.upsert([one, two, foreign])
    ids = {s.damage.damage_id for s in (one, two, foreign)}
    assert index.present("acme", ids) == {one.damage.damage_id, two.damage.damage_id}
    index.discard("acme", {one.damage.damage_id, foreign.damage.damage_id})
    assert index.present("acme", ids) == {two.damage.damage_id}
    assert index.present("zeta", ids) == {foreign.damage.damage_id}
    assert index.present("acme", ()) == set()
    index.discard("acme", ())
    assert index.count() == 2
