"""Train, val and test apart: what shows the same claim, car, damage or nearly the same picture goes together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from damagewatch_training.data.dataset import MADE_FROM, MADE_ONTO, Dataset, PhotoEntry
from damagewatch_training.data.groups import Groups
from damagewatch_training.data.sources import SAME

NEAR_COPY = 6
"""Bits of 64 in which perceptual hashes differ at most, plain or mirrored, of photos that are nearly one."""
TOGETHER = SAME | {"samecar"}
TASK = frozenset({"query", "gallery"})
"""Splits of a retrieval task: they are meant to show the same damages, and are left as they are."""
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Link:
    """Two photos that must not be parted, and why."""

    a: str
    b: str
    why: str


def near_copies(
    photos: Sequence[PhotoEntry], at_most: int = NEAR_COPY
) -> Iterator[tuple[int, int, int, bool]]:
    """Pairs of photos that look alike: both numbers, the bits in which their hashes differ, and if one is mirrored.

    All pairs are compared: 40 seconds for 100,000 photos.
    """
    plain = np.array([int(photo.hashes[0], 16) for photo in photos], np.uint64)
    mirrored = np.array([int(photo.hashes[1], 16) for photo in photos], np.uint64)
    for start in range(0, len(photos), _BLOCK):
        rows = plain[start : start + _BLOCK, None]
        as_is = np.bitwise_count(rows ^ plain[None, start:])
        turned = np.bitwise_count(rows ^ mirrored[None, start:])
        bits = np.minimum(as_is, turned)
        for row, column in np.argwhere(np.triu(bits <= at_most, 1)).tolist():
            yield (
                start + row,
                start + column,
                int(bits[row, column]),
                bool(turned[row, column] < as_is[row, column]),
            )


def links(data: Dataset, at_most: int = NEAR_COPY) -> Iterator[Link]:
    """Enough links to join all that belongs together: by claim, damage, judged pair and likeness."""
    yield from _chains("claim", ((photo.claim, photo.name) for photo in data.photos if photo.claim))
    yield from _chains("damage", ((d.damage, d.photo) for d in data.damages if d.damage is not None))
    for photo in data.photos:
        for made in (MADE_FROM, MADE_ONTO):
            if made in photo.attributes:
                yield Link(photo.attributes[made], photo.name, made.replace("_", " "))
    for pair in data.pairs:
        if pair.verdict in TOGETHER:
            yield Link(pair.a, pair.b, f"pair: {pair.verdict}")
    for one, other, bits, mirrored in near_copies(data.photos, at_most):
        why = f"near-copy: {bits} bits{', mirrored' if mirrored else ''}"
        yield Link(data.photos[one].name, data.photos[other].name, why)


def _chains(why: str, members: Iterator[tuple[str, str]]) -> Iterator[Link]:
    """Links each member of a key to the one before."""
    last: dict[str, str] = {}
    for key, name in members:
        if last.get(key, name) != name:
            yield Link(last[key], name, f"{why}: {key}")
        last[key] = name


def groups(data: Dataset, at_most: int = NEAR_COPY) -> list[list[str]]:
    """The photos that belong together, in groups, by name."""
    joined = Groups()
    known = {photo.name for photo in data.photos}
    for photo in data.photos:
        joined.of(photo.name)
    for link in links(data, at_most):
        if link.a in known and link.b in known:
            joined.join(link.a, link.b)
    return list(joined.all().values())


def drawn(
    data: Dataset, shares: Mapping[str, float], seed: int, *, keep: bool = False, at_most: int = NEAR_COPY
) -> Dataset:
    """The data set with every photo in a split; groups stay together.

    Groups are drawn at random; each goes to the held-out split that lacks most of its share and that it does not
    overfill, or else to train. So a group larger than a share is in train.

    Args:
        data: photos of a retrieval task (query, gallery) stay what they are, and so does all that belongs to them.
        shares: of the photos, by held-out split: {"val": 0.15, "test": 0.15}.
        seed: of the draw.
        keep: photos that are in a split stay there, and take their group along.
        at_most: bits, as in `near_copies`.
    """
    photos = {photo.name: photo for photo in data.photos}
    wanted = {split: share * len(photos) for split, share in shares.items()}
    filled: Counter[str] = Counter()
    chosen: dict[str, str] = {}
    found = groups(data, at_most)
    waiting = []
    for index in np.random.default_rng(seed).permutation(len(found)).tolist():
        group = found[index]
        fixed = [photos[name].split for name in group if photos[name].split in TASK]
        fixed += [photos[name].split for name in group if keep and photos[name].split and not fixed]
        if not fixed:
            waiting.append(group)
            continue
        common = Counter(fixed).most_common(1)[0][0]
        for name in group:
            own = photos[name].split
            chosen[name] = own if own in TASK or (keep and own) else common
            filled[chosen[name]] += 1
    for group in waiting:
        room = {
            split: count - filled[split]
            for split, count in wanted.items()
            if count - filled[split] >= len(group)
        }
        split = max(room, key=lambda name: room[name]) if room else "train"
        filled[split] += len(group)
        chosen.update(dict.fromkeys(group, split))
    return replace(
        data, photos=tuple(photo.model_copy(update={"split": chosen[photo.name]}) for photo in data.photos)
    )


def leaks(data: Dataset, at_most: int = NEAR_COPY) -> list[Link]:
    """The links between photos of different splits. Photos in no split leak nothing, nor do query and gallery."""
    split = {photo.name: "task" if photo.split in TASK else photo.split for photo in data.photos}
    members: dict[str, dict[str, str]] = defaultdict(dict)
    found: list[Link] = []
    for photo in data.photos:
        if photo.claim and split[photo.name]:
            members[f"claim: {photo.claim}"].setdefault(split[photo.name], photo.name)
    for damage in data.damages:
        if damage.damage is not None and split[damage.photo]:
            members[f"damage: {damage.damage}"].setdefault(split[damage.photo], damage.photo)
    for why, by_split in members.items():
        first, *others = by_split.values()
        found.extend(Link(first, other, why) for other in others)
    for link in links(data, at_most):
        one, other = split.get(link.a), split.get(link.b)
        if one and other and one != other and not link.why.startswith(("claim", "damage")):
            found.append(link)
    return found
