"""The embedder: losses against naive loops, networks, and a training that is killed. Skipped without torch."""

from __future__ import annotations

import copy
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
pytest.importorskip("pytorch_metric_learning", reason="the extra `train` is not installed")
pytest.importorskip("lightning_fabric", reason="the extra `train` is not installed")

from damagewatch_training.data import naming  # noqa: E402
from damagewatch_training.data.dataset import DataRefusedError  # noqa: E402
from damagewatch_training.embedder import examples as sources  # noqa: E402
from damagewatch_training.embedder import osnet, train  # noqa: E402
from damagewatch_training.embedder.augment import PLAIN, Augment  # noqa: E402
from damagewatch_training.embedder.losses import AveragePrecision, Metric, distillation  # noqa: E402
from damagewatch_training.embedder.network import ALIASES, Embedder, GeM, Network  # noqa: E402
from damagewatch_training.experiment import config, record  # noqa: E402
from damagewatch_training.experiment.schedule import warm_cosine  # noqa: E402

IDENTITY = [0, 0, 1, 1, 2, 2, 2]


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_distillation_is_that_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    teacher, student, window = unit(rng, 6, 4), unit(rng, 3, 4), [4, 0, 2]
    regression = contrast = relational = 0.0
    for i, w in enumerate(window):
        regression += (1 - student[i] @ teacher[w]) / 3
        kept = [j for j in range(6) if j == w or teacher[w] @ teacher[j] <= 0.3]
        total = sum(math.exp(student[i] @ teacher[j] / 0.1) for j in kept)
        contrast -= math.log(math.exp(student[i] @ teacher[w] / 0.1) / total) / 3
        for k, v in enumerate(window):
            relational += (student[i] @ student[k] - teacher[w] @ teacher[v]) ** 2 / 9
    found = distillation(
        torch.from_numpy(student),
        torch.tensor(window),
        torch.from_numpy(teacher),
        temperature=0.1,
        relational=2.0,
        alike=0.3,
    )
    assert float(found) == pytest.approx(regression + 0.5 * contrast + 2.0 * relational, rel=1e-4)


def pairs(x: np.ndarray) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    both = [(i, j) for i, j in itertools.permutations(range(len(x)), 2)]
    same = [(i, j) for i, j in both if IDENTITY[i] == IDENTITY[j]]
    return same, [pair for pair in both if pair not in same]


def naive_triplet(x: np.ndarray) -> float:
    """Of each view its least alike own and its most alike other, margin 0.2; the mean of those above zero."""
    losses = []
    for i in range(len(x)):
        own = min(x[i] @ x[j] for j in range(len(x)) if j != i and IDENTITY[j] == IDENTITY[i])
        other = max(x[i] @ x[j] for j in range(len(x)) if IDENTITY[j] != IDENTITY[i])
        losses.append(max(other - own + 0.2, 0))
    positive = [loss for loss in losses if loss > 0]
    return sum(positive) / len(positive) if positive else 0.0


def naive_contrastive(x: np.ndarray) -> float:
    same, other = pairs(x)
    near = [max(1.0 - x[i] @ x[j], 0) for i, j in same]
    far = [max(x[i] @ x[j] - 0.4, 0) for i, j in other]
    return sum(sum(part) / max(sum(v > 0 for v in part), 1) for part in (near, far))


def naive_supcon(x: np.ndarray) -> float:
    total = 0.0
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        own = [j for j in others if IDENTITY[j] == IDENTITY[i]]
        below = sum(math.exp(x[i] @ x[j] / 0.1) for j in others)
        total -= sum(math.log(math.exp(x[i] @ x[j] / 0.1) / below) for j in own) / len(own)
    return total / len(x)


def naive_multi_similarity(x: np.ndarray) -> float:
    total = 0.0
    for i in range(len(x)):
        own = [x[i] @ x[j] for j in range(len(x)) if j != i and IDENTITY[j] == IDENTITY[i]]
        other = [x[i] @ x[j] for j in range(len(x)) if IDENTITY[j] != IDENTITY[i]]
        hard_own = [s for s in own if s - 0.1 < max(other)]
        hard_other = [s for s in other if s + 0.1 > min(own)]
        total += math.log(1 + sum(math.exp(-2 * (s - 0.5)) for s in hard_own)) / 2
        total += math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in hard_other)) / 50
    return total / len(x)


