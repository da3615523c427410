"""The shipped models, for tests that need to see."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from damagewatch.vision.models import Models

SHIPPED = Path(__file__).parents[2] / "deploy" / "models"


@cache
def shipped() -> Models:
    return Models.load(SHIPPED)
