"""The model card: the manifest in words, so that the two never differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from damagewatch.vision.manifest import Model, read_manifest


def markdown(folder: Path) -> str:
    """The card of a models folder.

    Raises:
        ModelRefusedError: the folder's manifest cannot be read.
    """
    manifest = read_manifest(folder)
    lines = [f"# Models {manifest.version}", ""]
    for field, part in manifest.models.items():
        title = field.replace("_", " ").capitalize()
        lines += [f"## {title}: {part.name}", "", *_part(folder, part), ""]
    lines += ["## Calibration", "", f"Version {manifest.calibration.version}.", ""]
    return "\n".join(lines)


def _part(folder: Path, part: Model) -> Iterator[str]:
    side, channels = part.input.size, len(part.input.mean)
    path = folder / part.file
    size = f", {path.stat().st_size / 1e6:.1f} MB" if path.exists() else ""
    yield f"`{part.file}`{size}, SHA-256 `{part.sha256}`. Input: {channels} x {side} x {side}, float32."
    if part.notes:
        yield ""
        yield part.notes
    if part.data:
        yield ""
        yield "| data | licence | source |"
        yield "|---|---|---|"
        yield from (
            f"| {_cell(one.name)} | {_cell(one.licence)} | {_cell(one.source)} |" for one in part.data
        )
    figures = dict(_flat(part.quality))
    if figures:
        yield ""
        yield "| figure | value |"
        yield "|---|---|"
        yield from (f"| {_cell(name)} | {_cell(str(value))} |" for name, value in figures.items())


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}, ")
        else:
            yield f"{above}{name}", value


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
