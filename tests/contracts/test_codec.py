"""Round trips of every message, the names in JSON, and what hostile bytes do."""

import json
import random
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damagewatch import domain
from damagewatch.contracts import codec, topics
from damagewatch.contracts.codec import DeadLetter
from damagewatch.contracts.v1 import alert_pb2, claim_image_pb2
from damagewatch.contracts.wire import ContentType, Headers
from damagewatch.domain import Reason, Refused

JSON = [(topics.CONTENT_TYPE, b"application/json")]
HEADERS = {ContentType.PROTOBUF: [], ContentType.JSON: JSON}

fewer = settings(max_examples=60)

# --- Strategies: any domain value that a record can carry

names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf")), min_size=1, max_size=256
).filter(str.strip)
sha256s = st.text("0123456789abcdef", min_size=64, max_size=64)
moments = st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC))
pixels = st.floats(0, 65_535, width=32)
shares = st.floats(0, 1)
counts = st.integers(0, 2**32 - 1)
models = st.dictionaries(names, names, max_size=4)


@st.composite
def boxes(draw: st.DrawFn) -> domain.Box:
    x0, x1 = sorted((draw(pixels), draw(pixels)))
    y0, y1 = sorted((draw(pixels), draw(pixels)))
    return domain.Box(x0, y0, x1, y1)


damages = st.builds(
    domain.Damage,
    damage_id=st.uuids(),
    box=boxes(),
    polygons=st.lists(st.lists(st.tuples(pixels, pixels), max_size=5).map(tuple), max_size=2).map(tuple),
    type=st.sampled_from(domain.DamageType),
    severity=st.sampled_from(domain.Severity),
    score=shares,
)
photos = st.builds(domain.PhotoRef, tenant=names, claim_id=names, photo_id=names, sha256=sha256s)
detections = st.builds(
    domain.Detections,
    photo=photos,
    width=counts,
    height=counts,
    damages=st.lists(damages, max_size=3).map(tuple),
    models=models,
    decided_at=moments,
    severity=st.none() | st.builds(domain.PhotoSeverity, minor=shares, moderate=shares, severe=shares),
)
sides = st.builds(
    domain.AlertSide,
    tenant=names,
    claim_id=names,
    photo_id=names,
    damage_id=st.uuids(),
    sha256=sha256s,
    box=boxes(),
    type=st.sampled_from(domain.DamageType),
    severity=st.sampled_from(domain.Severity),
    crop_uri=st.one_of(st.just(""), names),
    crop_box=boxes(),
    width=counts,
    height=counts,
    received_at=st.none() | moments,
)
signals = st.builds(
    domain.Signals,
    cosine=st.floats(-1, 1),
    inliers=counts,
    focus_inliers=counts,
    inlier_ratio=shares,
    alignment=st.floats(-1, 1),
    overlap=shares,
    hash_distance=st.integers(0, 64),
    distinctness=shares,
    whole=st.booleans(),
)
alerts = st.builds(
    domain.Alert,
    alert_id=st.uuids(),
    kind=st.sampled_from(domain.AlertKind),
    probability=shares,
    mirrored=st.booleans(),
    query=sides,
    match=sides,
    signals=signals,
    models=models,
    decided_at=moments,
    homography=st.just(()) | st.tuples(*[st.floats(-1e6, 1e6)] * 9),
    points=st.lists(st.tuples(pixels, pixels, pixels, pixels), max_size=4).map(tuple),
)
erasures = st.builds(
    domain.Erasure, tenant=names, claim_id=names, points=counts, crops=counts, erased_at=moments
)
dead_letters = st.builds(
    DeadLetter,
    reason=st.sampled_from(Reason).map(str),
    detail=names,
    stage=names,
    topic=names,
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    sha256=sha256s,
    size=counts,
    version=names,
    refused_at=moments,
)


@st.composite
def claim_images(draw: st.DrawFn) -> domain.ClaimImage:
    inline = draw(st.booleans())
    return domain.ClaimImage(
        tenant=draw(names),
        claim_id=draw(names),
        photo_id=draw(names),
        content=draw(st.binary(min_size=1, max_size=64)) if inline else None,
        uri=None if inline else draw(names),
        captured_at=draw(st.none() | moments),
        received_at=draw(st.none() | moments),
        date_of_loss=draw(st.none() | st.dates()),
        attributes=draw(st.dictionaries(names.map(lambda name: "a" + name[:100]), names, max_size=3)),
    )


