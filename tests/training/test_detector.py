"""The detector's training: losses against loops, examples, and small batches, on which an earlier system failed."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the extra `train` is not installed")

from damagewatch.domain import Box  # noqa: E402
from damagewatch_training.data.dataset import MADE_FROM, MADE_ONTO, DataRefusedError  # noqa: E402
from damagewatch_training.data.importers.found import Found, Region  # noqa: E402
from damagewatch_training.data.intake import Intake, take_all  # noqa: E402
from damagewatch_training.data.report import Report  # noqa: E402
from damagewatch_training.data.sources import Label, Photo  # noqa: E402
from damagewatch_training.detector import exported, grade, losses, teach  # noqa: E402
from damagewatch_training.detector import train as detector  # noqa: E402
from damagewatch_training.detector.examples import Examples, Photos, gather, label_map, splice  # noqa: E402
from damagewatch_training.detector.network import Detector, Network  # noqa: E402
from damagewatch_training.experiment.config import ConfigError, load  # noqa: E402
from damagewatch_training.experiment.record import OtherExperiment  # noqa: E402
from damagewatch_training.export.onnx import to_onnx  # noqa: E402

from ..vision.models_folder import SHIPPED  # noqa: E402


def naive(name: str, logits: list[float], target: list[float]) -> float:
    common = wrong = missed = entropy = focal = 0.0
    for logit, truth in zip(logits, target, strict=True):
        p = 1 / (1 + math.exp(-logit))
        common, wrong, missed = common + p * truth, wrong + p * (1 - truth), missed + (1 - p) * truth
        cross = -truth * math.log(p) - (1 - truth) * math.log(1 - p)
        entropy += cross / len(logits)
        focal += (1 - math.exp(-cross)) ** 2 * cross / len(logits)
    return {
        "dice": 1 - (2 * common + 1) / (2 * common + wrong + missed + 1),
        "tversky": 1 - (common + 0.5) / (common + 0.3 * wrong + 0.7 * missed + 0.5),
        "bce": entropy,
        "focal": focal,
    }[name]


def test_a_small_damage_weighs_by_the_root_of_its_area_and_so_does_what_is_around() -> None:
    target = torch.zeros(1, 1, 64, 64)
    target[..., 10:14, 10:14] = 1  # 16 pixels: a sixteenth of what is large
    target[..., 30:50, 30:50] = 1  # large
    certain = torch.where(target > 0, 30.0, -30.0)

    def costs(row: int, column: int) -> float:
        wrong = certain.clone()
        wrong[0, 0, row, column] *= -1
        return float(losses.sized(wrong, target)) * 64 * 64 / 30

    assert costs(12, 12) == pytest.approx(4, rel=1e-4)
    assert costs(12, 15) == pytest.approx(4, rel=1e-4)
    assert costs(12, 17) == pytest.approx(1, rel=1e-4)
    assert costs(40, 40) == pytest.approx(1, rel=1e-4)
    everywhere = torch.ones(1, 1, 64, 64)
    assert float(losses.sized(30 * everywhere, everywhere)) < 1e-6


@pytest.mark.parametrize("name", sorted(losses.PIXEL_LOSSES.keys() - {"sized"}))
def test_losses_of_pixels_are_those_of_a_naive_loop(name: str) -> None:
    rng = np.random.default_rng(3)
    logits, target = rng.normal(0, 2, 24), rng.integers(0, 2, 24).astype(float)
    shape = 2, 1, 3, 4
    found = losses.PIXEL_LOSSES[name](  # type: ignore[index]
        torch.from_numpy(logits).view(shape), torch.from_numpy(target).view(shape)
    )
    assert float(found) == pytest.approx(naive(name, logits.tolist(), target.tolist()), rel=1e-6)


def test_loss_falls_towards_the_labels_and_ignores_what_is_unlabelled() -> None:
    labels = torch.full((1, 3, 8, 8), losses.UNLABELLED, dtype=torch.uint8)
    labels[:, 0] = 0
    labels[:, :, :4] = torch.tensor([255, 1, 2], dtype=torch.uint8)[:, None, None]
    right = torch.full((1, 7, 2, 2), -20.0)
    right[0, 0, 0] = 20
    right[0, 2, 0] = right[0, 6, 0] = 20
    of = ("dice", "bce")
    assert float(losses.damage(right, labels, of)) < 0.01
    wrong = right.clone()
    wrong[0, 1:, 1] = 99  # type and severity where nothing is damaged
    assert float(losses.damage(wrong, labels, of)) == pytest.approx(float(losses.damage(right, labels, of)))
    assert float(losses.damage(-right, labels, of)) > 1


def test_a_weak_region_wants_damage_somewhere_within_and_none_outside() -> None:
    region = torch.zeros(1, 8, 8, dtype=torch.uint8)
    region[0, :, :4] = 255

    def loss(inside: tuple[float, float], outside: float) -> float:
        logits = torch.full((1, 1, 8, 8), float(outside))
        logits[0, 0, :4, :4], logits[0, 0, 4:, :4] = (float(value) for value in inside)
        return float(losses.somewhere(logits, region, share=0.5))

    assert loss((9, -9), -9) == pytest.approx(loss((9, 9), -9))  # the other half of it may be whole
    assert loss((9, -9), -9) < 0.01
    assert loss((-9, -9), -9) > 5
    assert loss((9, -9), 9) > 5


def test_a_weak_photo_without_region_is_free_of_damage() -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.uint8)
    assert float(losses.somewhere(torch.full((1, 1, 4, 4), -9.0), nothing)) < 0.01
    assert float(losses.somewhere(torch.full((1, 1, 4, 4), 9.0), nothing)) > 5


def square(x0: float, x1: float, kind: int | None) -> Label:
    corners = np.array([[x0, x0], [x1, x0], [x1, x1], [x0, x1]], np.float32)
    return Label((corners,), Box(x0, x0, x1, x1), kind, kind)


def test_label_map_keeps_a_small_damage_on_a_large_one() -> None:
    photo = Photo("photo", path=Path(), labels=(square(5, 8, 0), square(0, 20, 1)))
    labels = label_map(photo, 32, 32)
    assert labels[6, 6].tolist() == [255, 0, 0]
    assert labels[15, 15].tolist() == [255, 1, 1]
    assert labels[30, 30].tolist() == [0, losses.UNLABELLED, losses.UNLABELLED]


def test_a_spliced_damage_is_labelled_where_it_is_seen() -> None:
    source = np.full((120, 120, 3), 90, np.uint8)
    source[50:62, 50:62] = 255
    for seed in range(8):
        labels = label_map(Photo("", Path()), 120, 120)
        plain = np.full((120, 120, 3), 160, np.uint8)
        out = splice(plain, labels, source, square(50, 61, 2), np.random.default_rng(seed))
        bright, marked = out[..., 0] > 220, labels[..., 0] > 0
        assert marked.any()
        assert (labels[marked] == [255, 2, 2]).all()
        assert marked[bright].mean() > 0.85
        assert (out[~cv2.dilate(marked.astype(np.uint8), np.ones((41, 41))).astype(bool)] == 160).all()


def panel(path: Path, seed: int, damaged: bool = True) -> Photo:
    """A noisy panel with one bright damage that covers about a twentieth of it."""
    rng = np.random.default_rng(seed)
    image = rng.normal(80, 12, (96, 96, 3)).clip(0, 255).astype(np.uint8)
    x = int(rng.integers(8, 60))
    if damaged:
        image[x : x + 24, x : x + 24] = (40, 40, 240)
    cv2.imwrite(str(path), image)
    return Photo(path.name, path, (square(x, x + 23, seed % 3),) if damaged else ())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


TINY = {
    "size": 96,
    "crop": 96,
    "coarse": 0,
    "graded": 0,
    "spliced": 0.0,
    "average": 0.8,
    "epochs": 6,
    "workers": 0,
    "patience": 0,
    "pictures_every": 0,
    "rate": 5e-3,
    "encoder_rate": 2e-3,
}


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_small_batches_end_in_a_detector_that_works_when_it_is_run(norm: str, tmp_path: Path) -> None:
    # Batch statistics of two photos gave an accuracy of 94% and a Dice below 0.01: all pixels undamaged.
    photos = [panel(tmp_path / f"{n}.png", n) for n in range(16)]
    network = Network(encoder="mobilenetv3_small_050", weights="none", norm=norm)  # type: ignore[arg-type]
    settings = detector.Settings(network=network, batch=2, held_out=0.2, **TINY)  # type: ignore[arg-type]
    model = detector.train(Examples(photos), tmp_path / "run", settings, tell=lambda line: None)
    unseen = [panel(tmp_path / f"{n}.png", n) for n in range(100, 106)]
    assert detector.pixel_dice(model, unseen, 96) > 0.5


def test_a_training_that_was_stopped_ends_where_one_that_was_not_ends(tmp_path: Path) -> None:
    photos = [panel(tmp_path / f"{n}.png", n) for n in range(6)]
    network = Network(encoder="mobilenetv3_small_050", weights="none")
    whole = detector.Settings(network=network, batch=2, **TINY | {"epochs": 2})  # type: ignore[arg-type]

    class Stopped(Exception):
        pass

    def stop(line: str) -> None:
        raise Stopped

    straight = detector.train(Examples(photos), tmp_path / "a", whole, tell=lambda line: None)
    with pytest.raises(Stopped):
        detector.train(Examples(photos), tmp_path / "b", whole, tell=stop)
    resumed = detector.train(Examples(photos), tmp_path / "b", whole, tell=lambda line: None)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-5)
    with pytest.raises(OtherExperiment, match="rate"):
        other = detector.Settings(network=network, batch=2, **TINY | {"rate": 1.0})  # type: ignore[arg-type]
        detector.train(Examples(photos), tmp_path / "b", other)


def test_a_training_that_was_stopped_within_an_epoch_draws_what_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [panel(tmp_path / f"{n}.png", n) for n in range(8)]
    network = Network(encoder="mobilenetv3_small_050", weights="none")  # its head drops some
    whole = detector.Settings(network=network, batch=2, **TINY | {"epochs": 1})  # type: ignore[arg-type]
    straight = detector.train(Examples(photos), tmp_path / "a", whole, tell=lambda line: None)

    class Stopped(Exception):
        pass

    saved = detector.checkpoint.save

    def stop(path: Path, state: dict[str, object]) -> None:
        saved(path, state)
        if state["steps"] == 2:
            raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(detector, "CHECKPOINT_SECONDS", 0.0)
        patched.setattr(detector.checkpoint, "save", stop)
        detector.train(Examples(photos), tmp_path / "b", whole, tell=lambda line: None)
    resumed = detector.train(Examples(photos), tmp_path / "b", whole, tell=lambda line: None)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_nothing_that_is_held_out_is_trained_on_in_another_shape(tmp_path: Path) -> None:
    photos = [panel(tmp_path / f"{n}.png", n) for n in range(40)]
    views = [Photo(f"{n}.png~1", tmp_path / f"{n}.png", photos[n].labels) for n in range(40)]
    spliced = [Photo(f"splice-{n}", tmp_path / f"{n}.png", photos[n].labels) for n in range(39)]
    shows = {f"splice-{n}": frozenset({f"{n}.png", f"{n + 1}.png"}) for n in range(39)}
    everything = [*photos, *views, *spliced]
    kept, held_out = Examples(everything, graded=everything, shows=shows).split(0.2)

    def shown(photo: Photo) -> frozenset[str]:
        return shows.get(photo.name, frozenset({photo.name.partition("~")[0]}))

    away = {name for photo in held_out for name in shown(photo)}
    assert 2 <= len(away) <= 16
    for photo in [*kept.outlined, *kept.coarse, *kept.graded]:
        assert not shown(photo) & away
    left = {photo.name for photo in [*kept.outlined, *held_out]}
    assert {photo.name for photo in [*photos, *views]} <= left  # only what shows both is left out


def test_what_photos_show_follows_claims_and_what_they_were_made_of(tmp_path: Path) -> None:
    found = []
    for n in range(4):
        coarse = np.random.default_rng(n).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{n}.png"), cv2.resize(coarse, (120, 80), interpolation=cv2.INTER_CUBIC))
        region = Region((np.array([[10.0, 10], [60, 10], [60, 50]]),), "minor-dent")
        found.append(Found(f"{n}.png", tmp_path / f"{n}.png", "one" if n < 2 else f"c{n}", regions=(region,)))
    data = take_all(found, Intake(tmp_path / "data", Report(), split="train"))
    made = data.photos[0].model_copy(
        update={"name": "splice-1", "claim": "", "attributes": {MADE_FROM: "1.png", MADE_ONTO: "2.png"}}
    )
    view = made.model_copy(update={"name": "splice-1~1", "attributes": {MADE_FROM: "splice-1"}})
    replace(data, photos=(*data.photos, made, view)).save()
    shows = gather(tmp_path / "data").shows
    assert shows["0.png"] == shows["1.png"] != shows["2.png"] != shows["3.png"]
    assert shows["splice-1"] == shows["splice-1~1"] == shows["1.png"] | shows["2.png"]


def test_a_made_photo_parts_no_damage_from_itself_and_places_elsewhere_count(tmp_path: Path) -> None:
    for n in range(3):
        coarse = np.random.default_rng(n).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{n}.png"), cv2.resize(coarse, (120, 80), interpolation=cv2.INTER_CUBIC))
    region = Region((np.array([[10.0, 10], [60, 10], [60, 50]]),), "minor-dent", damage="d")
    found = [Found(f"{n}.png", tmp_path / f"{n}.png", f"c{n}", regions=(region,)) for n in range(2)]
    found.append(Found("2.png", tmp_path / "2.png", "c2"))
    data = take_all(found, Intake(tmp_path / "data", Report(), split="train"))
    one, two = data.damages
    view = data.photos[0].model_copy(update={"name": "0.png~1", "attributes": {MADE_FROM: "0.png"}})
    spliced = [
        view.model_copy(
            update={"name": f"s{n}", "attributes": {MADE_FROM: f"{n}.png", MADE_ONTO: "elsewhere"}}
        )
        for n in (0, 2)
    ]
    between = one.model_copy(update={"id": "0.png~1#1", "photo": "0.png~1"})
    replace(data, photos=(*data.photos, view, *spliced), damages=(one, between, two)).save()
    shows = gather(tmp_path / "data").shows
    assert shows["0.png"] == shows["1.png"] == shows["0.png~1"] != shows["2.png"]
    assert shows["s0"] & shows["s2"] == {"elsewhere"}


def test_a_split_that_takes_the_only_coarse_photo_trains_without(tmp_path: Path) -> None:
    photos = [panel(tmp_path / f"{n}.png", n) for n in range(12)]
    shows = {"coarse": frozenset({photo.name for photo in photos})}
    examples = Examples(photos, coarse=[replace(photos[0], name="coarse")], shows=shows)
    assert examples.split(0.2)[1]
    network = Network(encoder="mobilenetv3_small_050", weights="none")
    settings = detector.Settings(  # type: ignore[arg-type]
        network=network, batch=2, held_out=0.2, **TINY | {"coarse": 1, "epochs": 1}
    )
    detector.train(examples, tmp_path / "run", settings, tell=lambda line: None)


class Reddish(torch.nn.Module):
    """Takes red for damage, surely, in logits of a quarter of the side."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        red = (images[:, :1] > 0.5) & (images[:, 1:2] < 0)
        return torch.nn.functional.avg_pool2d(12.0 * red - 6.0, 4), torch.zeros(len(images), 3)


