"""What is stored of a sighting beside its vector, and back: the one place that knows the stored layout.

Local features lie in the point's payload as base64, not as a blob in the evidence store. Measured with 10,000
damages of 512 features on Qdrant Edge, 2 cores: upsert 0.4 to 0.6 ms a damage (with a blob in a local file
0.23), a search with its 20 candidates read and decoded 4.2 ms (6.4; an object store takes a round trip each).
A point never lacks its features, and one deletion erases both. The price is disk: 57 kB a damage.

What no filter and no search asks for is one JSON text: Edge takes 4 us for each number of a nested list, which for
a damage with outlines of 40 points came to 0.3 ms a point.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from damagewatch.index.interface import Entry

Payload = dict[str, Any]

TENANT = "tenant"
CLAIM = "claim"
COPY_KEYS = "copy_keys"
KEYWORDS = (TENANT, CLAIM, COPY_KEYS)
"""The fields with a keyword index, made before any data."""

PHOTO_HASH = "photo_hash"
SHA256 = "sha256"

THUMBNAIL_SIDE = 64
DESCRIPTOR_LENGTH = 64

ENTRY = (TENANT, CLAIM, "photo", SHA256, "origin")
"""All that `decode_entry` needs."""


def hash_bands(photo_hash: int) -> list[str]:
    """The four 16-bit bands of a 64-bit hash: two hashes at most 3 bits apart share one (pigeonhole)."""
    return [f"{band}:{(photo_hash >> (16 * band)) & 0xFFFF:04x}" for band in range(4)]


def encode(sighting: Sighting) -> Payload:
    """The payload of a sighting: JSON values only. Its embedding and damage id are the point's own."""
    photo, damage = sighting.photo, sighting.damage
    about = {
        "type": damage.type.value,
        "severity": damage.severity.value,
        "score": float(damage.score),
        "box": _from_box(damage.box),
        "polygons": [[[float(x), float(y)] for x, y in polygon] for polygon in damage.polygons],
        "size": [sighting.width, sighting.height],
        "window": _from_box(sighting.window),
        "crop_uri": sighting.crop_uri,
        "attributes": dict(sighting.attributes),
        "received_at": sighting.received_at.isoformat() if sighting.received_at is not None else None,
    }
    payload: Payload = {
        TENANT: photo.tenant,
        CLAIM: photo.claim_id,
        "photo": photo.photo_id,
        SHA256: photo.sha256,
        PHOTO_HASH: f"{sighting.photo_hash:016x}",
        "about": json.dumps(about, separators=(",", ":")),
        "points": _from_array(sighting.features.points, "<f4"),
        "descriptors": _from_array(sighting.features.descriptors, "i1"),
        "thumbnail": _from_array(sighting.thumbnail, "u1"),
    }
    if damage.type is DamageType.WHOLE:
        # Only the whole photo answers a look-up by hash, so that a copy is found once and not once a damage.
        payload[COPY_KEYS] = [photo.sha256, *hash_bands(sighting.photo_hash)]
    if sighting.origin is not None:
        origin = sighting.origin
        payload["origin"] = f"{origin.topic_id}:{origin.partition}:{origin.offset}"
    return payload


def decode(damage_id: uuid.UUID, vector: Sequence[float], payload: Mapping[str, Any]) -> Sighting:
    """The sighting that `encode` was given.

    Raises:
        ValueError: The payload is not one that `encode` writes.
    """
    entry = decode_entry(damage_id, payload)
    try:
        about = json.loads(payload["about"])
        received_at = about["received_at"]
        width, height = about["size"]
        return Sighting(
            photo=entry.photo,
            damage=Damage(
                damage_id=damage_id,
                box=Box(*about["box"]),
                polygons=tuple(tuple((x, y) for x, y in polygon) for polygon in about["polygons"]),
                type=DamageType(about["type"]),
                severity=Severity(about["severity"]),
                score=about["score"],
            ),
            width=width,
            height=height,
            window=Box(*about["window"]),
            embedding=np.asarray(vector, np.float32),
            features=_features(payload),
            thumbnail=_to_array(payload["thumbnail"], "u1", (THUMBNAIL_SIDE, THUMBNAIL_SIDE)),
            photo_hash=int(payload[PHOTO_HASH], 16),
            crop_uri=about["crop_uri"],
            origin=entry.origin,
            received_at=datetime.fromisoformat(received_at) if received_at is not None else None,
            attributes=MappingProxyType(about["attributes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(damage_id, error) from error


def decode_entry(damage_id: uuid.UUID, payload: Mapping[str, Any]) -> Entry:
    """The entry of a sighting that `encode` was given; the fields `ENTRY` will do.

    Raises:
        ValueError: The payload is not one that `encode` writes.
    """
    try:
        photo = PhotoRef(payload[TENANT], payload[CLAIM], payload["photo"], payload[SHA256])
        origin = payload.get("origin")
        return Entry(damage_id, photo, _origin(origin) if origin is not None else None)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(damage_id, error) from error


def _unreadable(damage_id: uuid.UUID, error: Exception) -> ValueError:
    return ValueError(f"point {damage_id} holds a payload that cannot be read: {error!r}")


def _origin(text: str) -> Origin:
    topic_id, partition, offset = text.rsplit(":", 2)
    return Origin(topic_id, int(partition), int(offset))


def _features(payload: Mapping[str, Any]) -> LocalFeatures:
    points = _to_array(payload["points"], "<f4", (-1, 2)).astype(np.float32, copy=False)
    descriptors = _to_array(payload["descriptors"], "i1", (-1, DESCRIPTOR_LENGTH))
    if len(points) != len(descriptors):
        raise ValueError(f"{len(points)} points, {len(descriptors)} descriptors")
    return LocalFeatures(points, descriptors)


def _from_box(box: Box) -> list[float]:
    return [float(box.x0), float(box.y0), float(box.x1), float(box.y1)]


def _from_array(array: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode("ascii")


def _to_array(text: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)
