"""Between the bytes of a record and domain values, both ways.

What is read is hostile until checked: whatever the bytes, `decode_*` gives a valid value or raises
`domain.Refused`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from damagewatch import domain
from damagewatch.contracts import topics
from damagewatch.contracts.v1 import alert_pb2, claim_image_pb2, damage_pb2, dead_letter_pb2, erasure_pb2
from damagewatch.contracts.wire import STAGE, ContentType, Headers, header, parse, serialise
from damagewatch.domain import Reason, Refused

DEFAULT_TENANT: Final = "default"

MAX_NAME: Final = 256
"""Characters of a tenant, a claim id or a photo id."""
MAX_URI: Final = 2048
"""Characters of a reference."""
MAX_ATTRIBUTES: Final = 64
MAX_ATTRIBUTE_NAME: Final = 128
MAX_ATTRIBUTE_VALUE: Final = 1024

# Control characters, line and paragraph separators, and the marks that reverse the direction of what follows:
# these end up in terminals, logs and pages.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL_BUT_LAYOUT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The value of a dead letter: see proto/damagewatch/v1/dead_letter.proto.

    `reason` is a `domain.Reason`, or a code that only a newer version knows. `tenant`, `claim_id` and
    `photo_id` are empty where the record could not be read so far.
    """

    reason: str
    detail: str
    stage: str
    topic: str
    partition: int
    offset: int
    sha256: str
    size: int
    version: str
    refused_at: datetime
    tenant: str = ""
    claim_id: str = ""
    photo_id: str = ""


Value = domain.ClaimImage | domain.Detections | domain.Alert | domain.Erasure | DeadLetter


def encode(value: Value, content_type: ContentType = ContentType.PROTOBUF) -> bytes:
    """The value of the record that carries `value`. A datetime without time zone counts as UTC."""
    return serialise(_message(value), content_type)


def headers_of(value: Value, content_type: ContentType = ContentType.PROTOBUF) -> list[tuple[str, bytes]]:
    """The headers of the record that carries `value`."""
    headers = [
        (topics.CONTENT_TYPE, content_type.encode()),
        (topics.MESSAGE_TYPE, _MESSAGES[type(value)].DESCRIPTOR.full_name.encode()),
    ]
    if isinstance(value, domain.Alert):
        headers.append((topics.ALERT_ID, str(value.alert_id).encode()))
    return headers


def decode_claim_image(
    value: bytes, key: bytes | None = None, headers: Headers = (), tenant: str = DEFAULT_TENANT
) -> domain.ClaimImage:
    """A claim photo, with the names that the message leaves out filled in.

    Args:
        value: of the record.
        key: of the record: the claim id, where the message has none.
        headers: of the record.
        tenant: of a message that names none.

    Raises:
        Refused: at stage parse, with MESSAGE_UNREADABLE, CONTENT_TYPE_UNKNOWN, FIELD_MISSING, FIELD_INVALID
            or PHOTO_MISSING.
    """
    message = parse(claim_image_pb2.ClaimImage(), value, headers)
    keyed = _key(key)
    claim_id = message.claim_id or keyed
    if not claim_id.strip():
        raise Refused(Reason.FIELD_MISSING, "claim_id is empty, and the record has no key", STAGE)
    if keyed and keyed != claim_id:
        raise Refused(Reason.FIELD_INVALID, "claim_id and the record's key name two claims", STAGE)
    content, uri = _photo(message)
    photo_id = message.photo_id or domain.sha256_of(content or (uri or "").encode())[:16]
    return domain.ClaimImage(
        tenant=_name("tenant", message.tenant or tenant),
        claim_id=_name("claim_id", claim_id),
        photo_id=_name("photo_id", photo_id),
        content=content,
        uri=uri,
        captured_at=_moment(message, "captured_at"),
        received_at=_moment(message, "received_at"),
        date_of_loss=_day("date_of_loss", message.date_of_loss),
        attributes=_attributes(message.attributes),
    )


def decode_tombstone(
    key: bytes | None, headers: Headers = (), tenant: str = DEFAULT_TENANT
) -> tuple[str, str]:
    """Tenant and claim id that a record without value asks to erase.

    Raises:
        Refused: FIELD_MISSING or FIELD_INVALID.
    """
    claim_id = _key(key)
    if not claim_id.strip():
        raise Refused(Reason.FIELD_MISSING, "a tombstone without a key names no claim", STAGE)
    named = _text_of("header tenant", header(headers, topics.TENANT))
    return _name("tenant", named or tenant), _name("key", claim_id)