@pytest.mark.parametrize(
    ("name", "naive"),
    [
        ("triplet", naive_triplet),
        ("contrastive", naive_contrastive),
        ("supcon", naive_supcon),
        ("multi_similarity", naive_multi_similarity),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metric_losses_are_those_of_naive_loops(name: str, naive, seed: int) -> None:
    x = unit(np.random.default_rng(seed), 7, 4)
    found = Metric(name, 3, 4)(torch.from_numpy(x), torch.tensor(IDENTITY))  # type: ignore[arg-type]
    assert float(found) == pytest.approx(naive(x.astype(np.float64)), rel=1e-4)


MARGIN = math.radians(28.6)


def naive_arcface(x: np.ndarray, centres: np.ndarray) -> float:
    """Of unit vectors (7, D) and centres (3, D), at scale 32.

    cos(angle + margin) rises again where that is past 180 degrees. There the authors' code takes
    cos(angle) - margin * sin(margin), which goes on falling (insightface, without `easy_margin`).
    """
    total = 0.0
    for i, own in enumerate(IDENTITY):
        logits = [float(x[i] @ centre) for centre in centres]
        angle = math.acos(logits[own])
        past = angle + MARGIN > math.pi
        logits[own] = math.cos(angle) - MARGIN * math.sin(MARGIN) if past else math.cos(angle + MARGIN)
        total -= math.log(math.exp(32 * logits[own]) / sum(math.exp(32 * logit) for logit in logits))
    return total / len(x)


def arcface(centres: np.ndarray) -> Metric:
    metric = Metric("arcface", *centres.shape)
    with torch.no_grad():
        metric.loss.W.copy_(torch.from_numpy(centres.T))
    return metric


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("past", [False, True])
def test_arcface_is_that_of_a_naive_loop(past: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = unit(rng, 3, 4)
    towards, spread = (-1.0, 0.2) if past else (1.0, 0.9)
    x = (towards * centres[IDENTITY] + spread * unit(rng, 7, 4)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    angles = np.arccos((x * centres[IDENTITY]).sum(1))
    assert ((angles + MARGIN > math.pi) == past).all()
    found = arcface(centres)(torch.from_numpy(x), torch.tensor(IDENTITY)).detach()
    expected = naive_arcface(x.astype(np.float64), centres.astype(np.float64))
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_arcface_rises_with_the_angle_all_the_way() -> None:
    metric = arcface(np.eye(3, 4, dtype=np.float32))
    angles = np.radians(np.arange(60, 180))
    x = np.zeros((len(angles), 4), np.float32)
    x[:, 0], x[:, 3] = np.cos(angles), np.sin(angles)  # away from one centre, and no nearer to the others
    losses = [float(metric(torch.from_numpy(row[None]), torch.tensor([0])).detach()) for row in x]
    assert all(a < b for a, b in itertools.pairwise(losses))


def test_average_precision_is_that_of_a_naive_loop() -> None:
    x = unit(np.random.default_rng(3), 7, 4).astype(np.float64)
    bins, losses = 40, []
    centres = np.linspace(1, -1, bins)
    for i in range(7):
        others = [j for j in range(7) if j != i]
        soft = {j: [max(1 - abs(x[i] @ x[j] - c) / (2 / (bins - 1)), 0) for c in centres] for j in others}
        own = [j for j in others if IDENTITY[j] == IDENTITY[i]]
        seen = right = score = 0.0
        for b in range(bins):
            here = sum(soft[j][b] for j in own)
            seen, right = seen + sum(soft[j][b] for j in others), right + here
            score += here * right / max(seen, 1e-9)
        losses.append(1 - score / len(own))
    found = AveragePrecision(bins)(torch.from_numpy(x).float(), torch.tensor(IDENTITY))
    assert float(found) == pytest.approx(np.mean(losses), abs=1e-4)


@pytest.mark.parametrize(("identities", "views"), [(3, 3), (8, 4), (16, 2)])
def test_average_precision_of_a_perfect_ranking_is_one(identities: int, views: int) -> None:
    """Where the library's smooth average precision gives 0.28 to 0.33 (version 2.9.0)."""
    x = torch.eye(identities).repeat_interleave(views, 0)
    found = AveragePrecision()(x, torch.arange(identities).repeat_interleave(views))
    assert float(found) == pytest.approx(0, abs=1e-5)


def test_average_precision_falls_when_it_is_followed() -> None:
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(7, 4), dim=1).requires_grad_()
    optimiser = torch.optim.SGD([x], 0.5)
    seen = []
    for _ in range(60):
        loss = AveragePrecision()(torch.nn.functional.normalize(x, dim=1), torch.tensor(IDENTITY))
        seen.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert seen[-1] < seen[0] - 0.2


def test_a_memory_compares_with_earlier_batches() -> None:
    rng = np.random.default_rng(0)
    first, second = (torch.from_numpy(unit(rng, 4, 4)) for _ in range(2))
    metric, plain = Metric("contrastive", 4, 4, memory=8), Metric("contrastive", 4, 4)
    identity = torch.tensor([0, 0, 1, 1])
    assert float(metric(first, identity)) == pytest.approx(float(plain(first, identity)))
    assert float(metric(second, identity)) != pytest.approx(float(plain(second, identity)))
    with pytest.raises(ValueError, match="arcface uses no memory"):
        Metric("arcface", 4, 4, memory=8)


def test_gem_is_the_average_at_power_one_and_nears_the_maximum() -> None:
    maps = torch.rand(2, 3, 5, 5)
    assert torch.allclose(GeM(1.0)(maps), maps.mean((2, 3)), atol=1e-6)
    assert torch.allclose(GeM(60.0)(maps), maps.amax((2, 3)), rtol=0.1)


BACKBONES = [*osnet.VARIANTS, *ALIASES, "resnet18", "resnet50", "resnet101", "efficientnet_b4"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_networks_give_unit_vectors(backbone: str) -> None:
    model = Embedder(Network(backbone, "gem", 32, weights="none")).eval()
    with torch.inference_mode():
        out = model(torch.rand(2, 3, 64, 64))
    assert out.shape == (2, 32)
    assert torch.allclose(out.norm(dim=1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("pooling", ["average", "gem"])
def test_networks_take_any_size(pooling: str) -> None:
    model = Embedder(Network("osnet_x0_25", pooling, 32)).eval()  # type: ignore[arg-type]
    for size in (32, 80):
        assert model(torch.rand(2, 3, size, size)).shape == (2, 32)


def test_osnet_has_the_size_of_the_paper() -> None:
    """2.2 million parameters for x1_0, 0.2 million for x0_25 (table 8 of the paper), the head counted."""
    counts = {
        name: sum(p.numel() for p in Embedder(Network(name)).parameters()) / 1e6
        for name in ("osnet_x1_0", "osnet_x0_25")
    }
    assert counts["osnet_x1_0"] == pytest.approx(2.2, abs=0.1)
    assert counts["osnet_x0_25"] == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize("backbone", ["osnet_x9", "no_such_net", "vit_tiny_patch16_224"])
def test_a_backbone_that_does_not_fit_is_refused_by_name(backbone: str) -> None:
    with pytest.raises(ValueError, match=backbone):
        Embedder(Network(backbone, weights="none"))


def test_channels_are_found_where_they_come_last() -> None:
    model = Embedder(Network("sequencer2d_s", dimension=8, weights="none")).eval()
    for size in (64, 96):
        assert model(torch.rand(1, 3, size, size)).shape == (1, 8)


def test_a_backbone_that_keeps_what_it_computed_can_be_averaged() -> None:
    model = Embedder(Network("efficientvit_m0", dimension=8, weights="none"))
    copy.deepcopy(model)


def test_all_that_is_trained_takes_part() -> None:
    model = Embedder(Network("mobilenetv3_small_050", dimension=8, weights="none")).train()
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_frozen_statistics_stay_while_the_network_trains() -> None:
    model = Embedder(Network("efficientnet_lite0", norm="frozen", dimension=16)).train()
    before = {name: value.clone() for name, value in model.features.named_buffers()}
    model(torch.rand(4, 3, 64, 64))
    assert all(torch.equal(before[name], value) for name, value in model.features.named_buffers())


def test_augmenting_keeps_shape_and_changes_pixels() -> None:
    view = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    assert np.array_equal(
        PLAIN(view, 50, np.random.default_rng(0)), cv2.resize(view, (50, 50), interpolation=3)
    )
    for seed in range(40):
        out = Augment(*(1.0,) * 9)(view, 32, np.random.default_rng(seed))
        assert out.shape == (32, 32, 3)
        assert out.dtype == np.uint8


def crops(folder: Path, damages: int = 12, views: int = 3) -> Path:
    """Damages that differ in colour and in where a spot lies."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for damage in range(damages):
        colour, spot = rng.integers(30, 220, 3), rng.integers(8, 40, 2)
        for image in range(views):
            picture = np.full((48, 48, 3), colour, np.uint8)
            picture[spot[0] : spot[0] + 6, spot[1] : spot[1] + 6] = 255 - colour
            noisy = np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / naming.name(f"damage{damage}", str(image))), noisy)
    return folder


SMALL = [
    "network.backbone=osnet_x0_25",
    "network.dimension=16",
    "teacher.weight=0",
    "sizes=[[1.0, 32]]",
    "epochs=2",
    "identities=4",
    "metric.memory=12",
    "held_out=0.25",
    "patience=0",
    "precision=32-true",
]


def test_named_crops_are_read_by_damage(tmp_path: Path) -> None:
    found = sources.named(crops(tmp_path / "crops", 3, 2))
    assert [view.shape for view in found.views] == [(2, sources.SIZE, sources.SIZE, 3)] * 3
    known, held_out = found.split(0.34, 1)
    assert len(held_out) == 1
    assert not set(known) & set(held_out)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataRefusedError, match=r"damageid_imageid\.jpg"):
        sources.named(tmp_path / "other")


def test_training_learns_and_leaves_a_record_and_a_model(tmp_path: Path) -> None:
    examples = sources.named(crops(tmp_path / "crops"))
    settings = config.load(
        None, [*SMALL, "epochs=4", "whiten.name=learned", "whiten.dimension=8"], train.Settings
    )
    told: list[str] = []
    model = train.train(examples, tmp_path / "run", settings, tell=told.append)
    assert len(told) == 4
    entry = record.read(tmp_path / "run")
    assert entry is not None
    assert entry["config"] == config.resolved(settings)
    assert len(entry["map_held_out"]) == 4
    assert entry["onnx_cosine"] > 0.9999
    assert (tmp_path / "run" / "embedder.onnx").exists()
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 8)
    with pytest.raises(record.OtherExperiment, match="identities was 4"):
        train.train(examples, tmp_path / "run", config.load(None, [*SMALL, "identities=5"], train.Settings))
    # Another one starts from its weights before the whitening.
    later = config.load(None, [*SMALL, "epochs=1"], train.Settings)
    train.train(examples, tmp_path / "later", later, start=tmp_path / "run", tell=lambda line: None)
    other = config.load(None, [*SMALL, "network.dimension=24"], train.Settings)
    with pytest.raises(config.ConfigError, match="--start holds another network"):
        train.train(examples, tmp_path / "other", other, start=tmp_path / "run")


RUN = """
import sys
from pathlib import Path
from damagewatch_training.embedder import examples, train
from damagewatch_training.experiment import config
import torch
torch.set_num_threads(1)
train.CHECKPOINT_SECONDS = 0.0
train.train(
    examples.named(Path(sys.argv[1])), Path(sys.argv[2]), config.load(None, sys.argv[3:], train.Settings)
)
"""


@pytest.mark.timeout(300)
def test_a_training_that_is_killed_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    folder = crops(tmp_path / "crops")
    words = [*SMALL, "epochs=12"]

    def whole(run: Path) -> dict[str, torch.Tensor]:
        torch.set_num_threads(1)  # as the other process has: the order of sums
        settings = config.load(None, words, train.Settings)
        return train.train(sources.named(folder), run, settings).state_dict()

    killed = subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(tmp_path / "killed"), *words])
    deadline = time.monotonic() + 240
    while not (tmp_path / "killed" / train.CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert (tmp_path / "killed" / train.CHECKPOINT).exists()
    threads = torch.get_num_threads()
    try:
        expected, found = whole(tmp_path / "whole"), whole(tmp_path / "killed")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for override, named in (
        ("sizes=[[0.5, 64]]", "end with 1.0"),
        ("sizes=[[0.9, 64], [0.5, 96], [1.0, 96]]", "must rise"),
        ("metric={name='arcface', memory=9}", "metric.memory"),
        ("metric={name='contrastive', memory=9}", "less than one batch"),
        ("whiten={name='learned', dimension=600}", "whiten.dimension"),
        ("metric.name=smooth", "metric.name"),
    ):
        with pytest.raises(config.ConfigError, match=named):
            config.load(None, [override], train.Settings)


@pytest.mark.parametrize("updates", [1, 50, 3000])
def test_the_mean_of_the_weights_forgets_the_start(updates: int) -> None:
    mean = torch.zeros(3)
    for number in range(1, updates + 1):
        train._running_mean(0.998, [mean], [torch.ones(3)], torch.tensor(number))
    assert float(mean[0]) > (0.8 if updates == 1 else 0.99)
    train._running_mean(0.0, [mean], [torch.full((3,), 7.0)], torch.tensor(9))
    assert torch.equal(mean, torch.full((3,), 7.0))


def test_rate_rises_then_falls() -> None:
    rates = [warm_cosine(p) for p in np.linspace(0, 1, 101)]
    top = rates.index(max(rates))
    assert rates[0] < 0.05
    assert 3 <= top <= 8
    assert all(a >= b for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
    assert rates[-1] < 0.01
