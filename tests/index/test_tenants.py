"""Nothing crosses tenants: two of them use one index at random, and every answer is compared with a model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from qdrant_client import QdrantClient

from damagewatch.domain import Sighting
from damagewatch.index import DamageIndex, Entry, collection_name
from damagewatch.index.edge import EdgeIndex
from damagewatch.index.qdrant import QdrantIndex

tenants = st.sampled_from(["acme", "bolt"])
claims = st.sampled_from(["C-1", "C-2", "C-3"])
photos = st.sampled_from(["a", "b"])
hashes = st.sampled_from([0, 1, 2**64 - 1])
COLLECTION = collection_name("net", "0123456789abcdef")


class TwoTenants(RuleBasedStateMachine):
    """All damages look alike and the photos share a few hashes, so that only the filters keep them apart."""

    make: staticmethod  # type: ignore[type-arg]

    def open(self) -> DamageIndex:
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        self.stored: dict[tuple[str, str], set[Sighting]] = {}
        self.index = self.open()

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()

    @rule(tenant=tenants, claim=claims, photo=photos, photo_hash=hashes)
    def upsert(self, tenant: str, claim: str, photo: str, photo_hash: int) -> None:
        made = self.make(tenant, claim, photo, photo_hash=photo_hash)
        same = {s for s in self.stored.get((tenant, claim), set()) if s.photo == made.photo}
        self.index.upsert([made])
        self.stored[tenant, claim] = self.stored.get((tenant, claim), set()) - same | {made}

    @rule(tenant=tenants, claim=claims)
    def erase(self, tenant: str, claim: str) -> None:
        assert self.index.erase(tenant, claim) == len(self.stored.pop((tenant, claim), set()))

    @rule(claim=claims, photo_hash=hashes, mirrored=hashes)
    def look_up(self, claim: str, photo_hash: int, mirrored: int) -> None:
        queries = [self.make(tenant, claim, "query", photo_hash=photo_hash) for tenant in ("acme", "bolt")]
        found = self.index.search(queries, limit=50)
        copies = self.index.copies(queries, [mirrored] * 2, limit=50)
        for query, near, same in zip(queries, found, copies, strict=True):
            others = {
                s.photo: s
                for (tenant, other), stored in self.stored.items()
                for s in stored
                if tenant == query.photo.tenant and other != claim
            }
            assert {c.entry.photo for c in near} == set(others)
            alike = {
                photo
                for photo, s in others.items()
                if min((s.photo_hash ^ h).bit_count() for h in (photo_hash, mirrored)) <= 3
            }
            assert {c.entry.photo for c in same} == alike

    @rule(tenant=tenants, claim=claims)
    def read_by_id_of_the_other_tenant(self, tenant: str, claim: str) -> None:
        """Ids of another tenant's points, in a query of this tenant: nothing."""
        stored = self.stored.get((tenant, claim), set())
        thief = self.make("bolt" if tenant == "acme" else "acme", "C-1", "query")
        disguised = [Entry(victim.damage.damage_id, thief.photo, None) for victim in stored]
        assert self.index.complete(disguised) == {}

    @invariant()
    def counted(self) -> None:
        if hasattr(self, "index"):
            assert self.index.count() == sum(map(len, self.stored.values()))


class OnEdge(TwoTenants):
    def open(self) -> DamageIndex:
        self.folder = Path(tempfile.mkdtemp())
        return EdgeIndex(self.folder, COLLECTION, 16)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


class OnLocalMode(TwoTenants):
    def open(self) -> DamageIndex:
        return QdrantIndex(QdrantClient(":memory:"), COLLECTION, 16)


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
@pytest.mark.parametrize("machine", [OnEdge, OnLocalMode])
def test_nothing_crosses_tenants(machine: type[TwoTenants], sighting: object) -> None:
    machine.make = staticmethod(sighting)  # type: ignore[arg-type]
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=15))
