"""Where the pictures of a closer look come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from damagewatch.domain import Box, DependencyDownError, Sighting
from damagewatch.pipeline.closer import MOST, closer_look
from damagewatch.vision.perceive import Perceived, Perception

from ..vision import pictures
from ..vision.models_folder import shipped

PART = Box(0, 0, 200, 150)


def perceive(seed: int, claim: str) -> Perceived:
    content = pictures.encoded(pictures.scene(400, 300, seed=seed))
    return Perception(shipped()).perceive(pictures.claim_image(content, claim))


def remembered(seed: int, uri: str) -> Sighting:
    return replace(perceive(seed, "b").sightings[0], crop_uri=uri)


def recording(content: bytes) -> tuple[list[str], Callable[[str], bytes]]:
    """What reads these bytes at every address, and the addresses that it was asked for."""
    asked: list[str] = []

    def read(uri: str) -> bytes:
        asked.append(uri)
        return content

    return asked, read


def never(uri: str) -> bytes:
    raise AssertionError(f"{uri} was read")


def test_the_photo_in_hand_is_not_read_from_the_store() -> None:
    here = perceive(1, "a")
    assert closer_look(shipped().local_features, never)(here)(here.sightings[0], PART, False) is not None


def test_a_remembered_photo_is_read_by_its_address() -> None:
    here, there = perceive(1, "a"), perceive(2, "b")
    known = remembered(2, "file:///crops/b.jpg")
    asked, read = recording(there.crops[known.window])
    again = closer_look(shipped().local_features, read)(here)(known, PART, False)
    assert again is not None and again.photo == there.photo
    assert asked == ["file:///crops/b.jpg"]


@pytest.mark.parametrize("error", [FileNotFoundError, ValueError])
def test_a_crop_that_was_erased_or_lies_elsewhere_is_done_without(error: type[Exception]) -> None:
    def gone(uri: str) -> bytes:
        raise error(uri)

    reads: list[Callable[[str], bytes]] = [gone, never]
    for read, uri in zip(reads, ("file:///gone.jpg", ""), strict=True):
        known = remembered(2, uri)
        look = closer_look(shipped().local_features, read)(perceive(1, "a"))
        assert look(known, PART, False) is None


def test_a_store_that_is_down_is_told() -> None:
    def down(uri: str) -> bytes:
        raise DependencyDownError("evidence", "no answer")

    known = remembered(2, "s3://crops/b.jpg")
    with pytest.raises(DependencyDownError):
        closer_look(shipped().local_features, down)(perceive(1, "a"))(known, PART, False)


def test_a_photo_that_much_looks_like_costs_so_much_and_no_more() -> None:
    here = perceive(1, "a")
    known = remembered(2, "file:///crops/b.jpg")
    reads, read = recording(b"")
    look = closer_look(shipped().local_features, read)
    closer = look(here)
    assert all(closer(known, Box(0, 0, 200 + n, 150), False) is None for n in range(MOST + 10))
    assert len(reads) == MOST
    assert closer(known, Box(0, 0, 200, 150), False) is None
    assert len(reads) == MOST
    look(here)(known, PART, False)  # the next photo has as many
    assert len(reads) == MOST + 1
