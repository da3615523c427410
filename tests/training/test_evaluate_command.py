"""The commands as a user types them, without those that need torch."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from damagewatch.domain import sha256_of
from damagewatch_training.cli import evaluate, look, retrieval
from damagewatch_training.data.dataset import Dataset, PairEntry, PhotoEntry

from ..vision.models_folder import SHIPPED
from ..vision.pictures import scene

app = typer.Typer()
app.add_typer(evaluate.app, name="evaluate")
app.command("compare")(retrieval.compare)
app.command("activation-maps")(look.activation_maps)
app.command("project")(look.project)


@pytest.fixture
def shoes(tmp_path: Path) -> list[str]:
    """Options that name a task: six prints, each of its own shoe, somewhat darker."""
    rows = ["query,reference"]
    for folder in ("query", "gallery"):
        (tmp_path / folder).mkdir()
    for seed in range(6):
        image = scene(160, 120, seed)
        cv2.imwrite(str(tmp_path / "gallery" / f"{seed}.png"), image)
        cv2.imwrite(str(tmp_path / "query" / f"{seed}.png"), np.asarray(image * 0.8, np.uint8))
        rows.append(f"{seed}.png,{seed}.png")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    folders = [f"--query={tmp_path / 'query'}", f"--gallery={tmp_path / 'gallery'}"]
    return [*folders, f"--labels={tmp_path / 'labels.csv'}", f"--keep={tmp_path / 'kept'}"]


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


@pytest.mark.parametrize("command", [["evaluate"], ["evaluate", "method"]])
def test_a_method_on_a_label_table(command: list[str], shoes: list[str], tmp_path: Path) -> None:
    code, output = run(*command, "phash", *shoes, f"--out={tmp_path / 'out'}")
    assert code == 0, output
    assert "any_hit_at_1\t1.0000\t1.0000 to 1.0000" in output
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["methods"]["phash"]["map"]["value"] == 1
    assert (tmp_path / "out" / "report.html").exists()


def test_methods_side_by_side(shoes: list[str], tmp_path: Path) -> None:
    names = [f"{kind}/{seed}.png" for kind in ("query", "reference") for seed in range(6)]
    np.savez(tmp_path / "chance.npz", name=names, x=np.random.default_rng(0).standard_normal((12, 8)))
    chance = str(tmp_path / "chance.npz")
    code, output = run("compare", "phash", chance, *shoes, f"--out={tmp_path / 'out'}")
    assert code == 0, output
    head, first, second = (
        line.split("\t") for line in output.splitlines() if line.startswith(("method", "phash", chance))
    )
    assert first[head.index("map")].startswith("1.000*")
    assert "*" not in "".join(second)
    assert (tmp_path / "out" / "report.html").exists()


def test_a_map_and_where_an_embedder_looks(shoes: list[str], tmp_path: Path) -> None:
    code, output = run("project", "phash", *shoes, "--by=pca", f"--out={tmp_path / 'map.html'}")
    assert code == 0, output
    assert (tmp_path / "map.html").read_text().count("data:image/jpeg") == 12
    code, output = run("activation-maps", "phash", *shoes, "--count=1", f"--out={tmp_path / 'look.html'}")
    assert code == 0, output
    assert (tmp_path / "look.html").read_text().count("data:image/jpeg") == 4


def test_what_a_task_holds_for_a_method_that_runs_elsewhere(shoes: list[str], tmp_path: Path) -> None:
    code, output = run("evaluate", "items", tmp_path / "items.csv", *shoes)
    assert code == 0, output
    lines = (tmp_path / "items.csv").read_text().splitlines()
    assert lines[1].split(",") == [
        "query/0.png",
        str((tmp_path / "query" / "0.png").resolve()),
        "",
        "",
        "",
        "",
    ]
    assert len(lines) == 13


def test_half_a_task_is_wrong_usage(shoes: list[str]) -> None:
    code, output = run("evaluate", "phash", *shoes[:2])
    assert code == 2
    assert "--labels" in output


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data set of four photos, the last of which is a copy of the first that a person has told."""
    entries = []
    for seed in range(4):
        image = scene(400, 300, seed % 3)
        content = cv2.imencode(".png" if seed < 3 else ".jpg", image)[1].tobytes()
        (tmp_path / f"{seed}.img").write_bytes(content)
        entries.append(
            PhotoEntry(
                name=f"photo {seed}",
                file=f"{seed}.img",
                sha256=sha256_of(content),
                width=400,
                height=300,
                hashes=("0" * 16, "0" * 16),
                split="val" if seed else "train",
            )
        )
    pair = PairEntry(a="photo 0", b="photo 3", verdict="copy")
    Dataset(tmp_path, tuple(entries), (), (pair,)).save()
    return tmp_path


def test_the_chain_over_a_data_set(photos: Path, tmp_path: Path) -> None:
    common = [f"--data={photos}", f"--models={SHIPPED}", f"--keep={tmp_path / 'kept'}", "--threads=1"]
    out = tmp_path / "stream"
    words = ["--photos=3", "--rate=0.3", "--draws=2", "--mirrored=0", f"--out={out}"]
    code, output = run("evaluate", "stream", *common, *words)
    assert code == 0, output
    first = json.loads((out / "figures.json").read_text())
    assert (first["distinct_photos"], first["returns_tried"]) == (3, 2)
    assert first["returns_alerted"] + sum(first["lost"].values()) == 2
    code, output = run("evaluate", "stream", *common, *words, f"--earlier={out / 'alerts.json'}")
    assert code == 0, output
    assert json.loads((out / "figures.json").read_text()) == first

    code, output = run("evaluate", "pairs", *common, f"--out={tmp_path / 'pairs'}")
    assert code == 0, output
    assert json.loads((tmp_path / "pairs" / "figures.json").read_text())["copy"]["alerted"] == 1

    code, output = run(
        "evaluate", "copies", *common, "--photos=1", "--others=2", f"--out={tmp_path / 'copies'}"
    )
    assert code == 0, output
    figures = json.loads((tmp_path / "copies" / "figures.json").read_text())
    assert figures["re-encoded"]["alerted"] == figures["mirrored"]["said_mirrored"] == 1
