"""The command line as its user meets it: help that teaches, exit codes, JSON that is a contract, no tracebacks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from damagewatch.domain import PhotoRef, Reason, Refused
from damagewatch.synthesis.rephotograph import rephotograph

COMMANDS = (
    [],
    ["demo"],
    ["publish"],
    ["matcher"],
    ["alerts"],
    ["search"],
    ["erase"],
    ["dlq"],
    ["dlq", "list"],
    ["dlq", "show"],
    ["dlq", "replay"],
    ["scan"],
    ["detect"],
    ["embed"],
    ["compare"],
    ["rephotograph"],
    ["settings"],
    ["models", "list"],
    ["models", "verify"],
    ["kafka", "up"],
    ["topics", "create"],
)


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real program, without a terminal."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DAMAGEWATCH_")}
    return subprocess.run(
        [sys.executable, "-m", "damagewatch", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        env=clean | environment,
        check=False,
    )


def textured(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A picture with much to match on, and nothing in common with that of another seed."""
    rng = np.random.default_rng(seed)
    image = np.full((360, 480, 3), rng.integers(60, 190, 3), np.uint8)
    for _ in range(150):
        x, y = int(rng.integers(0, 480)), int(rng.integers(0, 360))
        colour = tuple(int(value) for value in rng.integers(0, 255, 3))
        cv2.circle(image, (x, y), int(rng.integers(3, 22)), colour, -1, cv2.LINE_AA)
        cv2.line(image, (x, y), (x + int(rng.integers(-60, 60)), y + int(rng.integers(-60, 60))), colour, 2)
    return image


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three claims of one photo each; the third shows the first's again. And a file that is no photo."""
    root = tmp_path_factory.mktemp("claims")
    pictures = {"one": textured(1), "two": textured(2)}
    pictures["three"] = rephotograph(pictures["one"], np.random.default_rng(3), 0.6).image
    for claim, image in pictures.items():
        (root / claim).mkdir()
        cv2.imwrite(str(root / claim / f"{claim}.jpg"), image)
    (root / "two" / "note.jpg").write_text("not a photo")
    return root


def test_every_command_teaches() -> None:
    from typer.testing import CliRunner

    from damagewatch.cli.app import app

    for command in COMMANDS:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, command
        assert "Usage:" in result.output
        if len(command) == 1 and command[0] not in {"dlq"}:
            assert "Examples:" in result.output, command


class TestScan:
    def test_finds_the_return_and_tells_it_as_the_contract_says(self, claims: Path, tmp_path: Path) -> None:
        page = tmp_path / "page.html"
        result = run("scan", claims, "--json", "--report", page)
        assert result.returncode == 0, result.stderr
        (alert,) = [json.loads(line) for line in result.stdout.splitlines()]
        assert {(alert[side]["claimId"], alert[side]["photoId"]) for side in ("query", "match")} == {
            ("one", "one.jpg"),
            ("three", "three.jpg"),
        }
        assert alert["kind"] in {"SAME_DAMAGE", "DUPLICATE_PHOTO"}
        assert alert["mirrored"] is False
        assert 0.5 < alert["probability"] <= 1
        assert {"tenant", "claimId", "photoId", "damageId", "box", "cropUri"} <= set(alert["query"])
        assert {"alertId", "signals"} <= set(alert)
        assert "not_an_image" in result.stderr
        assert page.read_text().startswith("<!doctype html>")

    def test_of_query_and_gallery(self, claims: Path, tmp_path: Path) -> None:
        arguments = (
            "--query",
            claims / "three",
            "--gallery",
            claims / "one",
            "--report",
            tmp_path / "page.html",
        )
        result = run("scan", *arguments, "--json")
        assert result.returncode == 0, result.stderr
        (alert,) = [json.loads(line) for line in result.stdout.splitlines()]
        assert (alert["query"]["photoId"], alert["match"]["photoId"]) == ("three.jpg", "one.jpg")
        nothing = run(
            "scan", "--query", claims / "two", "--gallery", claims / "one", "--report", tmp_path / "page.html"
        )
        assert (nothing.returncode, nothing.stdout) == (0, "")