@pytest.mark.parametrize("content_type", ContentType)
class TestRoundTrip:
    @fewer
    @given(image=claim_images())
    def test_claim_image(self, content_type: ContentType, image: domain.ClaimImage) -> None:
        value = codec.encode(image, content_type)
        assert codec.decode_claim_image(value, headers=HEADERS[content_type]) == image
        assert codec.decode_claim_image(value, image.claim_id.encode(), HEADERS[content_type]) == image

    @fewer
    @given(found=detections)
    def test_detections(self, content_type: ContentType, found: domain.Detections) -> None:
        value = codec.encode(found, content_type)
        assert codec.decode_detections(value, HEADERS[content_type]) == found

    @fewer
    @given(alert=alerts)
    def test_alert(self, content_type: ContentType, alert: domain.Alert) -> None:
        assert codec.decode_alert(codec.encode(alert, content_type), HEADERS[content_type]) == alert

    @fewer
    @given(erasure=erasures)
    def test_erasure(self, content_type: ContentType, erasure: domain.Erasure) -> None:
        assert codec.decode_erasure(codec.encode(erasure, content_type), HEADERS[content_type]) == erasure

    @fewer
    @given(letter=dead_letters)
    def test_dead_letter(self, content_type: ContentType, letter: DeadLetter) -> None:
        assert codec.decode_dead_letter(codec.encode(letter, content_type), HEADERS[content_type]) == letter


