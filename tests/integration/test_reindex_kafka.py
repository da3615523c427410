"""A new embedder takes over on a live stream: every planted pair is alerted once, before, during and after."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from trials.outcome import read
from trials.photos import TrialPhoto, TrialSet
from trials.stand import Stream, matching, run_command, wait_for

from damagewatch.demo import pair_of
from damagewatch.domain import sha256_of
from damagewatch.settings import SettingError, Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

MakeStream = Callable[..., Stream]


def other_models(old: Path, new: Path) -> Path:
    """The same models, but that the embedder is another file, and sees a little darker."""
    shutil.copytree(old, new)
    manifest = json.loads((new / "manifest.json").read_text())
    embedder = manifest["embedder"]
    content = (new / embedder["file"]).read_bytes() + b"\x1a\x04next"  # ModelProto.producer_version
    (new / embedder["file"]).write_bytes(content)
    embedder["sha256"] = sha256_of(content)
    embedder["input"]["mean"] = [value - 0.02 for value in embedder["input"]["mean"]]
    (new / "manifest.json").write_text(json.dumps(manifest))
    return new


def with_models(settings: Settings, directory: Path, following: Path | None = None) -> Settings:
    models = settings.models.model_copy(
        update={"directory": directory, "next": following, "carry_over_rate": 0.0}
    )
    return settings.model_copy(update={"models": models})


def test_every_pair_is_alerted_once_before_during_and_after(
    make_stream: MakeStream, photos: TrialSet, tmp_path: Path
) -> None:
    stream = make_stream(partitions=1)
    old = stream.settings.models.directory
    new = other_models(old, tmp_path / "next")
    pairs = sorted(photos.planted, key=sorted)
    copies = [photos.of(max(pair, key=lambda key: key[1] == "again.jpg")) for pair in pairs]
    originals = [photos.of(min(pair, key=lambda key: key[1] == "again.jpg")) for pair in pairs]
    rest = [photo for photo in photos.photos if photo not in {*copies, *originals}]
    phases: list[list[TrialPhoto]] = [
        [*originals[:6], originals[7], *rest[:4], copies[0], copies[1]],  # one embedder
        [originals[6], *rest[4:6], copies[2], copies[3]],  # both remember, the old one judges
        [*rest[6:8], copies[4], copies[5], copies[6]],  # both remember, the new one judges
        [copies[7]],  # the new one alone
    ]
    published = 0

    def publish(phase: int) -> None:
        nonlocal published
        stream.publish(phases[phase])
        published += len(phases[phase])
        wait_for(lambda: stream.committed() == published, f"phase {phase}")

    environment = stream.environment | {
        "DAMAGEWATCH_MODELS__DIRECTORY": str(old),
        "DAMAGEWATCH_MODELS__NEXT": str(new),
    }
    carried_over = stream.settings.index.path / "carried-over.json"
    with matching(with_models(stream.settings, old)):
        publish(0)
        early = run_command(environment, "reindex", "switch")
        assert early.returncode == 1
        assert "not carried everything over" in early.stderr
    with matching(with_models(stream.settings, old, new)):
        publish(1)
        wait_for(lambda: carried_over.exists() and not json.loads(carried_over.read_text())["missing"], "all")
        switched = run_command(environment, "reindex", "switch")
        assert switched.returncode == 0, switched.stderr
        time.sleep(1.1)
        publish(2)
    status = run_command(environment, "reindex", "status", "--json")
    row = json.loads(status.stdout)
    assert (row["active"], row["missing"]) == (row["next"], 0)
    assert row["damages"] == row["carried_over"] >= published
    assert json.loads(run_command(environment, "reindex", "compare", "--json").stdout)["shared"] > 0.5
    with pytest.raises(SettingError, match="active collection"), matching(with_models(stream.settings, old)):
        pass
    dropped = run_command(environment, "reindex", "drop", "--yes")
    assert dropped.stdout.strip() == f"removed {row['in_use']}"
    assert not (stream.settings.index.path / row["in_use"]).exists()
    with matching(with_models(stream.settings, new)):
        publish(3)
    outcome = read(stream)
    assert photos.planted <= {pair_of(alert) for alert in outcome.alerts}
    assert outcome.doubled_alerts == 0
    assert outcome.letters == ()
    assert outcome.doubled() == []