def decode_detections(value: bytes, headers: Headers = ()) -> domain.Detections:
    """What was found in one photo.

    Raises:
        Refused: with any reason of the stage parse.
    """
    message = parse(damage_pb2.Detections(), value, headers)
    with _invalid("detections"):
        return domain.Detections(
            photo=domain.PhotoRef(
                tenant=_name("tenant", message.tenant),
                claim_id=_name("claim_id", message.claim_id),
                photo_id=_name("photo_id", message.photo_id),
                sha256=_sha256(message.sha256),
            ),
            width=message.width,
            height=message.height,
            damages=tuple(_damage(damage) for damage in message.damages),
            models=_models(message.models),
            decided_at=_required_moment(message, "decided_at"),
            severity=_photo_severity(message.severity) if message.HasField("severity") else None,
        )


def decode_alert(value: bytes, headers: Headers = ()) -> domain.Alert:
    """An alert.

    Raises:
        Refused: with any reason of the stage parse.
    """
    message = parse(alert_pb2.Alert(), value, headers)
    for part in ("query", "match", "signals"):
        _require(message, part)
    with _invalid("alert"):
        signals = message.signals
        return domain.Alert(
            alert_id=uuid.UUID(message.alert_id),
            kind=domain.AlertKind[alert_pb2.Alert.Kind.Name(message.kind)],
            probability=_share("probability", message.probability),
            mirrored=message.mirrored,
            query=_side(message.query),
            match=_side(message.match),
            signals=domain.Signals(
                cosine=signals.cosine,
                inliers=signals.inliers,
                focus_inliers=signals.focus_inliers,
                inlier_ratio=signals.inlier_ratio,
                alignment=signals.alignment,
                overlap=signals.overlap,
                hash_distance=signals.hash_distance,
                distinctness=signals.distinctness,
                whole=signals.whole,
            ),
            models=_models(message.models),
            decided_at=_required_moment(message, "decided_at"),
            homography=tuple(message.homography),
            points=tuple((p.query_x, p.query_y, p.match_x, p.match_y) for p in message.points),
        )


def decode_dead_letter(value: bytes, headers: Headers = ()) -> DeadLetter:
    """A dead letter.

    Raises:
        Refused: with any reason of the stage parse.
    """
    message = parse(dead_letter_pb2.DeadLetter(), value, headers)
    return DeadLetter(
        reason=message.reason,
        detail=message.detail,
        stage=message.stage,
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        sha256=message.sha256,
        size=message.size,
        version=message.version,
        refused_at=_required_moment(message, "refused_at"),
        tenant=message.tenant,
        claim_id=message.claim_id,
        photo_id=message.photo_id,
    )


def decode_erasure(value: bytes, headers: Headers = ()) -> domain.Erasure:
    """The receipt of an erased claim.

    Raises:
        Refused: with any reason of the stage parse.
    """
    message = parse(erasure_pb2.Erasure(), value, headers)
    return domain.Erasure(
        tenant=_name("tenant", message.tenant),
        claim_id=_name("claim_id", message.claim_id),
        points=message.points,
        crops=message.crops,
        erased_at=_required_moment(message, "erased_at"),
    )


# Domain values to messages


def _message(value: Value) -> Message:
    match value:
        case domain.ClaimImage():
            return _claim_image_message(value)
        case domain.Detections():
            return _detections_message(value)
        case domain.Alert():
            return _alert_message(value)
        case domain.Erasure():
            return erasure_pb2.Erasure(
                tenant=value.tenant,
                claim_id=value.claim_id,
                points=value.points,
                crops=value.crops,
                erased_at=_timestamp(value.erased_at),
            )
        case DeadLetter():
            return dead_letter_pb2.DeadLetter(
                reason=value.reason,
                detail=value.detail,
                stage=value.stage,
                topic=value.topic,
                partition=value.partition,
                offset=value.offset,
                sha256=value.sha256,
                size=value.size,
                version=value.version,
                refused_at=_timestamp(value.refused_at),
                tenant=value.tenant,
                claim_id=value.claim_id,
                photo_id=value.photo_id,
            )


_MESSAGES: Final[Mapping[type, type[Message]]] = {
    domain.ClaimImage: claim_image_pb2.ClaimImage,
    domain.Detections: damage_pb2.Detections,
    domain.Alert: alert_pb2.Alert,
    domain.Erasure: erasure_pb2.Erasure,
    DeadLetter: dead_letter_pb2.DeadLetter,
}


def _claim_image_message(image: domain.ClaimImage) -> claim_image_pb2.ClaimImage:
    message = claim_image_pb2.ClaimImage(
        tenant=image.tenant,
        claim_id=image.claim_id,
        photo_id=image.photo_id,
        captured_at=_timestamp(image.captured_at),
        received_at=_timestamp(image.received_at),
        date_of_loss=image.date_of_loss.isoformat() if image.date_of_loss else "",
        attributes=image.attributes,
    )
    if image.content is not None:
        message.content = image.content
    if image.uri is not None:
        message.uri = image.uri
    return message


