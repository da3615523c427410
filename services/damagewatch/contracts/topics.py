"""What travels where: the topics, and the headers of their records. docs/asyncapi.yaml says the same."""

from typing import Final

IMAGES: Final = "claims.images.v1"
"""In: claim photos (ClaimImage; key: claim id). No value: erase the claim that the key names."""
DETECTIONS: Final = "damage.detections.v1"
"""Out: what was found in each photo (Detections), and receipts of erasures (Erasure). Key: claim id."""
ALERTS: Final = "damage.alerts.v1"
"""Out: damages seen before in another claim (Alert). Key: claim id of the photo that arrived now."""
DEAD_LETTERS: Final = "claims.images.dlq.v1"
"""Out: records that could not be processed (DeadLetter), with the reason in the headers. Key: as it came."""

CONTENT_TYPE: Final = "content-type"
"""Header: how the value is written. Protobuf where absent."""
MESSAGE_TYPE: Final = "message-type"
"""Header of what we publish: full name of the protobuf message, such as damagewatch.v1.Alert."""
ALERT_ID: Final = "alert-id"
"""Header of an alert: its id, so that a reader can drop a doubled one unread."""
TENANT: Final = "tenant"
"""Header of a tombstone, which has no value to name the tenant in: whose claim to erase."""