@pytest.mark.parametrize(("height", "width"), [(200, 300), (300, 200), (256, 256)])
def test_teachers_mark_a_damage_where_it_is_in_a_photo_of_any_shape(height: int, width: int) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    image[40:100, 20:80] = (30, 30, 240)
    seen = teach.probability([Reddish(), Reddish()], image)
    assert seen.shape == (height, width)
    assert seen[48:92, 28:72].min() > 0.5
    away = np.ones(seen.shape, bool)
    away[28:112, 8:92] = False
    assert seen[away].max() < 0.1


def test_only_photos_that_nobody_outlined_are_taught_and_their_maps_are_made_once(tmp_path: Path) -> None:
    outlined = [panel(tmp_path / "a.png", 1)]
    other = panel(tmp_path / "b.png", 2)
    examples = Examples(outlined, coarse=[other], graded=[other, *outlined])
    assert [photo.name for photo in examples.unlabelled] == ["b.png"]
    assert examples.taught == []
    maps = dict(teach.write([Reddish()], examples.unlabelled, tmp_path / "taught"))
    written = cv2.imread(str(maps["b.png"]), cv2.IMREAD_GRAYSCALE)
    box = other.labels[0].box
    assert written[int(box.y0) + 8 : int(box.y1) - 8, int(box.x0) + 8 : int(box.x1) - 8].min() > 127
    again = teach.write([], examples.unlabelled, tmp_path / "taught")  # no teacher is asked again
    assert dict(again) == maps


