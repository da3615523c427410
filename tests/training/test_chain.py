from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import Box
from damagewatch.vision.decode import Photo as Decoded
from damagewatch.vision.models import Models
from damagewatch_training.data.dataset import DataRefusedError
from damagewatch_training.data.sources import Pair, Photo
from damagewatch_training.evaluate import alterations, copies, known_pairs, stream
from damagewatch_training.evaluate.chain import Told, in_order, open_chain, readers
from damagewatch_training.evaluate.kept import keeping

from ..vision.models_folder import SHIPPED, shipped
from ..vision.pictures import scene

BOX = Box(0, 0, 1, 1)


def told(query: str, match: str, mirrored: bool = False) -> Told:
    return Told(query, match, "SAME_DAMAGE", mirrored, 0.9, BOX, BOX)


@pytest.mark.parametrize("kind", alterations.KINDS)
def test_an_alteration_changes_a_picture_and_is_the_same_again(kind: str) -> None:
    image = scene(200, 150)
    before = image.copy()
    first, second = (alterations.KINDS[kind](image, np.random.default_rng(3)) for _ in range(2))
    assert (image == before).all()
    assert (first == second).all()
    assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3
    assert first.shape != image.shape or (first != image).mean() > 0.1


def test_a_crop_keeps_its_share_and_a_mirror_image_turns_back() -> None:
    image, rng = scene(200, 150), np.random.default_rng(0)
    assert alterations.cropped(image, rng).shape == (90, 120, 3)
    assert (alterations.mirrored(alterations.mirrored(image, rng), rng) == image).all()


def test_what_a_model_answered_is_not_asked_again(tmp_path: Path) -> None:
    models = shipped()
    asked: list[Box] = []

    class Counting:
        def embed(self, photo: Decoded, window: Box) -> np.ndarray:
            asked.append(window)
            return models.embedder.embed(photo, window)

    counted = Models(
        models.manifest,
        models.detector,
        Counting(),
        models.local_features,
        models.providers,  # type: ignore[arg-type]
    )
    photo, window = Decoded(scene(320, 240), 320, 240, 1.0), Box(10, 20, 200, 220)
    for _ in range(2):  # the second time from the folder alone
        kept = keeping(counted, tmp_path)
        assert (kept.embedder.embed(photo, window) == models.embedder.embed(photo, window)).all()
        assert kept.detector.detect(photo) == models.detector.detect(photo)
        for mirror in (False, True):
            ours = kept.local_features.extract(photo, window, mirror)
            theirs = models.local_features.extract(photo, window, mirror)
            assert (ours.points == theirs.points).all() and (ours.descriptors == theirs.descriptors).all()
    assert asked == [window]
    kept.embedder.embed(Decoded(scene(320, 240, 1), 320, 240, 1.0), window)
    kept.embedder.embed(photo, Box(10, 20, 200, 221))
    assert len(asked) == 3


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4))
def test_in_order(items: list[int], threads: int) -> None:
    assert list(in_order(lambda x: -x, items, threads)) == [-x for x in items]


def test_a_picture_sent_in_again_is_found_among_others(tmp_path: Path) -> None:
    photos = []
    for seed in range(3):
        path = tmp_path / f"{seed}.png"
        cv2.imwrite(str(path), scene(400, 300, seed))
        photos.append(Photo(f"photo {seed}", path))
    with open_chain(SHIPPED, tmp_path / "kept", threads=1) as chain:
        assert [reference.photo_id for reference in chain.remember(readers(photos))] == [
            p.name for p in photos
        ]
        content = copies.altered(photos[1], "re-encoded", seed=1)
        assert content == copies.altered(photos[1], "re-encoded", seed=1)
        turned = copies.altered(photos[2], "mirrored", seed=1)
        answers = dict(chain.ask([("again", lambda: content), ("turned", lambda: turned)]))
        assert [(one.match, one.mirrored) for one in answers["again"]] == [("photo 1", False)]
        assert [(one.match, one.mirrored) for one in answers["turned"]] == [("photo 2", True)]
        assert chain.candidates(chain.look("again", content)) >= {"photo 1"}


