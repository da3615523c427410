"""Logs on standard error: JSON lines for machines, plain lines for a person.

structlog's loggers and those of the standard library (`extra={...}` becomes fields) both end here. Photos and
secrets do not: bytes are replaced by their length, fields named after secrets by asterisks, long texts are
cut, and tracebacks show no local variables.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Literal

import structlog

_SECRETS: Final = ("password", "secret", "token", "api_key", "authorization")
_MAX_TEXT: Final = 4_000
_MAX_TRACEBACK: Final = 16_000


def configure(level: str = "INFO", form: Literal["auto", "json", "console"] = "auto") -> None:
    """Sends all logs to standard error. Calling it again replaces what was set before.

    Args:
        level: the least that is logged: DEBUG, INFO, WARNING or ERROR.
        form: json, console, or auto: console on a terminal, else json.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    gathered: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _clean,
    ]
    shown: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if console
        else [
            structlog.processors.format_exc_info,
            _clean,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_without_bytes)
    handler.addFilter(Seldom("kafka", seconds=30.0))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=gathered,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # At DEBUG kafka-python formats every value, photos included; at INFO it tells of every connection.
    logging.getLogger("kafka").setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *gathered,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


class Seldom(logging.Filter):
    """Lets each kind of message of one library through once in a while.

    While no broker answers, kafka-python says so several times a second.

    Args:
        library: the name that its loggers begin with.
        seconds: between two messages of one kind: from one line of its code.
        clock: seconds, monotonic.
    """

    def __init__(self, library: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._library = logging.Filter(library)
        self._seconds = seconds
        self._clock = clock
        self._last: dict[tuple[str, int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is shown."""
        if not self._library.filter(record):
            return True
        kind, now = (record.name, record.lineno, record.levelname), self._clock()
        if now - self._last.get(kind, -math.inf) < self._seconds:
            return False
        self._last[kind] = now
        return True


def _clean(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks secrets, shows bytes as their length, cuts long texts."""
    for name, value in list(event.items()):
        if any(secret in name.lower() for secret in _SECRETS):
            event[name] = "***"
        elif isinstance(value, bytes | bytearray | memoryview):
            event[name] = f"<{len(value)} bytes>"
        elif isinstance(value, str):
            event[name] = _cut(value, _MAX_TRACEBACK if name == "exception" else _MAX_TEXT)
    return event


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _without_bytes(record: logging.LogRecord) -> bool:
    """Shows bytes among the arguments of a message as their length, before they are formatted."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            f"<{len(value)} bytes>" if isinstance(value, bytes | bytearray | memoryview) else value
            for value in record.args
        )
    return True
