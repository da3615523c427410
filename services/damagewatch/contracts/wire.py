"""Between the bytes of a record and a protobuf message: content type, Confluent framing, limits."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from damagewatch.contracts import topics
from damagewatch.domain import Reason, Refused

Headers = Iterable[tuple[str, bytes | None]]
"""Of a Kafka record, as kafka-python hands them over."""

MessageT = TypeVar("MessageT", bound=Message)

STAGE: Final = "parse"

_MAGIC: Final = b"\0"
_SCHEMA_END: Final = 5
_MAX_INDEXES: Final = 32
_MAX_VARINT_BYTES: Final = 5
_MAX_JSON_STRUCTURE: Final = 100_000
_MAX_JSON_DEPTH: Final = 32


class ContentType(StrEnum):
    """How a message is written."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"
    """The protobuf JSON mapping (ProtoJSON)."""


_CONTENT_TYPES: Final = {
    **{str(known): known for known in ContentType},
    "application/protobuf": ContentType.PROTOBUF,
}


def header(headers: Headers, name: str) -> bytes | None:
    """The last header of that name, as Kafka's own `lastHeader`; names are compared without case."""
    found = None
    for key, value in headers:
        if key.lower() == name:
            found = value
    return found


def content_type_of(headers: Headers) -> ContentType:
    """What the header says; protobuf where there is none. Parameters such as charset are ignored.

    Raises:
        Refused: CONTENT_TYPE_UNKNOWN.
    """
    named = header(headers, topics.CONTENT_TYPE)
    if named is None:
        return ContentType.PROTOBUF
    media_type = named.partition(b";")[0].strip().lower().decode("utf-8", errors="replace")
    try:
        return _CONTENT_TYPES[media_type]
    except KeyError:
        known = " or ".join(ContentType)
        detail = f"content type {media_type[:100]!r}; known are {known}"
        raise Refused(Reason.CONTENT_TYPE_UNKNOWN, detail, STAGE) from None


def parse(message: MessageT, value: bytes, headers: Headers = ()) -> MessageT:
    """Fills `message` from a record's value. Unknown fields are accepted.

    The Confluent wire format is recognised by its magic byte 0, with which neither a protobuf message (there
    is no field number 0) nor a JSON text begins.

    Raises:
        Refused: CONTENT_TYPE_UNKNOWN or MESSAGE_UNREADABLE, whatever the bytes.
    """
    content_type = content_type_of(headers)
    framed = value.startswith(_MAGIC)
    try:
        if content_type is ContentType.JSON:
            text = value[_SCHEMA_END:] if framed else value
            _check_structure(text)
            json_format.Parse(text, message, ignore_unknown_fields=True, max_recursion_depth=_MAX_JSON_DEPTH)
        else:
            message.ParseFromString(value[_payload_start(value) :] if framed else value)
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # json_format answers hostile input with many kinds, not all of them documented
        why = " ".join(str(error).split())[:200].encode("unicode_escape").decode()
        detail = f"not a {message.DESCRIPTOR.full_name} as {content_type}: {why}"
        raise Refused(Reason.MESSAGE_UNREADABLE, detail, STAGE) from None
    return message


def serialise(message: Message, content_type: ContentType = ContentType.PROTOBUF) -> bytes:
    """The bytes of `message`. JSON is one line, zeros and falses included."""
    if content_type is ContentType.JSON:
        text = json_format.MessageToJson(
            message, indent=None, always_print_fields_with_no_presence=True, ensure_ascii=False
        )
        return text.encode()
    return message.SerializeToString()


def _payload_start(value: bytes) -> int:
    """Where the message begins in Confluent's framing: magic, schema id, indexes of the message type.

    https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/#wire-format
    """
    count, position = _zigzag(value, _SCHEMA_END)
    if not 0 <= count <= _MAX_INDEXES:
        raise ValueError(f"{count} message indexes in the Confluent framing")
    for _ in range(count):
        _, position = _zigzag(value, position)
    return position


def _zigzag(value: bytes, position: int) -> tuple[int, int]:
    """The zigzag varint at `position`, and where the next one starts."""
    number = 0
    for index, byte in enumerate(value[position : position + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), position + index + 1
    raise ValueError("the Confluent framing is cut off")


def _check_structure(text: bytes) -> None:
    """Refuses JSON that is no object, or of far more parts than a message has, before each becomes one."""
    if not text.lstrip(b" \t\r\n").startswith(b"{"):
        raise ValueError("not a JSON object")
    if sum(text.count(mark) for mark in (b"[", b"{", b",")) > _MAX_JSON_STRUCTURE:
        raise ValueError(f"more than {_MAX_JSON_STRUCTURE} values")
