"""Training that survives being killed at any moment: the state in one file, replaced whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` so that `path` always holds a complete checkpoint: the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    unfinished.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """The state last saved at `path`, or None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def require(path: Path) -> dict[str, Any]:
    """The state last saved at `path`.

    Raises:
        FileNotFoundError: there is none.
    """
    state = load(path)
    if state is None:
        raise FileNotFoundError(f"{path} is missing: `damagewatch-train train {path.parent.name}` writes it")
    return state