def _detections_message(detections: domain.Detections) -> damage_pb2.Detections:
    return damage_pb2.Detections(
        tenant=detections.photo.tenant,
        claim_id=detections.photo.claim_id,
        photo_id=detections.photo.photo_id,
        sha256=detections.photo.sha256,
        width=detections.width,
        height=detections.height,
        damages=(_damage_message(damage) for damage in detections.damages),
        models=detections.models,
        decided_at=_timestamp(detections.decided_at),
        severity=_photo_severity_message(detections.severity),
    )


def _photo_severity_message(severity: domain.PhotoSeverity | None) -> damage_pb2.PhotoSeverity | None:
    if severity is None:
        return None
    return damage_pb2.PhotoSeverity(
        severity=_severity_value(severity.severity),
        minor=severity.minor,
        moderate=severity.moderate,
        severe=severity.severe,
    )


def _alert_message(alert: domain.Alert) -> alert_pb2.Alert:
    signals = alert.signals
    return alert_pb2.Alert(
        alert_id=str(alert.alert_id),
        kind=alert_pb2.Alert.Kind.Value(alert.kind.name),
        probability=alert.probability,
        mirrored=alert.mirrored,
        query=_side_message(alert.query),
        match=_side_message(alert.match),
        signals=alert_pb2.Signals(
            cosine=signals.cosine,
            inliers=signals.inliers,
            focus_inliers=signals.focus_inliers,
            inlier_ratio=signals.inlier_ratio,
            alignment=signals.alignment,
            overlap=signals.overlap,
            hash_distance=signals.hash_distance,
            distinctness=signals.distinctness,
            whole=signals.whole,
        ),
        models=alert.models,
        decided_at=_timestamp(alert.decided_at),
        homography=alert.homography,
        points=(
            alert_pb2.MatchedPoint(query_x=query_x, query_y=query_y, match_x=match_x, match_y=match_y)
            for query_x, query_y, match_x, match_y in alert.points
        ),
    )


def _side_message(side: domain.AlertSide) -> alert_pb2.AlertSide:
    return alert_pb2.AlertSide(
        tenant=side.tenant,
        claim_id=side.claim_id,
        photo_id=side.photo_id,
        damage_id=str(side.damage_id),
        box=_box_message(side.box),
        crop_uri=side.crop_uri,
        crop_box=_box_message(side.crop_box),
        type=_type_value(side.type),
        severity=_severity_value(side.severity),
        sha256=side.sha256,
        width=side.width,
        height=side.height,
        received_at=_timestamp(side.received_at),
    )


def _damage_message(damage: domain.Damage) -> damage_pb2.Damage:
    return damage_pb2.Damage(
        damage_id=str(damage.damage_id),
        box=_box_message(damage.box),
        polygons=(
            damage_pb2.Polygon(points=(damage_pb2.Point(x=x, y=y) for x, y in polygon))
            for polygon in damage.polygons
        ),
        type=_type_value(damage.type),
        severity=_severity_value(damage.severity),
        score=damage.score,
    )


def _box_message(box: domain.Box) -> damage_pb2.Box:
    return damage_pb2.Box(x0=box.x0, y0=box.y0, x1=box.x1, y1=box.y1)


def _type_value(type_: domain.DamageType) -> damage_pb2.Damage.Type.ValueType:
    return damage_pb2.Damage.Type.Value(type_.name)


def _severity_value(severity: domain.Severity) -> damage_pb2.Damage.Severity.ValueType:
    if severity is domain.Severity.UNKNOWN:
        return damage_pb2.Damage.SEVERITY_UNSPECIFIED
    return damage_pb2.Damage.Severity.Value(severity.name)


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


# Messages to domain values


def _side(side: alert_pb2.AlertSide) -> domain.AlertSide:
    return domain.AlertSide(
        tenant=_name("tenant", side.tenant),
        claim_id=_name("claim_id", side.claim_id),
        photo_id=_name("photo_id", side.photo_id),
        damage_id=uuid.UUID(side.damage_id),
        sha256=_sha256(side.sha256),
        box=_box(side.box),
        type=_type(side.type),
        severity=_severity(side.severity),
        crop_uri=_text("crop_uri", side.crop_uri, MAX_URI),
        crop_box=_box(side.crop_box),
        width=side.width,
        height=side.height,
        received_at=_moment(side, "received_at"),
    )


