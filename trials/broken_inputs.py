"""Records that no well-behaved sender would send, each with what may become of it."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from damagewatch.broker.record import Headers
from damagewatch.contracts import codec, topics
from damagewatch.contracts.v1.claim_image_pb2 import ClaimImage as Message
from damagewatch.domain import ClaimImage, Reason
from damagewatch.synthesis.broken_files import png_header
from damagewatch.vision.decode import decode

Image = NDArray[np.uint8]

DECODING: Final = frozenset(
    {
        Reason.CORRUPT,
        Reason.DIMENSIONS_INVALID,
        Reason.FORMAT_UNSUPPORTED,
        Reason.NOT_AN_IMAGE,
        Reason.TOO_MANY_PIXELS,
        Reason.TOO_MANY_SCANS,
        Reason.TRUNCATED,
    }
)
PARSING: Final = frozenset(
    {Reason.MESSAGE_UNREADABLE, Reason.FIELD_MISSING, Reason.FIELD_INVALID, Reason.PHOTO_MISSING}
)
PHOTO: Final = "photo.jpg"
FIXED_TENANT: Final = "default"
CMYK_JPEG: Final = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwAQCwwODAoQDg0OEhEQExgoGhgWFhgxIyUdKDozPTw5Mzg3QEhcTkBEV0U3OFBtUVdfYmdoZz5N"
    "cXlwZHhcZWdj/8AAFAgAEAAQBEMRAE0RAFkRAEsRAP/EAB8AAAEFAQEBAQEBAAAAAAAAAAABAgMEBQYHCAkKC//EALUQAAIBAwMCBAMF"
    "BQQEAAABfQECAwAEEQUSITFBBhNRYQcicRQygZGhCCNCscEVUtHwJDNicoIJChYXGBkaJSYnKCkqNDU2Nzg5OkNERUZHSElKU1RVVldY"
    "WVpjZGVmZ2hpanN0dXZ3eHl6g4SFhoeIiYqSk5SVlpeYmZqio6Slpqeoqaqys7S1tre4ubrCw8TFxsfIycrS09TV1tfY2drh4uPk5ebn"
    "6Onq8fLz9PX29/j5+v/aAA4EQwBNAFkASwAAPwD0CvP68/r0Ciiiiiiiiiiiiv/Z"
)
"""16 x 16 pixels of pure red."""


@dataclass(frozen=True, slots=True)
class Input:
    """A record as it goes to the broker. It must become a dead letter with one of `reasons`, or be processed where
    it `may_pass`. Its claim id, where it is readable, is no other record's."""

    name: str
    claim_id: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    reasons: frozenset[Reason]
    may_pass: bool


class NotUtf8(str):
    """The name of a header whose bytes are no text: no client may write it, but one with a bug might."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Its bytes."""
        return b"trial-\xff\xfe"