def side(claim_id: str) -> domain.AlertSide:
    return domain.AlertSide(
        tenant="acme",
        claim_id=claim_id,
        photo_id="front",
        damage_id=uuid.UUID(int=7),
        sha256="0" * 64,
        box=domain.Box(1, 2, 3, 4),
        type=domain.DamageType.DENT,
        severity=domain.Severity.MINOR,
        crop_uri="file:///crops/a.jpg",
        crop_box=domain.Box(0, 0, 8, 8),
        width=640,
        height=480,
        received_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


ALERT = domain.Alert(
    alert_id=uuid.UUID(int=1),
    kind=domain.AlertKind.SAME_DAMAGE,
    probability=0.0,
    mirrored=False,
    query=side("C-2"),
    match=side("C-1"),
    signals=domain.Signals(0.5, 40, 20, 0.25, 0.75, 1.0, 0, 0.5, True),
    models={"embedder": "osnet-1"},
    decided_at=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
    homography=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    points=((1.0, 2.0, 3.0, 4.5),),
)
IMAGE = domain.ClaimImage("acme", "C-1", "front", content=b"\xff\xd8photo")


class TestJsonNames:
    """What programs read from `--json` and from JSON records. Names are only ever added."""

    def test_alert(self) -> None:
        one_side = {
            "tenant": "acme",
            "photoId": "front",
            "damageId": "00000000-0000-0000-0000-000000000007",
            "box": {"x0": 1.0, "y0": 2.0, "x1": 3.0, "y1": 4.0},
            "cropUri": "file:///crops/a.jpg",
            "cropBox": {"x0": 0.0, "y0": 0.0, "x1": 8.0, "y1": 8.0},
            "type": "DENT",
            "severity": "MINOR",
            "sha256": "0" * 64,
            "width": 640,
            "height": 480,
            "receivedAt": "2026-01-02T03:04:05Z",
        }
        text = codec.encode(ALERT, ContentType.JSON)
        assert b"\n" not in text
        assert json.loads(text) == {
            "alertId": "00000000-0000-0000-0000-000000000001",
            "kind": "SAME_DAMAGE",
            "probability": 0.0,
            "mirrored": False,
            "query": {"claimId": "C-2", **one_side},
            "match": {"claimId": "C-1", **one_side},
            "signals": {
                "cosine": 0.5,
                "inliers": 40,
                "focusInliers": 20,
                "inlierRatio": 0.25,
                "alignment": 0.75,
                "overlap": 1.0,
                "hashDistance": 0,
                "distinctness": 0.5,
                "whole": True,
            },
            "models": {"embedder": "osnet-1"},
            "decidedAt": "2026-01-02T03:04:06Z",
            "homography": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            "points": [{"queryX": 1.0, "queryY": 2.0, "matchX": 3.0, "matchY": 4.5}],
        }

    @pytest.mark.parametrize("kind", domain.AlertKind)
    def test_kinds_have_their_plain_names(self, kind: domain.AlertKind) -> None:
        assert json.loads(codec.encode(replace(ALERT, kind=kind), ContentType.JSON))["kind"] == kind.value

    def test_claim_image(self) -> None:
        text = (
            b'{"tenant": "acme", "claimId": "C-1", "photoId": "p", "content": "/9hwaG90bw==",'
            b' "capturedAt": "2026-01-02T03:04:05+01:00", "receivedAt": "2026-01-02T04:00:00Z",'
            b' "dateOfLoss": "2025-12-31", "attributes": {"plate": "B-X 1"}, "comesLater": [1]}'
        )
        assert codec.decode_claim_image(text, headers=JSON) == domain.ClaimImage(
            tenant="acme",
            claim_id="C-1",
            photo_id="p",
            content=b"\xff\xd8photo",
            captured_at=datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC),
            received_at=datetime(2026, 1, 2, 4, tzinfo=UTC),
            date_of_loss=date(2025, 12, 31),
            attributes={"plate": "B-X 1"},
        )

    def test_detections_erasure_and_dead_letter(self) -> None:
        moment = datetime(2026, 1, 2, tzinfo=UTC)
        damage = domain.Damage(
            uuid.UUID(int=7),
            domain.Box(0, 0, 1, 1),
            (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),),
            domain.DamageType.WHOLE,
            domain.Severity.UNKNOWN,
            1.0,
        )
        found = domain.Detections(
            domain.PhotoRef("t", "c", "p", "0" * 64), 2, 1, (damage,), {"detector": "1"}, moment
        )
        graded = replace(found, severity=domain.PhotoSeverity(0.25, 0.125, 0.625))
        letter = DeadLetter(
            "truncated", "d", "decode", "claims.images.v1", 0, 12, "0" * 64, 3, "0.1.0", moment
        )
        assert json.loads(codec.encode(found, ContentType.JSON)) == {
            "tenant": "t",
            "claimId": "c",
            "photoId": "p",
            "sha256": "0" * 64,
            "width": 2,
            "height": 1,
            "damages": [
                {
                    "damageId": "00000000-0000-0000-0000-000000000007",
                    "box": {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0},
                    "polygons": [
                        {"points": [{"x": 0.0, "y": 0.0}, {"x": 1.0, "y": 0.0}, {"x": 1.0, "y": 1.0}]}
                    ],
                    "type": "WHOLE",
                    "severity": "SEVERITY_UNSPECIFIED",
                    "score": 1.0,
                }
            ],
            "models": {"detector": "1"},
            "decidedAt": "2026-01-02T00:00:00Z",
        }
        assert json.loads(codec.encode(graded, ContentType.JSON))["severity"] == {
            "severity": "SEVERE",
            "minor": 0.25,
            "moderate": 0.125,
            "severe": 0.625,
        }
        assert json.loads(codec.encode(domain.Erasure("t", "c", 0, 0, moment), ContentType.JSON)) == {
            "tenant": "t",
            "claimId": "c",
            "points": 0,
            "crops": 0,
            "erasedAt": "2026-01-02T00:00:00Z",
        }
        assert json.loads(codec.encode(letter, ContentType.JSON)) == {
            "reason": "truncated",
            "detail": "d",
            "stage": "decode",
            "topic": "claims.images.v1",
            "partition": 0,
            "offset": "12",
            "sha256": "0" * 64,
            "size": 3,
            "version": "0.1.0",
            "refusedAt": "2026-01-02T00:00:00Z",
            "tenant": "",
            "claimId": "",
            "photoId": "",
        }


