"""What went wrong, in one line for a person: no traceback for a user's mistake."""

from __future__ import annotations

from kafka.errors import KafkaError
from pydantic import ValidationError

from damagewatch.broker.errors import FencedError
from damagewatch.domain import DependencyDownError, Refused
from damagewatch.settings import SettingError


class Failure(Exception):
    """A command cannot go on. `code` is the exit code: 1 failed, 2 wrong usage."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def explain(error: Exception) -> str | None:
    """One line for what a user can mend; None for what only we can, which deserves its traceback."""
    from damagewatch.vision.manifest import ModelRefusedError

    match error:
        case Refused():
            return f"{error.detail} ({error.reason})"
        case DependencyDownError():
            return f"the {error.dependency} does not answer: {error.detail}"
        case KafkaError():
            return f"Kafka: {error} (is it up, and is DAMAGEWATCH_KAFKA__BOOTSTRAP_SERVERS right?)"
        case OSError() if error.strerror:
            return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        case Failure() | ModelRefusedError() | FencedError() | SettingError() | OSError():
            return str(error)
        case ValidationError():
            from damagewatch.settings import describe_errors

            return "\n".join(describe_errors(error))
        case _:
            return None


def code_of(error: Exception) -> int:
    """The exit code: wrong settings are wrong usage."""
    if isinstance(error, Failure):
        return error.code
    return 2 if isinstance(error, ValidationError | SettingError) else 1