def test_detect_prints_the_contract(claims: Path, tmp_path: Path) -> None:
    result = run("detect", claims / "one" / "one.jpg", "--json", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["width"], told["height"]) == (480, 360)
    shares = told["severity"]["probabilities"]
    assert told["severity"]["class"] == max(shares, key=shares.get)
    for damage in told["damages"]:
        assert {"box", "polygons", "type", "severity", "score"} <= set(damage)
        x0, y0, x1, y1 = damage["box"]
        assert 0 <= x0 < x1 <= 480
        assert 0 <= y0 < y1 <= 360
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_embed_writes_unit_vectors(claims: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    result = run("embed", claims / "one", claims / "three", "--whole", "--out", out)
    assert result.returncode == 0, result.stderr
    with np.load(out) as arrays:
        assert arrays["name"].tolist() == [str(claims / c / f"{c}.jpg") for c in ("one", "three")]
        assert arrays["x"].dtype == np.float32
        assert np.linalg.norm(arrays["x"], axis=1) == pytest.approx([1, 1], abs=1e-4)
        assert arrays["box"].tolist() == [[0, 0, 480, 360]] * 2


def test_compare_tells_one_damage_from_two(claims: Path, tmp_path: Path) -> None:
    one, two, three = (claims / name / f"{name}.jpg" for name in ("one", "two", "three"))
    same = run("compare", one, three, "--json", "--out", tmp_path / "pair.png")
    assert json.loads(same.stdout)["kind"] in {"SAME_DAMAGE", "DUPLICATE_PHOTO"}, same.stderr
    assert (tmp_path / "pair.png").stat().st_size > 1000
    assert json.loads(run("compare", one, two, "--json").stdout)["kind"] is None


def test_rephotograph_repeats_itself(claims: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert run("rephotograph", claims / "one", "--out", tmp_path / folder, "--seed", "5").returncode == 0
    assert (tmp_path / "a" / "one.jpg").read_bytes() == (tmp_path / "b" / "one.jpg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "told"),
    [
        (["scan"], {}, 2, "--query"),
        (["detect", "nowhere.jpg"], {}, 1, "nowhere.jpg"),
        (["frobnicate"], {}, 2, "frobnicate"),
        (["alerts", "--since", "yesterday"], {}, 2, "--since"),
        (["settings"], {"DAMAGEWATCH_ONNX__THREADS": "many"}, 2, "DAMAGEWATCH_ONNX__THREADS"),
        (["settings"], {"DAMAGEWATCH_KAFKA__BOOTSTRAP_SERVER": "x"}, 2, "BOOTSTRAP_SERVERS"),
        (["matcher"], {"DAMAGEWATCH_EVIDENCE__URL": "foo://x"}, 2, "DAMAGEWATCH_EVIDENCE__URL"),
        (["scan", "."], {"DAMAGEWATCH_REFERENCES__ALLOWED": "photos"}, 2, "DAMAGEWATCH_REFERENCES__ALLOWED"),
        (["scan", "."], {"DAMAGEWATCH_ALERTING__SIMILAR_DAMAGE": "true"}, 2, "SIMILAR_DAMAGE_COSINE"),
        (["models", "verify"], {"DAMAGEWATCH_MODELS__DIRECTORY": "/nowhere"}, 1, "/nowhere"),
        (["kafka", "status", "--directory", "/nowhere"], {}, 1, "/nowhere"),
        (
            ["alerts"],
            {
                "DAMAGEWATCH_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
                "DAMAGEWATCH_KAFKA__CONNECT_TIMEOUT": "1",
            },
            1,
            "kafka",
        ),
    ],
)
def test_a_mistake_is_told_in_words(
    arguments: list[str],
    environment: dict[str, str],
    code: int,
    told: str,
    claims: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(claims)
    elsewhere = {"DAMAGEWATCH_INDEX__PATH": str(tmp_path / "index"), "DAMAGEWATCH_TELEMETRY__PORT": "0"}
    result = run(*arguments, **(elsewhere | environment))
    assert result.returncode == code, result.stderr
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_settings_mask_secrets() -> None:
    result = run(
        "settings",
        "--changed",
        "--json",
        DAMAGEWATCH_INDEX__URL="http://q",
        DAMAGEWATCH_INDEX__API_KEY="hush",
    )
    shown = {row["variable"]: row["value"] for row in map(json.loads, result.stdout.splitlines())}
    assert shown["DAMAGEWATCH_INDEX__URL"] == "http://q"
    assert "hush" not in result.stdout
    assert shown["DAMAGEWATCH_INDEX__API_KEY"]


class TestHostileFiles:
    def test_names_that_are_no_text_or_steer_a_terminal(self, claims: Path, tmp_path: Path) -> None:
        photo = (claims / "one" / "one.jpg").read_bytes()
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(photo)
        (tmp_path / "\x1b[31mred\n.jpg").write_bytes(photo)
        result = run("scan", tmp_path, "--report", tmp_path / "page.html")
        assert result.returncode == 0, result.stderr
        (alert,) = result.stdout.splitlines()
        assert {"caf\\xe9", "\\u001b[31mred\\u000a"} <= set(re.split(r"[ /]+", alert.replace(".jpg", "")))
        assert "refused" in result.stderr
        assert "\x1b" not in result.stderr

    def test_a_file_larger_than_any_message_is_not_even_read(self, tmp_path: Path) -> None:
        from damagewatch.cli.stream import record_of
        from damagewatch.folders import photos_in
        from damagewatch.settings import Settings

        with (tmp_path / "huge.jpg").open("wb") as file:
            file.truncate(1 << 40)
        (huge,) = photos_in([tmp_path])
        with pytest.raises(Refused) as told:
            record_of(huge, Settings())
        assert told.value.reason is Reason.PHOTO_TOO_LARGE

    def test_one_that_cannot_be_read_does_not_end_a_scan(self, tmp_path: Path) -> None:
        from damagewatch.folders import PhotoFile
        from damagewatch.scan import open_scanner
        from damagewatch.settings import Settings

        gone = PhotoFile(tmp_path / "gone.jpg", "claim", "gone.jpg")
        with open_scanner(Settings()) as (scanner, _, _):
            (scanned,) = scanner.scan([gone])
        assert isinstance(scanned.verdict, Refused)


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    """As `damagewatch settings | head -1`."""
    with subprocess.Popen(
        [sys.executable, "-m", "damagewatch", "settings"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        told = program.stderr.read()
        assert (program.wait(60), told) == (0, b"")


def test_an_interrupted_scan_leaves_no_photos_behind(claims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from damagewatch.evidence import EvidenceStore
    from damagewatch.folders import PhotoFile
    from damagewatch.scan import open_scanner
    from damagewatch.settings import Settings

    keep, roots = EvidenceStore.keep, set()

    def keep_late(store: EvidenceStore, photo: PhotoRef, name: str, jpeg: bytes) -> str:
        roots.add(Path(store._root).parent)
        time.sleep(0.3)
        return keep(store, photo, name, jpeg)

    monkeypatch.setattr(EvidenceStore, "keep", keep_late)
    photos = [PhotoFile(claims / "one" / "one.jpg", f"claim-{number}", "one.jpg") for number in range(40)]
    with pytest.raises(KeyboardInterrupt), open_scanner(Settings()) as (scanner, _, _):
        scanning = scanner.scan(photos)
        next(scanning)
        raise KeyboardInterrupt
    time.sleep(1)  # a thread that still looks at a photo would keep its crops
    assert [root for root in roots if root.exists()] == []