class TestHeaders:
    def test_of_an_alert(self) -> None:
        assert codec.headers_of(ALERT) == [
            ("content-type", b"application/x-protobuf"),
            ("message-type", b"damagewatch.v1.Alert"),
            ("alert-id", str(ALERT.alert_id).encode()),
        ]

    @pytest.mark.parametrize("content_type", ContentType)
    def test_what_is_written_is_what_is_read(self, content_type: ContentType) -> None:
        headers = codec.headers_of(IMAGE, content_type)
        assert codec.decode_claim_image(codec.encode(IMAGE, content_type), headers=headers) == IMAGE

    @pytest.mark.parametrize("named", [b"application/json; charset=utf-8", b"Application/JSON"])
    def test_spellings_of_json(self, named: bytes) -> None:
        headers = [("content-type", b"text/plain"), ("Content-Type", named)]  # the last one counts
        assert codec.decode_claim_image(codec.encode(IMAGE, ContentType.JSON), headers=headers) == IMAGE

    @pytest.mark.parametrize("named", [b"image/jpeg", b"", b"\xff\xfe", b"x" * 100_000])
    def test_unknown_content_type(self, named: bytes) -> None:
        with pytest.raises(Refused) as refused:
            codec.decode_claim_image(codec.encode(IMAGE), headers=[("content-type", named)])
        assert refused.value.reason is Reason.CONTENT_TYPE_UNKNOWN
        assert len(refused.value.detail) < 1000


class TestConfluentFraming:
    @pytest.mark.parametrize("indexes", [b"\x00", b"\x02\x00", b"\x04\x02\x08"])
    def test_protobuf(self, indexes: bytes) -> None:
        value = b"\x00\x00\x00\x00\x2a" + indexes + codec.encode(IMAGE)
        assert codec.decode_claim_image(value) == IMAGE

    def test_json(self) -> None:
        value = b"\x00\x00\x00\x00\x2a" + codec.encode(IMAGE, ContentType.JSON)
        assert codec.decode_claim_image(value, headers=JSON) == IMAGE

    @fewer
    @given(claim_images())
    def test_no_message_begins_with_the_magic_byte(self, image: domain.ClaimImage) -> None:
        for content_type in ContentType:
            assert codec.encode(image, content_type)[0] != 0

    @pytest.mark.parametrize(
        "indexes", [b"", b"\x01", b"\x80", b"\xff\xff\xff\xff\xff\x01", b"\x02", b"\xfe\x01"]
    )
    def test_cut_off_or_absurd(self, indexes: bytes) -> None:
        assert reason_of(b"\x00\x00\x00\x00\x2a" + indexes) is Reason.MESSAGE_UNREADABLE


def reason_of(value: bytes, key: bytes | None = None, headers: Headers = ()) -> Reason:
    with pytest.raises(Refused) as refused:
        codec.decode_claim_image(value, key, headers)
    assert refused.value.stage == "parse"
    assert "\n" not in refused.value.detail
    return refused.value.reason


def raw(**fields: object) -> bytes:
    return claim_image_pb2.ClaimImage(**{"claim_id": "C-1", "content": b"x", **fields}).SerializeToString()  # type: ignore[arg-type]