def drawn(alerts: dict[str, Sequence[Told]], seed: int = 0) -> stream.Draw:
    asked = stream.Asked(tuple(f"p{i}" for i in range(4)), {"p0": "again"}, alerts, {})
    return stream.draw(asked, 4, 0.25, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(5))
def test_an_alert_counts_once_the_other_photo_came(seed: int) -> None:
    # Each of a pair names the other: whichever comes later alerts, so it is one false alert in any order.
    found = drawn({"again": [told("again", "p0")], "p1": [told("p1", "p2")], "p2": [told("p2", "p1")]}, seed)
    assert found == stream.Draw(photos=5, returns=1, right=1, false=1)


@given(st.integers(1, 40), st.floats(0.01, 1), st.integers(0, 9))
def test_every_draw_has_the_returns_that_the_rate_wants(count: int, rate: float, seed: int) -> None:
    photos = tuple(f"p{i}" for i in range(40))
    wanted = stream.returns_wanted(count, rate)
    asked = stream.Asked(photos, {name: f"again {name}" for name in photos[:wanted]}, {}, {})
    drawn = stream.draw(asked, count, rate, np.random.default_rng(seed))
    assert (drawn.returns, drawn.photos) == (wanted, count + wanted)
    assert stream.figures([drawn])["recall"] == 0
    few = asked.without({photos[0]})
    with pytest.raises(DataRefusedError, match=f"{wanted} of {count} photos"):
        stream.draw(few, count, rate, np.random.default_rng(seed))


def test_a_return_that_names_another_photo_is_a_false_alert() -> None:
    assert drawn({}) == stream.Draw(5, 1, 0, 0)
    later = [drawn({"again": [told("again", "p3")]}, seed) for seed in range(20)]
    assert all(d.right == 0 for d in later)
    assert {d.false for d in later} == {0, 1}  # p3 may come after it


def test_what_was_said_is_kept_and_photos_can_be_taken_out(tmp_path: Path) -> None:
    alerts = {"p0": [told("p0", "p1")], "p1": [told("p1", "p0")], "again": [told("again", "p0")], "p2": []}
    asked = stream.Asked(("p0", "p1", "p2"), {"p0": "again", "p2": "too"}, alerts, {"p2": "geometry"})
    asked.save(tmp_path / "alerts.json")
    assert stream.Asked.load(tmp_path / "alerts.json") == asked
    left = asked.without({"p0"})
    assert left == stream.Asked(("p1", "p2"), {"p2": "too"}, {"p1": [], "p2": []}, {"p2": "geometry"})
    (tmp_path / "alerts.json").write_text('{"photos": 3}')
    with pytest.raises(DataRefusedError, match="not the alerts of"):
        stream.Asked.load(tmp_path / "alerts.json")


def test_figures_of_streams() -> None:
    figures = stream.figures([stream.Draw(1000, 3, 3, 0), stream.Draw(1000, 3, 2, 1)])
    assert figures["precision"] == round(5 / 6, 4)
    assert figures["recall"] == round(5 / 6, 4)
    assert figures["false_alerts_in_1000_photos"] == 0.5
    assert stream.losses(["geometry", "detect", "geometry"]) == {
        "detect": 1,
        "candidate": 0,
        "geometry": 2,
        "judgement": 0,
    }


def test_figures_of_copies() -> None:
    said = [
        copies.Altered("a", "mirrored", told("x", "a", mirrored=True)),
        copies.Altered("b", "mirrored", told("x", "b")),
        copies.Altered("c", "mirrored", None, "candidate"),
    ]
    figures = copies.figures(said)["mirrored"]
    assert (figures["photos"], figures["alerted"], figures["said_mirrored"]) == (3, 0.6667, 0.5)
    assert (figures["lost_candidate"], figures["lost_judgement"]) == (1, 0)


def test_a_pair_is_alerted_whichever_photo_tells() -> None:
    alerts = {"a": [told("a", "c")], "b": [told("b", "a")], "c": []}
    said = known_pairs.alerted([Pair("a", "b", "same"), Pair("b", "c", "diff")], alerts)
    assert [answer is not None for _, answer in said] == [True, False]
    assert known_pairs.figures(said)["same"] == {"pairs": 1, "alerted": 1.0, "said_mirrored": 0.0}
