"""How an alert is told on the command line."""

from __future__ import annotations

from damagewatch.cli import output
from damagewatch.contracts import codec
from damagewatch.contracts.wire import ContentType
from damagewatch.domain import Alert


def print_alert(alert: Alert, *, json: bool) -> None:
    """One line: the Alert message in protobuf's JSON mapping, or words."""
    if json:
        output.line(codec.encode(alert, ContentType.JSON).decode())
        return
    query, match = alert.query, alert.match
    output.line(
        f"{alert.kind:<15} {alert.probability:.3f}  "
        f"{query.claim_id}/{query.photo_id}  seen before in  {match.claim_id}/{match.photo_id}"
        f"{'  (mirrored)' if alert.mirrored else ''}"
    )