def test_a_detector_learns_from_its_teachers_maps(tmp_path: Path) -> None:
    outlined = [panel(tmp_path / f"{n}.png", n, damaged=False) for n in range(2)]
    unlabelled = [panel(tmp_path / f"{n}.png", n) for n in range(2, 18)]
    maps = dict(teach.write([Reddish()], unlabelled, tmp_path / "taught"))
    network = Network(encoder="mobilenetv3_small_050", weights="none")
    settings = detector.Settings(  # type: ignore[arg-type]
        network=network, batch=1, taught=8, held_out=0.0, **TINY | {"epochs": 24}
    )
    model = detector.train(
        Examples(outlined, coarse=unlabelled, maps=maps), tmp_path / "run", settings, tell=lambda line: None
    )
    unseen = [panel(tmp_path / f"{n}.png", n) for n in range(100, 106)]
    assert detector.pixel_dice(model, unseen, 96) > 0.5


def test_a_map_of_another_photo_is_refused_by_name(tmp_path: Path) -> None:
    photo = panel(tmp_path / "a.png", 1)
    cv2.imwrite(str(tmp_path / "map.png"), np.zeros((5, 5), np.uint8))
    maps = {"a.png": tmp_path / "map.png"}
    made = Photos([photo], {}, maps, 96, 64, (0.6, 1.6), whole=False, spliced=0.0, seed=(1,))
    with pytest.raises(DataRefusedError, match=r"map\.png is no map of a\.png"):
        made[0]