class _Collector:
    """Gives every input a claim id of its own."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []

    def claim(self) -> str:
        return f"broken-{len(self.inputs) + 1:04}"

    def photo(self, name: str, content: bytes, *reasons: Reason, may_pass: bool = False) -> None:
        """A good message with such a photo in it."""
        claim = self.claim()
        image = ClaimImage(FIXED_TENANT, claim, PHOTO, content)
        self.add(name, claim.encode(), codec.encode(image), *reasons, may_pass=may_pass)

    def message(self, name: str, message: Message, *reasons: Reason, may_pass: bool = False) -> None:
        """A message as it is; the key is its claim id."""
        claim = self.claim()
        message.claim_id, message.photo_id = claim, PHOTO
        self.add(name, claim.encode(), message.SerializeToString(), *reasons, may_pass=may_pass)

    def add(
        self,
        name: str,
        key: bytes | None,
        value: bytes | None,
        *reasons: Reason,
        headers: Headers = (),
        may_pass: bool = False,
    ) -> None:
        """Any record."""
        self.inputs.append(Input(name, self.claim(), key, value, headers, frozenset(reasons), may_pass))


def broken_inputs(photo: Image, folder: Path, count: int, seed: int) -> list[Input]:
    """`count` records: one or a few of each kind, the rest cut and spoiled at random places.

    Args:
        photo: uint8 BGR (H, W, 3), to make photos of that are then spoiled.
        folder: Of which the matcher may fetch photos; a few files are made in it.
        count: How many.
        seed: Of everything that chance decides.
    """
    rng = np.random.default_rng(seed)
    small = cv2.resize(photo, (480, 360), interpolation=cv2.INTER_AREA)
    files = {
        "JPEG": _encoded(small, ".jpg"),
        "progressive JPEG": _encoded(small, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "PNG": _encoded(cv2.resize(small, (160, 120)), ".png"),
        "WebP": _encoded(small, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    }
    into = _Collector()
    for part in (_no_images, _bombs, _odd_photos, _messages, _records):
        part(into, files)
    _references(into, files, folder)
    _cut_and_spoiled(into, files, max(0, count - len(into.inputs)), rng)
    return into.inputs[:count]


def _no_images(into: _Collector, files: dict[str, bytes]) -> None:
    for name, content in {
        "a text": b"The customer sends the photos by post.\n",
        "HTML": b"<!doctype html><html><body>502 Bad Gateway</body></html>",
        "a ZIP": b"PK\x03\x04" + bytes(200),
        "a program": b"\x7fELF\x02\x01\x01" + bytes(200),
        "zeros": bytes(4096),
        "one byte": b"\xff",
        "JSON in place of a photo": b'{"error": "not found"}',
        "a JPEG in base64": base64.b64encode(files["JPEG"]),
    }.items():
        into.photo(name, content, Reason.NOT_AN_IMAGE)
    box = b"\0\0\0\x18ftyp"
    for name, content in {
        "a PDF": b"%PDF-1.7\n" + bytes(100),
        "a GIF": _encoded(np.full((20, 30, 3), 90, np.uint8), ".gif"),
        "an animated GIF": _animation(".gif"),
        "a TIFF": b"II*\0" + bytes(60),
        "a big-endian TIFF": b"MM\0*" + bytes(60),
        "a BMP": _encoded(np.full((20, 30, 3), 90, np.uint8), ".bmp"),
        "an AVIF header": box + b"avif\0\0\0\0mif1avif" + bytes(60),
        "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "a JPEG 2000 header": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
        "a JPEG XL header": b"\xff\x0a" + bytes(60),
        "a Photoshop header": b"8BPS\0\x01" + bytes(60),
    }.items():
        into.photo(name, content, Reason.FORMAT_UNSUPPORTED)
    into.photo("a HEIC header", box + b"heic\0\0\0\0mif1heic" + bytes(60), *DECODING)
    into.photo("no bytes", b"", Reason.PHOTO_EMPTY, Reason.PHOTO_MISSING)


def _bombs(into: _Collector, files: dict[str, bytes]) -> None:
    many = Reason.TOO_MANY_PIXELS
    into.photo("a PNG header of 60000 x 60000", png_header(60_000, 60_000), many)
    into.photo("a PNG header of 2^31 - 1 squared", png_header(2**31 - 1, 2**31 - 1), many)
    rows = zlib.compress(bytes((1 + 40_000 // 8) * 40_000), 9)
    into.photo("a PNG of 1600 million pixels in 200 kB", _png(40_000, 40_000, 1, 0, rows), many)
    into.photo("a JPEG that says 65500 x 65500", _jpeg_resized(files["JPEG"], 65_500, 65_500), many)
    into.photo(
        "a progressive JPEG that says 65500 x 65500",
        _jpeg_resized(files["progressive JPEG"], 65_500, 65_500),
        many,
    )
    bits = struct.pack("<BI", 0x2F, 16_382 | 16_382 << 14)
    lossless = b"WEBP" + struct.pack("<4sI", b"VP8L", 5) + bits + b"\0"
    into.photo("a WebP header of 16383 x 16383", b"RIFF" + struct.pack("<I", len(lossless)) + lossless, many)
    for times in (65, 1000, 5000):
        into.photo(
            f"a JPEG of {times} more scans", _scans(files["progressive JPEG"], times), Reason.TOO_MANY_SCANS
        )
    stuffed = files["JPEG"][:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 310 + files["JPEG"][2:]
    into.photo("a JPEG of 20.3 MB, most of it comments", stuffed, Reason.PHOTO_TOO_LARGE)
    flood = b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + b"\xff\xd9"
    into.photo("a JPEG of a million empty comments", flood, Reason.CORRUPT)
    text = _chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(300_000_000), 9))
    into.photo(
        "a PNG with a text that unpacks to 300 MB",
        _insert_chunk(files["PNG"], text),
        *DECODING,
        may_pass=True,
    )
    profile = _chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(300_000_000), 9))
    into.photo(
        "a PNG with a colour profile that unpacks to 300 MB",
        _insert_chunk(files["PNG"], profile),
        *DECODING,
        may_pass=True,
    )
    # Within all limits, and as costly as can be: two of these at once must fit.
    side = 7000
    deep = zlib.compress(bytes((1 + 8 * side) * side), 1)
    large = np.full((side, side, 3), 120, np.uint8)
    progressive = _encoded(large, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for number in (1, 2):
        into.photo(
            f"a PNG of 49 million pixels of 64 bits, {number}", _png(side, side, 16, 6, deep), may_pass=True
        )
        into.photo(f"a progressive JPEG of 49 million pixels, {number}", progressive, may_pass=True)
    into.photo(
        "a WebP of 49 million pixels", _encoded(large, ".webp", cv2.IMWRITE_WEBP_QUALITY, 5), may_pass=True
    )


def _odd_photos(into: _Collector, files: dict[str, bytes]) -> None:
    sizes = Reason.DIMENSIONS_INVALID
    into.photo("a PNG of 0 x 0", _png(0, 0, 8, 2, zlib.compress(b"")), sizes)
    into.photo("a PNG of 0 x 5", _png(0, 5, 8, 2, zlib.compress(b"")), sizes)
    into.photo("a JPEG of 0 x 0", _jpeg_resized(files["JPEG"], 0, 0), sizes, Reason.CORRUPT)
    into.photo("a PNG of 1 x 100000", _png(1, 100_000, 8, 0, zlib.compress(bytes(200_000))), sizes)
    for width, height in ((1, 1), (2, 2), (1, 20_000), (20_000, 1), (7, 3)):
        flat = np.full((height, width, 3), 99, np.uint8)
        for ending in (".jpg", ".png"):
            into.photo(f"{width} x {height} as {ending[1:]}", _encoded(flat, ending), may_pass=True)
    picture = decode(files["PNG"]).image
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    alpha = np.dstack([picture, np.full(picture.shape[:2], 40, np.uint8)])
    for name, content in {
        "a PNG of 16 bits": _encoded(picture.astype(np.uint16) * 257, ".png"),
        "a grey PNG of 16 bits": _encoded(grey.astype(np.uint16) * 257, ".png"),
        "a PNG of 1 bit": _png(64, 64, 1, 0, zlib.compress((b"\0" + b"\xaa" * 8) * 64)),
        "a grey JPEG": _encoded(grey, ".jpg"),
        "a grey PNG": _encoded(grey, ".png"),
        "a PNG with transparency": _encoded(alpha, ".png"),
        "a WebP with transparency": _encoded(alpha, ".webp"),
        "a CMYK JPEG": CMYK_JPEG,
        "an animated PNG": _animation(".png"),
        "an animated WebP": _animation(".webp"),
        "all black": _encoded(np.zeros((300, 400, 3), np.uint8), ".jpg"),
        "all white": _encoded(np.full((300, 400, 3), 255, np.uint8), ".jpg"),
        "bytes behind the end": files["JPEG"] + bytes(5000),
        "a ZIP behind the end": files["JPEG"] + b"PK\x03\x04" + bytes(500),
        "EXIF that is cut off": _with_exif(files["JPEG"], _orientation(6)[:12]),
        "EXIF that points nowhere": _with_exif(files["JPEG"], b"II*\0\xff\xff\xff\x7f"),
        "an orientation of 77": _with_exif(files["JPEG"], _orientation(77)),
    }.items():
        into.photo(name, content, may_pass=True)
    for value in range(1, 9):
        into.photo(f"EXIF orientation {value}", _with_exif(files["JPEG"], _orientation(value)), may_pass=True)


def _messages(into: _Collector, files: dict[str, bytes]) -> None:
    """Protobuf and JSON that is well formed and says what cannot be."""
    jpeg = files["JPEG"]
    invalid = Reason.FIELD_INVALID
    into.message("neither photo nor reference", Message(), Reason.PHOTO_MISSING)
    into.message("a date of loss that is none", Message(content=jpeg, date_of_loss="2026-02-30"), invalid)
    into.message("a date in words", Message(content=jpeg, date_of_loss="yesterday"), invalid)
    into.message(
        "65 attributes", Message(content=jpeg, attributes={f"a{i}": "b" for i in range(65)}), invalid
    )
    into.message("an endless attribute", Message(content=jpeg, attributes={"make": "x" * 100_000}), invalid)
    into.message("a tenant of 300 letters", Message(content=jpeg, tenant="t" * 300), invalid)
    into.message("a tenant that clears the screen", Message(content=jpeg, tenant="\x1b[2J"), invalid)
    moment = Message(content=jpeg)
    moment.captured_at.seconds = 2**60
    into.message("taken in the year 36 thousand million", moment, invalid)
    claim = into.claim()
    into.add("a key that names another claim", b"other", _value(claim, jpeg), invalid)
    into.add("a claim id of 10000 letters", None, _value("c" * 10_000, jpeg), invalid)
    into.add("a claim id with a line break", None, _value("claim\n1", jpeg), invalid)
    into.add("a claim id written backwards", None, _value("claim\u202e1", jpeg), invalid)
    into.add("no claim id, no key", None, _value("", jpeg), Reason.FIELD_MISSING)
    into.add("a claim id of blanks", None, _value("   ", jpeg), Reason.FIELD_MISSING)
    into.add("a key that is no UTF-8", b"\xff\xfe\xfd", _value("", jpeg), invalid)
    into.add("only a key names the claim", into.claim().encode(), _value("", jpeg), may_pass=True)
    as_json = ((topics.CONTENT_TYPE, b"application/json"),)
    content = base64.b64encode(jpeg).decode()
    for name, text, reason in (
        ("JSON that breaks off", '{"claimId": "', Reason.MESSAGE_UNREADABLE),
        ("JSON of an array", "[1, 2, 3]", Reason.MESSAGE_UNREADABLE),
        ("JSON nested 100000 deep", '{"a":' * 100_000, Reason.MESSAGE_UNREADABLE),
        ("JSON with base64 that holds nothing", '{"content": "%%%"}', Reason.PHOTO_EMPTY),
        ("JSON with a number for a claim", '{"claimId": 17}', Reason.MESSAGE_UNREADABLE),
        ("JSON without a photo", "{}", Reason.PHOTO_MISSING),
        ("JSON that is protobuf", _value("x", b"y").decode("latin-1"), Reason.MESSAGE_UNREADABLE),
    ):
        into.add(name, into.claim().encode(), text.encode(), reason, headers=as_json)
    into.add("JSON that is right", into.claim().encode(), _json(content), headers=as_json, may_pass=True)
    into.add(
        "protobuf named JSON",
        into.claim().encode(),
        _value("", jpeg),
        Reason.MESSAGE_UNREADABLE,
        headers=as_json,
    )


def _records(into: _Collector, files: dict[str, bytes]) -> None:
    """Framing, headers, tombstones."""
    jpeg = files["JPEG"]
    unreadable, unknown = Reason.MESSAGE_UNREADABLE, Reason.CONTENT_TYPE_UNKNOWN
    into.add("a value of no bytes", into.claim().encode(), b"", Reason.PHOTO_MISSING)
    into.add("no bytes and no key", None, b"", Reason.FIELD_MISSING)
    for media_type in (b"image/jpeg", b"text/html; charset=utf-8", b"", b"\xff\xfe", b"a" * 5000):
        name = f"content type {media_type[:20]!r}"
        headers = ((topics.CONTENT_TYPE, media_type),)
        into.add(name, into.claim().encode(), _value("", jpeg), unknown, headers=headers)
    into.add("a bare JPEG for a value", into.claim().encode(), jpeg, *PARSING)
    framed = b"\0" + struct.pack(">I", 7)
    into.add("Confluent framing", into.claim().encode(), framed + b"\0" + _value("", jpeg), may_pass=True)
    into.add("Confluent framing alone", into.claim().encode(), framed, unreadable)
    into.add("Confluent framing, cut", into.claim().encode(), framed[:3], unreadable)
    into.add(
        "Confluent framing, 2^31 indexes", into.claim().encode(), framed + b"\xff\xff\xff\xff\x0f", unreadable
    )
    into.add("Confluent framing, endless varint", into.claim().encode(), framed + b"\xff" * 50, unreadable)
    into.add("a length beyond the end", into.claim().encode(), b"\x22\xff\xff\xff\x7fabc", unreadable)
    into.add("an endless group", into.claim().encode(), b"\x0b" * 10_000, unreadable)
    into.add("text that is no UTF-8", into.claim().encode(), b"\x0a\x02\xff\xfe", unreadable)
    into.add(
        "a hundred headers",
        into.claim().encode(),
        _value("", jpeg),
        headers=(("h", b"x" * 500),) * 100,
        may_pass=True,
    )
    into.add(
        "a header whose name is no UTF-8",
        None,
        _value("nobody", jpeg),
        unreadable,
        headers=((NotUtf8("x"), b"1"),),
    )
    into.add("a tombstone whose key is empty", b"", None, Reason.FIELD_MISSING)
    into.add("a tombstone whose key is no UTF-8", b"\xff\xfe", None, Reason.FIELD_INVALID)
    into.add(
        "a tombstone of a tenant that is no UTF-8",
        b"c",
        None,
        Reason.FIELD_INVALID,
        headers=((topics.TENANT, b"\xff"),),
    )
    into.add("a tombstone of a claim that nobody knows", into.claim().encode(), None, may_pass=True)


def _references(into: _Collector, files: dict[str, bytes], folder: Path) -> None:
    """By an address, of which only what lies in `folder` is allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "good.jpg").write_bytes(files["JPEG"])
    (folder / "cut.jpg").write_bytes(files["JPEG"][:3000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "folder.jpg").mkdir(exist_ok=True)
    (folder / "link.jpg").unlink(missing_ok=True)
    (folder / "link.jpg").symlink_to("/etc/passwd")
    here = folder.resolve().as_uri()
    closed, invalid, gone = (
        Reason.REFERENCE_NOT_ALLOWED,
        Reason.REFERENCE_INVALID,
        Reason.REFERENCE_NOT_FOUND,
    )
    for uri, reasons in {
        "file:///etc/passwd": {closed},
        "https://169.254.169.254/latest/meta-data/": {closed},
        "https://127.0.0.1/photo.jpg": {closed},
        "https://example.org/photo.jpg": {closed},
        "https://[::1]/photo.jpg": {closed, invalid},
        "http://localhost:8080/admin": {closed},
        "gopher://127.0.0.1:6379/_FLUSHALL": {closed},
        "s3://somebody-elses/photo.jpg": {closed},
        "data:image/jpeg;base64,AAAA": {closed, invalid},
        "photo.jpg": {invalid},
        "file://host/share/photo.jpg": {invalid, closed},
        "https://user:secret@example.org/photo.jpg": {invalid, closed},
        f"{here}/../../../etc/passwd": {invalid, closed},
        f"{here}/%2e%2e/%2e%2e/etc/passwd": {invalid, closed},
        f"{here}-neighbour/photo.jpg": {closed},
        f"{here}/nothing-here.jpg": {gone},
        f"{here}/link.jpg": {closed, gone, invalid},
        f"{here}/folder.jpg": {closed, gone, invalid},
        f"{here}/empty.jpg": {Reason.PHOTO_EMPTY},
        f"{here}/cut.jpg": {Reason.TRUNCATED},
        f"{here}/{'a' * 2100}": {Reason.FIELD_INVALID},
        "": {Reason.PHOTO_MISSING},
    }.items():
        into.message(f"reference {uri.replace(here, '<folder>')[:60]!r}", Message(uri=uri), *reasons)
    into.message("reference to a good photo", Message(uri=f"{here}/good.jpg"), may_pass=True)


def _cut_and_spoiled(into: _Collector, files: dict[str, bytes], count: int, rng: np.random.Generator) -> None:
    """In turns: photos cut anywhere, photos with bits turned over, with a part missing, random bytes."""
    names = sorted(files)
    ways: tuple[Callable[[str, bytes], None], ...] = (
        lambda name, file: into.photo(
            f"{name}, cut", file[: int(rng.integers(16, len(file) - 2))], Reason.TRUNCATED
        ),
        lambda name, file: into.photo(
            f"{name}, bits turned over", _flipped(file, rng), *DECODING, may_pass=True
        ),
        lambda name, file: into.photo(
            f"{name}, a part missing", _without_part(file, rng), *DECODING, may_pass=True
        ),
        lambda name, file: into.add(
            "random bytes", into.claim().encode(), rng.bytes(int(rng.integers(1, 3000))), *PARSING
        ),
        lambda name, file: into.photo(
            f"{name}, a random end",
            file[: len(file) // 3] + rng.bytes(len(file) // 2),
            *DECODING,
            may_pass=True,
        ),
    )
    for number in range(count):
        name = names[number % len(names)]
        ways[int(number // len(names)) % len(ways)](name, files[name])


def _value(claim_id: str, content: bytes) -> bytes:
    return Message(claim_id=claim_id, photo_id=PHOTO, content=content).SerializeToString()


def _json(content: str) -> bytes:
    return json.dumps({"photoId": PHOTO, "content": content, "somethingNew": [1, 2]}).encode()


def _encoded(image: NDArray[Any], ending: str, *parameters: int) -> bytes:
    return cv2.imencode(ending, image, list(parameters))[1].tobytes()


def _animation(ending: str) -> bytes:
    made = cv2.Animation()
    made.frames = [np.full((60, 80, 4), 60 * (i + 1), np.uint8) for i in range(3)]
    made.durations = [100] * 3
    return cv2.imencodeanimation(ending, made)[1].tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks: Iterable[tuple[bytes, bytes]] = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _insert_chunk(png: bytes, chunk: bytes) -> bytes:
    """Right behind the header chunk, which ends at byte 33."""
    return png[:33] + chunk + png[33:]


def _jpeg_resized(jpeg: bytes, width: int, height: int) -> bytes:
    """Another size in the frame header, the same data."""
    frame = min(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := jpeg.find(marker)) >= 0)
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def _scans(jpeg: bytes, times: int) -> bytes:
    """The last scan of a progressive JPEG so many times more."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2][:400] * times + jpeg[-2:]


def _orientation(value: int) -> bytes:
    """A TIFF block with one tag (Exif 3.0, 4.6.4)."""
    return b"MM" + struct.pack(">HIH", 42, 8, 1) + struct.pack(">HHIHH", 0x0112, 3, 1, value, 0) + bytes(4)


def _with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def _flipped(file: bytes, rng: np.random.Generator) -> bytes:
    spoiled = bytearray(file)
    for at in rng.integers(4, len(file), int(rng.integers(1, 30))):
        spoiled[at] ^= 1 << int(rng.integers(8))
    return bytes(spoiled)


def _without_part(file: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(4, len(file) - 100))
    return file[:start] + file[start + int(rng.integers(1, 5000)) :]
