"""What the class names of other people's labels mean here: a damage's type, its severity, the part it is on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TYPES = {
    "scratch": "scratch scratches scratched scuff scuffs",
    "dent": "dent dents dented deformed deformation",
    "broken": "broken break crack cracks cracked shatter shattered smash smashed torn missing flat",
}
_SEVERITIES = {"minor": "minor slight", "moderate": "moderate medium", "severe": "severe major heavy"}
_PARTS = frozenset(
    {
        "bonnet",
        "hood",
        "bumper",
        "dickey",
        "boot",
        "trunk",
        "tailgate",
        "door",
        "fender",
        "wing",
        "light",
        "lamp",
    }
    | {"headlight", "headlamp", "taillight", "windshield", "windscreen", "window", "glass", "mirror", "wheel"}
    | {"tire", "tyre", "rim", "roof", "panel", "grille", "sill", "pillar", "quarter"}
)
_DAMAGE = frozenset({"damage", "damaged", "damages"})
_TYPE_OF = {word: name for name, words in _TYPES.items() for word in words.split()}
_SEVERITY_OF = {word: name for name, words in _SEVERITIES.items() for word in words.split()}


@dataclass(frozen=True, slots=True)
class Meaning:
    """Of a class name. `ignored` ones are no damage."""

    type: str | None = None
    severity: str | None = None
    part: str | None = None
    ignored: bool = False


def understood(name: str, mapping: Mapping[str, str] | None = None) -> Meaning | None:
    """What a class name means; None where it says nothing that is known.

    Words are looked for within the name: "minor-dent", "glass shatter", "Door". What a name means may be told by
    `mapping`, whose values are read in the same way; "damage" is a damage of no known type, "ignore" none at all.
    """
    told = (mapping or {}).get(name, name)
    words = re.findall(r"[a-z]+", told.lower())
    if words == ["ignore"]:
        return Meaning(ignored=True)
    types = [_TYPE_OF[word] for word in words if word in _TYPE_OF]
    severities = [_SEVERITY_OF[word] for word in words if word in _SEVERITY_OF]
    parts = [word for word in words if word in _PARTS]
    if not (types or severities or parts or _DAMAGE & set(words)):
        return None
    return Meaning(
        types[0] if types else None, severities[0] if severities else None, " ".join(parts) if parts else None
    )