@pytest.mark.parametrize("setting", ["rate", "encoder_rate"])
@pytest.mark.parametrize("value", ["0", "-1e-3", "1e9", "inf", "nan"])
def test_a_rate_out_of_range_is_refused_by_name(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{setting}:"):
        load(None, [f"{setting}={value}"], detector.Settings)


def test_frozen_statistics_stay_while_a_batch_passes() -> None:
    model = Detector(Network(encoder="mobilenetv3_small_050", weights="none", norm="frozen")).train()
    norms = [module for module in model.encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    model(torch.rand(2, 3, 64, 64))
    assert norms
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


def test_group_norm_leaves_no_batch_statistics() -> None:
    model = Detector(
        Network(architecture="unet", encoder="mobilenetv3_small_050", weights="none", norm="group")
    )
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    pixels, photo = model.eval()(torch.rand(1, 3, 64, 64))
    assert pixels.shape == (1, 7, 64, 64)
    assert photo.shape == (1, 3)


def test_items_repeat_for_a_seed_and_change_with_it(tmp_path: Path) -> None:
    photos = [panel(tmp_path / f"{n}.png", n) for n in range(3)]

    def item(epoch: int) -> np.ndarray:
        made = Photos(photos, {"1.png": 2}, {}, 96, 64, (0.6, 1.6), whole=False, spliced=0.9, seed=(1, epoch))
        assert [made[i][2] for i in range(3)] == [losses.UNLABELLED, 2, losses.UNLABELLED]
        return made[1][0].numpy()

    assert (item(0) == item(0)).all()
    assert (item(0) != item(1)).any()


def test_a_part_without_damage_is_labelled_free_of_it_and_a_photo_without_such_a_part_is_shown_whole(
    tmp_path: Path,
) -> None:
    half = panel(tmp_path / "half.png", 1, damaged=False)
    half = Photo(half.name, half.path, (square(0, 30, 2),))
    full = Photo(half.name, half.path, (square(2, 93, 2),))
    for epoch in range(12):
        made = Photos(
            [half, full], {}, {}, 96, 64, (0.6, 1.6), whole=True, spliced=0.0, seed=(1, epoch), undamaged=True
        )
        assert (made[0][1][0] == 0).all()
        assert (made[1][1][0] == 255).float().mean() > 0.3


def test_a_detector_that_learns_what_is_no_damage_still_finds_damages(tmp_path: Path) -> None:
    photos = [panel(tmp_path / f"{n}.png", n) for n in range(16)]
    network = Network(encoder="mobilenetv3_small_050", weights="none")
    longer = TINY | {"epochs": 10}
    settings = detector.Settings(network=network, batch=2, undamaged=1, held_out=0.2, **longer)  # type: ignore[arg-type]
    model = detector.train(Examples(photos), tmp_path / "run", settings, tell=lambda line: None)
    unseen = [panel(tmp_path / f"{n}.png", n) for n in range(100, 106)]
    assert detector.pixel_dice(model, unseen, 96) > 0.5


def test_the_photos_head_tells_grades_apart_after_its_fit() -> None:
    model = Detector(Network(encoder="mobilenetv3_small_050", weights="none")).eval()
    rng = np.random.default_rng(0)
    size = model.photo[0].normalized_shape[0]
    centres = rng.normal(0, 1, (3, size))
    grades = rng.integers(0, 3, 240)
    features = (centres[grades] + rng.normal(0, 1, (240, size))).astype(np.float32)
    grade.fit(model, features[:200], grades[:200])
    with torch.inference_mode():
        found = model.photo(torch.from_numpy(features[200:])).argmax(1).numpy()
    assert (found == grades[200:]).mean() > 0.9


def test_grades_that_hardly_occur_are_not_learned() -> None:
    assert not grade.enough(np.array([0] * 9 + [1] * 9 + [2] * 4))
    assert grade.enough(np.array([0] * 9 + [1] * 9 + [2] * 5))


def test_an_exported_detector_is_trained_on_from_where_it_was(tmp_path: Path) -> None:
    settings = Network(weights="none")
    torch.manual_seed(0)
    model = Detector(settings)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (96, 128, 3)).astype(np.uint8) for _ in range(4)]
    inputs = torch.randn(8, 3, 64, 64).clamp(-1, 1)
    model.pixels.decoder.train()
    for _ in range(20):  # norms that are not the identity
        model(inputs)
    folder = models_in(tmp_path, model.eval())
    again = exported.detector(folder, settings, images)
    with torch.inference_mode():
        for ours, theirs in zip(model(inputs), again(inputs), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-3)
        for norm in again.pixels.decoder.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                assert float(norm.running_var.min()) > 0
    with pytest.raises(DataRefusedError, match="other shapes"):
        exported.detector(folder, Network(architecture="unet", weights="none"), images)


def models_in(folder: Path, model: Detector) -> Path:
    """A folder of models with this detector, at 64 pixels."""
    shutil.copytree(SHIPPED, folder / "models")
    to_onnx(model, torch.zeros(1, 3, 64, 64), ["logits", "severity"], folder / "models" / "detector.onnx")
    path = folder / "models" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["detector"]["input"]["size"] = 64
    path.write_text(json.dumps(manifest))
    return folder / "models"
