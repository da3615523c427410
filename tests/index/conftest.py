"""Made-up sightings, and every adapter of the index as a fresh, empty one: the contract is tested on all."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from damagewatch.domain import (
    Box,
    Damage,
    DamageType,
    LocalFeatures,
    PhotoRef,
    Severity,
    Sighting,
)
from damagewatch.index import DamageIndex, collection_name
from damagewatch.index.edge import EdgeIndex
from damagewatch.index.qdrant import QdrantIndex

DIMENSION = 16


def make_sighting(
    tenant: str = "acme",
    claim: str = "C-1",
    photo: str = "front.jpg",
    *,
    ordinal: int = 0,
    direction: int = 0,
    noise: float = 0.05,
    photo_hash: int = 0,
    content: str | None = None,
    features: int = 5,
) -> Sighting:
    """One region of a photo; regions with the same `direction` look alike (cosine above 0.9)."""
    sha256 = hashlib.sha256((content or f"{tenant}/{claim}/{photo}").encode()).hexdigest()
    ref = PhotoRef(tenant, claim, photo, sha256)
    rng = np.random.default_rng(ref.damage_id(ordinal).int)
    embedding = np.zeros(DIMENSION)
    embedding[direction % DIMENSION] = 1
    embedding += noise * rng.normal(size=DIMENSION) / np.sqrt(DIMENSION)
    return Sighting(
        photo=ref,
        damage=Damage(
            damage_id=ref.damage_id(ordinal),
            box=Box(10, 20, 110.5, 80.25),
            polygons=(((10.0, 20.0), (110.5, 20.0), (60.0, 80.25)),),
            type=DamageType.WHOLE if ordinal == 0 else DamageType.DENT,
            severity=Severity.UNKNOWN if ordinal == 0 else Severity.MODERATE,
            score=0.75,
        ),
        width=640,
        height=480,
        window=Box(0, 0, 640, 480),
        embedding=(embedding / np.linalg.norm(embedding)).astype(np.float32),
        features=LocalFeatures(
            rng.uniform(0, 640, (features, 2)).astype(np.float32),
            rng.integers(-127, 128, (features, 64)).astype(np.int8),
        ),
        thumbnail=rng.integers(0, 256, (64, 64)).astype(np.uint8),
        photo_hash=photo_hash,
    )


@pytest.fixture(scope="session")
def sighting() -> Callable[..., Sighting]:
    return make_sighting


def fresh_collection() -> str:
    return collection_name("test net", uuid.uuid4().hex)


SERVER = os.environ.get("DAMAGEWATCH_INDEX__URL")


@pytest.fixture(params=["edge", "local", *(["server"] if SERVER else [])])
def open_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., DamageIndex]]:
    """Opens one and the same store, under any collection's name; closes what a test leaves open."""
    opened: list[DamageIndex] = []
    collections: set[str] = set()
    api_key = os.environ.get("DAMAGEWATCH_INDEX__API_KEY")
    default = fresh_collection()

    def open_one(collection: str = default) -> DamageIndex:
        index: DamageIndex
        if request.param == "edge":
            index = EdgeIndex(tmp_path / "index", collection, DIMENSION)
        elif request.param == "local":
            index = QdrantIndex(QdrantClient(path=str(tmp_path / "local")), collection, DIMENSION)
        else:
            assert SERVER
            index = QdrantIndex.server(SERVER, collection, DIMENSION, api_key=api_key)
            collections.add(collection)
        opened.append(index)
        return index

    yield open_one
    for index in opened:
        index.close()
    if collections:
        client = QdrantClient(SERVER, api_key=api_key)
        for collection in collections:
            client.delete_collection(collection)
        client.close()


@pytest.fixture
def index(open_index: Callable[..., DamageIndex]) -> DamageIndex:
    return open_index()
