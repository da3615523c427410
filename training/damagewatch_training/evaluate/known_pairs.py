"""What the chain says of pairs of photos that a person has judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from damagewatch_training.data.sources import Pair
from damagewatch_training.evaluate.chain import Told


def alerted(known: Iterable[Pair], alerts: Mapping[str, Sequence[Told]]) -> list[tuple[Pair, Told | None]]:
    """Each pair with the alert that one of its photos gave on the other, if any.

    Args:
        known: Pairs whose photos both asked.
        alerts: By the name of a photo that asked, what was told.
    """
    said = []
    for pair in known:
        both = [told for told in alerts[pair.a] if told.match == pair.b]
        both += [told for told in alerts[pair.b] if told.match == pair.a]
        said.append((pair, max(both, key=lambda told: told.probability, default=None)))
    return said


def figures(said: Iterable[tuple[Pair, Told | None]]) -> dict[str, dict[str, float]]:
    """By verdict: `pairs`, the share `alerted`, and of these the share `said_mirrored`."""
    by_verdict: dict[str, list[Told | None]] = defaultdict(list)
    for pair, told in said:
        by_verdict[pair.verdict].append(told)
    result = {}
    for verdict, answers in sorted(by_verdict.items()):
        found = [told for told in answers if told is not None]
        result[verdict] = {
            "pairs": len(answers),
            "alerted": round(len(found) / len(answers), 4),
            "said_mirrored": round(float(np.mean([told.mirrored for told in found])), 4) if found else 0.0,
        }
    return result
