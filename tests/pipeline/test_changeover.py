"""Two embedders at once: both remember, the active one judges."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from damagewatch.domain import DependencyDownError, Reason, Refused
from damagewatch.pipeline.changeover import Changeover, Side
from damagewatch.pipeline.intake import Seen
from damagewatch.pipeline.recognition import Recognition


class Set:
    """One set of models: looks at, embeds and judges, and says who it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.judged: list[list[str]] = []
        self.embedder = SimpleNamespace(embed=f"vectors of {name}")

    def look(self, image: Any, origin: Any = None) -> Seen | Refused:
        if image == "broken":
            return Refused(Reason.NOT_AN_IMAGE, "broken", "decode")
        perceived = SimpleNamespace(name=f"{image} by {self.name}", embedded_by=lambda embed: (embed,))
        return Seen(perceived, origin)  # type: ignore[arg-type]

    def judge(self, batch: Sequence[Any], positions: Any = None) -> list[str]:
        self.judged.append(
            [getattr(item, "perceived", SimpleNamespace(name="refused")).name for item in batch]
        )
        return [f"verdict of {self.name}" for _ in batch]

    @property
    def side(self) -> Side:
        return Side(self.name, self.look, self.judge, self.embedder)  # type: ignore[arg-type]


class World:
    def __init__(self) -> None:
        self.old, self.new = Set("old"), Set("new")
        self.active: str | None = None
        self.now = 0.0
        self.changeover = Changeover(self.old.side, self.new.side, lambda: self.active, lambda: self.now)

    def look(self, image: str) -> Seen:
        seen = self.changeover.look(image)  # type: ignore[arg-type]
        assert isinstance(seen, Seen)
        return seen


@pytest.fixture
def world() -> World:
    return World()


def test_each_photo_is_described_by_both_and_judged_by_the_active_one(world: World) -> None:
    before = world.look("A")
    assert (before.collection, before.also) == ("old", ("vectors of new",))
    world.active, world.now = "new", 1.5
    after = world.look("B")
    assert (after.collection, after.also) == ("new", ("vectors of old",))
    assert world.changeover.recognise([before, after]) == ["verdict of old", "verdict of new"]
    assert world.old.judged == [["A by old"]]
    assert world.new.judged == [["B by new"]]


def test_a_switch_is_seen_within_a_second_and_may_be_taken_back(world: World) -> None:
    world.look("A")
    world.active, world.now = "new", 0.5
    assert world.look("B").collection == "old"
    world.now = 1.1
    assert world.look("C").collection == "new"
    world.active, world.now = "old", 2.2
    assert world.look("D").collection == "old"


def test_verdicts_keep_the_order_of_the_batch(world: World) -> None:
    one = world.look("A")
    refused = world.changeover.look("broken")  # type: ignore[arg-type]
    world.active, world.now = "new", 2.0
    two = world.look("B")
    verdicts = world.changeover.recognise([one, refused, two, refused, two])
    assert verdicts == [f"verdict of {name}" for name in ("old", "old", "new", "old", "new")]


@pytest.mark.parametrize("also_first", [True, False])
def test_the_next_collection_is_written_before_the_one_that_is_walked(also_first: bool) -> None:
    written: list[str] = []

    def index(name: str) -> Any:
        return SimpleNamespace(upsert=lambda sightings: written.append(f"{name}: {sightings}"))

    seen = Seen(SimpleNamespace(sightings=("own",)), None, "one", ("other",))  # type: ignore[arg-type]
    calibration: Any = None
    both = Recognition(index("index"), calibration, {}, also=index("also"), also_first=also_first)
    both.remember([seen])
    order = ["also: ['other']", "index: ['own']"]
    assert written == (order if also_first else order[::-1])


def test_each_embedder_has_its_own_vectors_whoever_judges(world: World) -> None:
    world.active = "new"
    assert world.look("A").described_in("old") == ("vectors of old",)


def test_a_collection_of_another_layout_is_said_to_be_one(world: World) -> None:
    world.active = "damages-v1-net-0123456789ab"
    with pytest.raises(DependencyDownError, match=r"another release.*layout.*upgrade\.md"):
        world.look("A")


def test_a_foreign_collection_stops_the_stream_and_says_what_to_do(world: World) -> None:
    world.active = "somebody-elses"
    with pytest.raises(DependencyDownError, match=r"somebody-elses.*new and old.*MODELS__DIRECTORY"):
        world.look("A")