class TestDefaults:
    def test_tenant(self) -> None:
        assert codec.decode_claim_image(raw()).tenant == "default"
        assert codec.decode_claim_image(raw(), tenant="acme").tenant == "acme"
        assert codec.decode_claim_image(raw(tenant="other"), tenant="acme").tenant == "other"

    def test_photo_id_is_made_of_the_content(self) -> None:
        # The first digits of: printf x | sha256sum
        assert codec.decode_claim_image(raw()).photo_id == "2d711642b726b044"

    def test_photo_id_is_made_of_the_reference(self) -> None:
        value = claim_image_pb2.ClaimImage(claim_id="C-1", uri="x").SerializeToString()
        image = codec.decode_claim_image(value)
        assert (image.photo_id, image.content, image.uri) == ("2d711642b726b044", None, "x")

    def test_claim_id_falls_back_to_the_key(self) -> None:
        assert codec.decode_claim_image(raw(claim_id=""), "Schäden-7".encode()).claim_id == "Schäden-7"


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "key", "reason"),
        [
            ({"claim_id": ""}, None, Reason.FIELD_MISSING),
            ({"claim_id": "  "}, None, Reason.FIELD_MISSING),
            ({"claim_id": ""}, b"", Reason.FIELD_MISSING),
            ({"claim_id": ""}, b"\xff", Reason.FIELD_INVALID),
            ({}, b"C-2", Reason.FIELD_INVALID),
            ({"claim_id": "c" * 257}, None, Reason.FIELD_INVALID),
            ({"claim_id": ""}, b"k" * 257, Reason.FIELD_INVALID),
            ({"claim_id": "a\nb"}, None, Reason.FIELD_INVALID),
            ({"photo_id": "a\x1b[31m"}, None, Reason.FIELD_INVALID),
            ({"photo_id": "gpj.\u202eexe"}, None, Reason.FIELD_INVALID),
            ({"tenant": "t" * 257}, None, Reason.FIELD_INVALID),
            ({"tenant": "\x00"}, None, Reason.FIELD_INVALID),
            ({"date_of_loss": "31.12.2025"}, None, Reason.FIELD_INVALID),
            ({"date_of_loss": "2025-02-30"}, None, Reason.FIELD_INVALID),
            ({"date_of_loss": "2025-W01-1"}, None, Reason.FIELD_INVALID),
            ({"captured_at": {"seconds": 2**62}}, None, Reason.FIELD_INVALID),
            ({"received_at": {"nanos": -1}}, None, Reason.FIELD_INVALID),
            ({"attributes": {str(i): "" for i in range(65)}}, None, Reason.FIELD_INVALID),
            ({"attributes": {"n" * 129: ""}}, None, Reason.FIELD_INVALID),
            ({"attributes": {"n": "v" * 1025}}, None, Reason.FIELD_INVALID),
            ({"attributes": {"n": "v\x07"}}, None, Reason.FIELD_INVALID),
            ({"attributes": {"": "v"}}, None, Reason.FIELD_MISSING),
        ],
    )
    def test_fields(self, fields: dict[str, object], key: bytes | None, reason: Reason) -> None:
        assert reason_of(raw(**fields), key) is reason

    def test_neither_content_nor_reference(self) -> None:
        value = claim_image_pb2.ClaimImage(claim_id="C-1").SerializeToString()
        assert reason_of(value) is Reason.PHOTO_MISSING

    @pytest.mark.parametrize(
        ("uri", "reason"), [("", Reason.PHOTO_MISSING), ("u" * 2049, Reason.FIELD_INVALID)]
    )
    def test_reference(self, uri: str, reason: Reason) -> None:
        value = claim_image_pb2.ClaimImage(claim_id="C-1", uri=uri).SerializeToString()
        assert reason_of(value) is reason

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"null",
            b"[]",
            b"7",
            b'"text"',
            b"\xff\xfe{}",
            b'{"claimId": "a", "claimId": "b"}',
            b'{"claimId": "\\ud800", "content": "eA=="}',
            b'{"claimId": 7}',
            b'{"attributes": []}',
            b'{"attributes": {"a": {"b": 1}}}',
            b'{"capturedAt": "yesterday"}',
            b'{"capturedAt": {}}',
            b'{"content": "eA==", "uri": "s3://b/k"}',
            b"[" * 90_000,
            b'{"x":' * 10_000,
            b'{"x": [' + b"[]," * 200_000 + b"[]]}",
            b'{"width": ' + b"9" * 10_000 + b"}",
        ],
    )
    def test_json(self, text: bytes) -> None:
        assert reason_of(text, headers=JSON) is Reason.MESSAGE_UNREADABLE

    def test_layout_is_allowed_in_the_value_of_an_attribute(self) -> None:
        value = raw(attributes={"note": "first\n\tsecond"})
        assert codec.decode_claim_image(value).attributes == {"note": "first\n\tsecond"}


class TestTombstone:
    def test_names_the_claim(self) -> None:
        assert codec.decode_tombstone(b"C-1") == ("default", "C-1")
        assert codec.decode_tombstone(b"C-1", [("tenant", b"acme")]) == ("acme", "C-1")

    @pytest.mark.parametrize(
        ("key", "tenant", "reason"),
        [
            (None, b"acme", Reason.FIELD_MISSING),
            (b"", b"acme", Reason.FIELD_MISSING),
            (b"\xff", b"acme", Reason.FIELD_INVALID),
            (b"C\n1", b"acme", Reason.FIELD_INVALID),
            (b"C-1", b"\xff", Reason.FIELD_INVALID),
        ],
    )
    def test_refusals(self, key: bytes | None, tenant: bytes, reason: Reason) -> None:
        with pytest.raises(Refused) as refused:
            codec.decode_tombstone(key, [("tenant", tenant)])
        assert refused.value.reason is reason


