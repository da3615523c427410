"""Compressed batches: what producers write is read as it was, what would not fit into memory is refused."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable

import kafka.codec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError

from damagewatch.broker import unpacking

Pack = Callable[[bytes], bytes]
Unpack = Callable[..., bytes]

CODECS = [
    pytest.param(kafka.codec.gzip_encode, unpacking.gzip_decode, id="gzip"),
    pytest.param(kafka.codec.snappy_encode, unpacking.snappy_decode, id="snappy in blocks"),
    pytest.param(lambda b: bytes(kafka.codec.snappy.compress(b)), unpacking.snappy_decode, id="snappy"),
    pytest.param(kafka.codec.lz4_encode, unpacking.lz4_decode, id="lz4"),
    pytest.param(kafka.codec.zstd_encode, unpacking.zstd_decode, id="zstd"),
]


@pytest.mark.parametrize(("pack", "unpack"), CODECS)
@given(content=st.binary(min_size=1, max_size=5000), times=st.integers(1, 40))
def test_what_was_packed_comes_back(pack: Pack, unpack: Unpack, content: bytes, times: int) -> None:
    assert unpack(pack(content * times)) == content * times


@pytest.mark.parametrize(("pack", "unpack"), CODECS)
def test_the_limit_is_the_last_size_that_is_taken(pack: Pack, unpack: Unpack) -> None:
    packed = pack(bytes(100_000))
    assert len(unpack(packed, 100_000)) == 100_000
    with pytest.raises(CorruptRecordError, match="99,999"):
        unpack(packed, 99_999)


@pytest.mark.parametrize(("pack", "unpack"), CODECS)
def test_a_bomb_takes_no_memory(pack: Pack, unpack: Unpack) -> None:
    packed = pack(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRecordError):
            unpack(packed, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("pack", "unpack"), CODECS)
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 200))
def test_broken_batches_end_in_an_exception_or_in_bytes(
    pack: Pack, unpack: Unpack, at: int, value: int, cut: int
) -> None:
    packed = bytearray(pack(bytes(range(256)) * 20))
    packed[at % len(packed)] = value
    try:
        unpacked = unpack(bytes(packed[: len(packed) - cut]), 100_000)
    except Exception:  # the libraries raise what they like; the consumer takes it for the record's fault
        return
    assert len(unpacked) <= 100_000


def test_gzip_of_two_members() -> None:
    assert unpacking.gzip_decode(gzip.compress(b"one") + gzip.compress(b"two")) == b"onetwo"


def test_snappy_blocks_that_lead_nowhere_end() -> None:
    header = kafka.codec.snappy_encode(b"")[:16]
    for size in (-4, 0, 1 << 30):
        with pytest.raises(CorruptRecordError):
            unpacking.snappy_decode(header + struct.pack(">i", size) + b"\0" * 8)
