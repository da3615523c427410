"""Compressed batches, unpacked within a limit.

kafka-python unpacks whatever comes: 400 kB of gzip, which the broker takes, become 400 MB, and took 1.5 GB; 20 MB
end the process, and the next one reads the same batch again. And of snappy it copies the rest for every block:
20 MB of empty blocks take minutes.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final

import kafka.codec
import kafka.record.default_records
import kafka.record.legacy_records
import lz4.frame  # type: ignore[import-untyped]
import zstandard
from kafka.errors import CorruptRecordError

LIMIT: Final = 64 * 1024 * 1024
"""Bytes of one batch: a photo of 20 MB is 27 MB as JSON."""

_SNAPPY_HEADER: Final = 16
_MAX_VARINT: Final = 5


def bound_unpacking() -> None:
    """Puts the functions below in the place of kafka-python's, which offers no limit."""
    for module in (kafka.record.default_records, kafka.record.legacy_records):
        module.gzip_decode = gzip_decode
        module.snappy_decode = snappy_decode
        module.lz4_decode = lz4_decode
    kafka.record.default_records.zstd_decode = zstd_decode


def gzip_decode(payload: bytes | memoryview, at_most: int = LIMIT) -> bytes:
    """Unpacks gzip (RFC 1952), of several members too.

    Raises:
        CorruptRecordError: it unpacks to more than `at_most` bytes, or is cut short.
        zlib.error: it is no gzip.
    """
    unpacked, rest = bytearray(), bytes(payload)
    while rest:
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        unpacked += member.decompress(rest, at_most + 1 - len(unpacked))
        _check(len(unpacked), at_most)
        if not member.eof:
            raise CorruptRecordError("a gzip batch that is cut short")
        rest = member.unused_data.lstrip(b"\0")
    return bytes(unpacked)


def snappy_decode(payload: bytes, at_most: int = LIMIT) -> bytes:
    """Unpacks snappy, raw or in the blocks of xerial's library, as most Kafka clients write it.

    Raises:
        CorruptRecordError: it unpacks to more than `at_most` bytes, or its blocks do not add up.
    """
    if not kafka.codec._detect_xerial_stream(payload):
        _check(_snappy_length(payload, 0), at_most)
        return bytes(kafka.codec.snappy.decompress(payload))
    unpacked, position = bytearray(), _SNAPPY_HEADER
    while position < len(payload):
        if position + 4 > len(payload):
            raise CorruptRecordError("a snappy batch that is cut short")
        (size,) = struct.unpack_from(">i", payload, position)
        start, position = position + 4, position + 4 + size
        if size < 1 or position > len(payload):
            raise CorruptRecordError(f"a snappy batch with a block of {size} bytes")
        _check(len(unpacked) + _snappy_length(payload, start), at_most)
        unpacked += kafka.codec.snappy.decompress(payload[start:position])
    return bytes(unpacked)


def lz4_decode(payload: bytes, at_most: int = LIMIT) -> bytes:
    """Unpacks an LZ4 frame.

    Raises:
        CorruptRecordError: it unpacks to more than `at_most` bytes, or is cut short.
        RuntimeError: it is no LZ4 frame.
    """
    frame = lz4.frame.LZ4FrameDecompressor()
    unpacked = bytes(frame.decompress(payload, max_length=at_most + 1))
    _check(len(unpacked), at_most)
    if not frame.eof:
        raise CorruptRecordError("an LZ4 batch that is cut short")
    return unpacked


def zstd_decode(payload: bytes, at_most: int = LIMIT) -> bytes:
    """Unpacks Zstandard (RFC 8878), of several frames too.

    Raises:
        CorruptRecordError: it unpacks to more than `at_most` bytes.
        zstandard.ZstdError: it is no Zstandard.
    """
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(payload), read_across_frames=True) as reader:
        unpacked = reader.read(at_most + 1)
    _check(len(unpacked), at_most)
    return unpacked


def _check(size: int, at_most: int) -> None:
    if size > at_most:
        raise CorruptRecordError(f"a batch that unpacks to more than {at_most:,} bytes")


def _snappy_length(payload: bytes, position: int) -> int:
    """What a block says that it unpacks to, a varint at its start; the decompressor holds it to that."""
    length = 0
    for index, byte in enumerate(payload[position : position + _MAX_VARINT]):
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return length
    raise CorruptRecordError("a snappy block without a length")
