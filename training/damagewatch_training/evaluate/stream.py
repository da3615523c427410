"""The whole chain at the base rate of the field: what is alerted, what is right, and which stage lost the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from damagewatch.domain import DamageType, Sighting
from damagewatch.synthesis.rephotograph import Rephotograph, rephotograph
from damagewatch_training.data import windows
from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.data.sources import Photo
from damagewatch_training.evaluate.chain import STAGES, Chain, Told

STRENGTH = (0.5, 1.2)
"""Of a return's rephotograph: see `damagewatch.synthesis.rephotograph`."""


@dataclass(frozen=True, slots=True, eq=False)
class Return:
    """A photo that comes again."""

    photo: Photo
    taken: Rephotograph
    mirrored: bool

    @property
    def name(self) -> str:
        """As a photo of its own."""
        return name_again(self.photo.name)


def name_again(name: str) -> str:
    """Under which a photo comes again."""
    return f"again: {name}"


def returning(photo: Photo, mirrored_share: float, seed: int) -> Return:
    """A photo as it comes again: rephotographed, now and then mirrored; the same for the same seed."""
    rng = np.random.default_rng([seed, *photo.name.encode()])
    mirror = bool(rng.random() < mirrored_share)
    taken = rephotograph(photo.read(), rng, strength=float(rng.uniform(*STRENGTH)), mirror=mirror)
    return Return(photo, taken, mirror)


def lost(chain: Chain, original: Return) -> str:
    """The stage that lost a return which was not alerted.

    `detect`: no damage found in the one photo lies where one was found in the other, so that only whole photos could
    speak. The others are those of `Chain.lost`.
    """
    first = chain.look(original.photo.name, original.photo.path.read_bytes())
    second = chain.look(original.name, original.taken.encoded())
    damages = [
        (query, match)
        for query in second.sightings
        for match in first.sightings
        if DamageType.WHOLE not in {query.damage.type, match.damage.type}
    ]
    if not any(_one_place(query, match, original) for query, match in damages):
        return "detect"
    return chain.lost(second, first, original.mirrored)


def _one_place(query: Sighting, match: Sighting, original: Return) -> bool:
    moved = windows.mapped(match.damage.box, original.taken.homography, query.width, query.height)
    return moved is not None and moved.intersection(query.damage.box) is not None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the chain said of photos that ask for each other, and of their returns.

    `photos` are names of distinct photos; `returns` gives by the name of a photo that may come again the name under
    which it does; `alerts` by the name of a photo that asks, what would be alerted if all `photos` were remembered;
    `lost` by the name of a photo the stage that lost its return.
    """

    photos: tuple[str, ...]
    returns: Mapping[str, str]
    alerts: Mapping[str, Sequence[Told]]
    lost: Mapping[str, str]

    def without(self, names: Set[str]) -> Asked:
        """The same without some photos: what remains would be said if they had never come."""
        gone = names | {again for name, again in self.returns.items() if name in names}
        return Asked(
            tuple(name for name in self.photos if name not in names),
            {name: again for name, again in self.returns.items() if name not in names},
            {
                name: [told for told in found if told.match not in names]
                for name, found in self.alerts.items()
                if name not in gone
            },
            {name: stage for name, stage in self.lost.items() if name not in names},
        )

    def save(self, path: Path) -> None:
        """Writes all of it as JSON."""
        told = {name: [asdict(one) for one in found] for name, found in self.alerts.items()}
        entry = {"photos": self.photos, "returns": self.returns, "alerts": told, "lost": self.lost}
        path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Asked:
        """Reads what `save` wrote.

        Raises:
            DataRefusedError: The file holds something else.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataRefusedError(
                f"{path}: not the alerts of `evaluate stream`: {error.errors()[0]['msg']}"
            ) from None


@dataclass(frozen=True, slots=True)
class Draw:
    """One stream: how many photos arrived, of these how many came again, and what was alerted."""

    photos: int
    returns: int
    right: int
    """Returns alerted with their original."""
    false: int
    """Alerts of two photos that do not show one damage."""


def returns_wanted(count: int, rate: float) -> int:
    """How many of `count` photos come again in a draw."""
    return max(1, round(rate * count))


def draw(asked: Asked, count: int, rate: float, rng: np.random.Generator) -> Draw:
    """A stream of `count` photos in an order by chance, of which a share `rate` then come again.

    Args:
        asked: What the chain said. An alert counts where the photo that it names came earlier.
        count: Distinct photos of the stream.
        rate: Returns for each photo of it, at least one.
        rng: Of all chance.

    Raises:
        DataRefusedError: `asked` has fewer returns.
    """
    wanted = returns_wanted(count, rate)
    if wanted > len(asked.returns):
        raise DataRefusedError(
            f"{wanted} of {count} photos are to come again, and {len(asked.returns)} were asked for"
        )
    able = sorted(asked.returns)
    coming = [able[i] for i in rng.permutation(len(able))[:wanted]]
    staying = sorted(set(asked.photos) - set(coming))
    arrived = [*coming, *(staying[i] for i in rng.permutation(len(staying))[: count - wanted])]
    when = {arrived[i]: float(turn) for turn, i in enumerate(rng.permutation(len(arrived)))}
    for name in coming:  # at any time after the original
        when[asked.returns[name]] = float(rng.uniform(when[name], count))
    original = {asked.returns[name]: name for name in coming}
    right, false = set(), set()
    for asking, turn in when.items():
        for told in asked.alerts.get(asking, ()):
            if when.get(told.match, np.inf) >= turn:
                continue
            if original.get(asking) == told.match:
                right.add(asking)
            else:
                false.add((asking, told.match))
    return Draw(len(when), len(coming), len(right), len(false))


def figures(draws: Sequence[Draw]) -> dict[str, Any]:
    """Figures over all draws together; in brackets the 5th and 95th percentile of the draws."""
    photos, returns = sum(d.photos for d in draws), sum(d.returns for d in draws)
    right, false = sum(d.right for d in draws), sum(d.false for d in draws)
    return {
        "draws": len(draws),
        "photos_a_draw": round(photos / len(draws), 1),
        "returns_a_draw": round(returns / len(draws), 1),
        "alerts_a_draw": round((right + false) / len(draws), 2),
        "precision": round(right / (right + false), 4) if right + false else 0.0,
        "precision_5_95": _spread([d.right / (d.right + d.false) for d in draws if d.right + d.false]),
        "recall": round(right / returns, 4),
        "recall_5_95": _spread([d.right / d.returns for d in draws]),
        "false_alerts_in_1000_photos": round(1000 * false / photos, 4),
        "false_alerts_in_1000_photos_5_95": _spread([1000 * d.false / d.photos for d in draws]),
    }


def _spread(values: Sequence[float]) -> list[float]:
    return [round(float(v), 4) for v in np.quantile(values, (0.05, 0.95))] if values else []


def losses(stages: Sequence[str]) -> dict[str, int]:
    """How many returns each stage lost."""
    count = Counter(stages)
    return {stage: count[stage] for stage in ("detect", *STAGES)}