MOMENT = datetime(2026, 1, 2, tzinfo=UTC)
DECODERS = [
    (codec.decode_claim_image, IMAGE),
    (codec.decode_alert, ALERT),
    (
        codec.decode_detections,
        domain.Detections(domain.PhotoRef("t", "c", "p", "0" * 64), 2, 1, (), {"detector": "1"}, MOMENT),
    ),
    (
        codec.decode_dead_letter,
        DeadLetter("truncated", "d", "decode", "t", 0, 12, "0" * 64, 3, "0.1.0", MOMENT),
    ),
    (codec.decode_erasure, domain.Erasure("t", "c", 3, 4, MOMENT)),
]


@pytest.mark.parametrize(("decode", "sample"), DECODERS)
class TestHostileBytes:
    """Whatever the bytes: a value, or Refused."""

    @fewer
    @given(value=st.binary(max_size=300), framed=st.booleans(), json_=st.booleans())
    def test_any_bytes(self, decode, sample, value: bytes, framed: bool, json_: bool) -> None:  # type: ignore[no-untyped-def]
        try:
            decode(b"\x00" * framed + value, headers=JSON if json_ else ())
        except Refused as refused:
            assert len(refused.detail) < 1000

    @fewer
    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [field.json_name for field in alert_pb2.Alert.DESCRIPTOR.fields]
                        + [field.json_name for field in claim_image_pb2.ClaimImage.DESCRIPTOR.fields]
                    ),
                    inner,
                    max_size=4,
                )
            ),
        )
    )
    def test_any_json(self, decode, sample, value: object) -> None:  # type: ignore[no-untyped-def]
        try:
            decode(json.dumps(value).encode(), headers=JSON)
        except Refused as refused:
            assert len(refused.detail) < 1000

    @pytest.mark.parametrize("content_type", ContentType)
    def test_mutated_messages(self, decode, sample, content_type: ContentType) -> None:  # type: ignore[no-untyped-def]
        dice = random.Random(2026)
        valid = codec.encode(sample, content_type)
        refusals = 0
        for _ in range(1500):
            value = bytearray(valid)
            for _ in range(dice.randint(1, 6)):
                start = dice.randrange(len(value) + 1)
                value[start : start + dice.randint(0, 4)] = dice.randbytes(dice.randint(0, 4))
            try:
                decode(bytes(value), headers=HEADERS[content_type])
            except Refused:
                refusals += 1
        assert refusals


class TestForeignAlerts:
    """An alert that another program wrote."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"kind": 0}, Reason.FIELD_INVALID),
            ({"kind": 99}, Reason.FIELD_INVALID),
            ({"alert_id": "x"}, Reason.FIELD_INVALID),
            ({"probability": float("nan")}, Reason.FIELD_INVALID),
            ({"query": None}, Reason.FIELD_MISSING),
            ({"decided_at": None}, Reason.FIELD_MISSING),
        ],
    )
    def test_refusals(self, change: dict[str, object], reason: Reason) -> None:
        message = alert_pb2.Alert.FromString(codec.encode(ALERT))
        for field, value in change.items():
            if value is None:
                message.ClearField(field)  # type: ignore[arg-type]
            else:
                setattr(message, field, value)
        with pytest.raises(Refused) as refused:
            codec.decode_alert(message.SerializeToString())
        assert refused.value.reason is reason

    def test_a_box_whose_end_lies_before_its_start(self) -> None:
        message = alert_pb2.Alert.FromString(codec.encode(ALERT))
        message.match.box.x1 = -5
        with pytest.raises(Refused) as refused:
            codec.decode_alert(message.SerializeToString())
        assert refused.value.reason is Reason.FIELD_INVALID

    def test_a_field_that_a_newer_version_added(self) -> None:
        assert codec.decode_alert(codec.encode(ALERT) + b"\xfa\x3e\x03new") == ALERT