def _damage(damage: damage_pb2.Damage) -> domain.Damage:
    return domain.Damage(
        damage_id=uuid.UUID(damage.damage_id),
        box=_box(damage.box),
        polygons=tuple(tuple((point.x, point.y) for point in polygon.points) for polygon in damage.polygons),
        type=_type(damage.type),
        severity=_severity(damage.severity),
        score=_share("score", damage.score),
    )


def _photo_severity(severity: damage_pb2.PhotoSeverity) -> domain.PhotoSeverity:
    return domain.PhotoSeverity(
        minor=_share("severity.minor", severity.minor),
        moderate=_share("severity.moderate", severity.moderate),
        severe=_share("severity.severe", severity.severe),
    )


def _box(box: damage_pb2.Box) -> domain.Box:
    return domain.Box(box.x0, box.y0, box.x1, box.y1)


def _type(value: damage_pb2.Damage.Type.ValueType) -> domain.DamageType:
    return domain.DamageType[damage_pb2.Damage.Type.Name(value)]


def _severity(value: damage_pb2.Damage.Severity.ValueType) -> domain.Severity:
    if value == damage_pb2.Damage.SEVERITY_UNSPECIFIED:
        return domain.Severity.UNKNOWN
    return domain.Severity[damage_pb2.Damage.Severity.Name(value)]


def _models(models: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(models))


def _photo(message: claim_image_pb2.ClaimImage) -> tuple[bytes | None, str | None]:
    """Content or reference. Each access to a bytes field copies it: once is enough."""
    match message.WhichOneof("photo"):
        case "content":
            return message.content, None  # empty ones are refused where photos are decoded, with their names
        case "uri":
            uri = _text("uri", message.uri, MAX_URI)
            if not uri:
                raise Refused(Reason.PHOTO_MISSING, "uri is empty", STAGE)
            return None, uri
        case _:
            raise Refused(Reason.PHOTO_MISSING, "neither content nor uri", STAGE)


def _attributes(attributes: Mapping[str, str]) -> Mapping[str, str]:
    if len(attributes) > MAX_ATTRIBUTES:
        detail = f"{len(attributes)} attributes; at most {MAX_ATTRIBUTES}"
        raise Refused(Reason.FIELD_INVALID, detail, STAGE)
    return MappingProxyType(
        {
            _name("name of an attribute", name, MAX_ATTRIBUTE_NAME): _text(
                "value of an attribute", value, MAX_ATTRIBUTE_VALUE, _CONTROL_BUT_LAYOUT
            )
            for name, value in attributes.items()
        }
    )


def _key(key: bytes | None) -> str:
    return _text_of("key", key)


def _text_of(field: str, value: bytes | None) -> str:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        raise Refused(Reason.FIELD_INVALID, f"{field} is not UTF-8", STAGE) from None


def _name(field: str, value: str, longest: int = MAX_NAME) -> str:
    if not value.strip():
        raise Refused(Reason.FIELD_MISSING, f"{field} is empty", STAGE)
    return _text(field, value, longest)


def _text(field: str, value: str, longest: int, forbidden: re.Pattern[str] = _CONTROL) -> str:
    if len(value) > longest:
        detail = f"{field} has {len(value)} characters; at most {longest}"
        raise Refused(Reason.FIELD_INVALID, detail, STAGE)
    if found := forbidden.search(value):
        detail = f"{field} holds the control character U+{ord(found[0]):04X}"
        raise Refused(Reason.FIELD_INVALID, detail, STAGE)
    return value


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise Refused(Reason.FIELD_INVALID, "sha256 is not 64 lower-case hexadecimal digits", STAGE)
    return value


def _share(field: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise Refused(Reason.FIELD_INVALID, f"{field} is {value}, not within 0 to 1", STAGE)
    return value


def _day(field: str, value: str) -> date | None:
    if not value:
        return None
    with _invalid(field):
        if not _DATE.fullmatch(value):
            raise ValueError("not a date as YYYY-MM-DD")
        return date.fromisoformat(value)


def _require(message: Message, field: str) -> None:
    if not message.HasField(field):
        raise Refused(Reason.FIELD_MISSING, f"{field} is missing", STAGE)


def _moment(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    with _invalid(field):
        return timestamp.ToDatetime(tzinfo=UTC)


def _required_moment(message: Message, field: str) -> datetime:
    moment = _moment(message, field)
    if moment is None:
        raise Refused(Reason.FIELD_MISSING, f"{field} is missing", STAGE)
    return moment


@contextmanager
def _invalid(what: str) -> Iterator[None]:
    """Values that no domain value can hold are the sender's fault."""
    try:
        yield
    except (ValueError, OverflowError, KeyError) as error:
        raise Refused(Reason.FIELD_INVALID, f"{what}: {' '.join(str(error).split())[:200]}", STAGE) from None
