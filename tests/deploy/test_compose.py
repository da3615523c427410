"""deploy/compose: what `docker compose config` says of it, and what it does not look at."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from damagewatch.broker.options import KafkaOptions
from damagewatch.settings import Settings, variables

HERE = Path(__file__).parents[2] / "deploy/compose"
EXAMPLE = HERE / ".env.example"


@pytest.fixture(scope="module")
def configured(tool, tmp_path_factory):
    def config(*arguments: str, env_file: Path | None = None) -> dict:
        env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
        env_file = env_file or tmp_path_factory.mktemp("compose") / "empty.env"
        env_file.touch()
        said = subprocess.run(
            [tool("docker-compose"), "--env-file", env_file, *arguments, "config"],
            cwd=HERE,
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
        assert not said.stderr, said.stderr
        return yaml.safe_load(said.stdout)

    return config


@pytest.fixture(scope="module")
def everything(configured):
    return configured("--profile", "demo")["services"]


def test_one_command_brings_the_whole_system(configured):
    assert set(configured()["services"]) == {
        "matcher", "topics", "kafka", "qdrant", "prometheus", "grafana", "kafka-ui",
    }  # fmt: skip


def test_two_matchers(everything):
    assert everything["matcher"]["deploy"]["replicas"] == 2


def test_demo_is_a_profile(everything):
    assert "publish" in everything["demo"]["command"][0]


def test_gpu_file_changes_the_matcher_alone(configured):
    plain = configured()["services"]
    gpu = configured("-f", "compose.yaml", "-f", "gpu.yaml")["services"]
    assert {name for name in plain if plain[name] != gpu[name]} == {"matcher"}
    assert gpu["matcher"]["build"]["args"] == {"VARIANT": "gpu"}


def test_example_shows_every_variable_with_its_default(configured):
    text = "".join(path.read_text() for path in HERE.glob("*.yaml"))
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))
    shown = dict(line.split("=", 1) for line in EXAMPLE.read_text().splitlines() if re.match("[A-Z]", line))
    assert shown == used
    assert re.findall(r"\$\{[A-Z_]+\}", text) == []
    assert configured(env_file=EXAMPLE) == configured()


def test_images_are_pinned(everything):
    for name, service in everything.items():
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+[a-z-]*@sha256:[0-9a-f]{64}$", service["image"]), name


def test_ports_are_open_to_this_machine_only(everything):
    published = [port for service in everything.values() for port in service.get("ports", [])]
    assert published
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_our_services_cannot_write_or_gain_rights(everything):
    for name in ("matcher", "topics", "demo"):
        service = everything[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_our_settings_exist_and_are_good(everything, monkeypatch):
    known = {name for name, _ in variables()}
    for name in ("matcher", "topics", "demo"):
        for variable, value in everything[name]["environment"].items():
            assert variable in known
            monkeypatch.setenv(variable, value)
    assert Settings().index.url == "http://qdrant:6334"


def test_broker_takes_the_largest_record(everything):
    kafka = everything["kafka"]["environment"]
    largest = KafkaOptions().producer_arguments()["max_request_size"]
    assert int(kafka["KAFKA_MESSAGE_MAX_BYTES"]) >= largest
    assert int(kafka["KAFKA_REPLICA_FETCH_MAX_BYTES"]) >= largest


def test_matcher_has_the_time_to_finish(everything):
    settings = Settings()
    minutes, seconds = re.fullmatch(r"(\d+)m(\d+)s", everything["matcher"]["stop_grace_period"]).groups()
    assert (
        int(minutes) * 60 + int(seconds)
        >= settings.matcher.drain_timeout + settings.kafka.transaction_timeout + 10
    )


def test_what_is_mounted_is_there(everything):
    for service in everything.values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume["source"]
                assert volume["read_only"]
