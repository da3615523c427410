"""damagewatch: the same damage, photographed again, found in another claim."""

from importlib.metadata import version as _installed


def version() -> str:
    """Of the installed package."""
    return _installed("damagewatch")
