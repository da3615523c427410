"""What happens to a matcher over the years: it is restored from a copy, and other models judge in its shadow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from trials.outcome import read
from trials.photos import TrialSet
from trials.stand import Stream, matching, run_command, wait_for

from damagewatch.broker.record import OutgoingRecord
from damagewatch.broker.topics import Topics
from damagewatch.demo import pair_of
from damagewatch.matcher.shadow import shadowed

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

MakeStream = Callable[..., Stream]


def damagewatch(environment: Mapping[str, str], *arguments: str) -> str:
    done = run_command(environment, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_index_is_restored_and_what_came_after_the_copy_is_sent_again(
    make_stream: MakeStream, photos: TrialSet, tmp_path: Path
) -> None:
    stream = make_stream(partitions=1)
    pairs = sorted(photos.planted, key=sorted)[:4]
    copies = [photos.of(max(pair, key=lambda key: key[1] == "again.jpg")) for pair in pairs]
    originals = [photos.of(min(pair, key=lambda key: key[1] == "again.jpg")) for pair in pairs]
    with matching(stream.settings):
        stream.publish(originals[:2])
        wait_for(lambda: stream.committed() == 2, "what the copy holds")
    copy = tmp_path / "copy"
    damagewatch(stream.environment, "index", "backup", str(copy))
    taken_at = json.loads((copy / "backup.json").read_text())["taken_at"]
    with matching(stream.settings):
        stream.publish(originals[2:])
        stream.send([OutgoingRecord(stream.topics.images, originals[3].claim_id.encode(), None)])
        wait_for(lambda: stream.committed() == 5, "what comes after the copy")
    shutil.rmtree(stream.settings.index.path)
    damagewatch(stream.environment, "index", "restore", str(copy))
    with matching(stream.settings):
        told = damagewatch(stream.environment, "replay", "--since", taken_at)
        assert told == "1 photos sent again, 1 of erased claims left out\n"
        stream.publish(copies)
        wait_for(lambda: stream.committed() == 10, "all again")
    found = {pair_of(alert) for alert in read(stream).alerts}
    assert set(pairs[:3]) <= found
    assert pairs[3] not in found  # erased, and not brought back


def test_other_models_judge_in_the_shadow_and_are_compared(
    make_stream: MakeStream, photos: TrialSet, tmp_path: Path
) -> None:
    stream = make_stream(partitions=1)
    models = tmp_path / "models"
    shutil.copytree(stream.settings.models.directory, models)
    manifest = json.loads((models / "manifest.json").read_text())
    for said in (manifest["calibration"], manifest["calibration"]["whole"]):
        said["intercept"] = -1000.0  # never probable
    manifest["calibration"]["thresholds"]["duplicate_photo"]["alignment"] = 1.0
    (models / "manifest.json").write_text(json.dumps(manifest))
    pair = sorted(photos.planted, key=sorted)[0]
    stream.publish([photos.of(key) for key in sorted(pair)])
    folder = tmp_path / "shadow"
    environment = stream.environment | {"DAMAGEWATCH_TELEMETRY__PORT": "0"}
    command = [sys.executable, "-m", "damagewatch", "models", "shadow"]
    shadow = subprocess.Popen(
        [*command, str(models), "--data", str(folder)], env=environment, stderr=subprocess.PIPE, text=True
    )
    other = shadowed(stream.settings, models, folder)
    try:
        with matching(stream.settings):
            wait_for(lambda: stream.committed() == 2, "the live matcher")
        admin = Topics(stream.options)
        wait_for(lambda: sum(admin.committed_offsets(other.kafka.group).values()) == 2, "its shadow")
    finally:
        shadow.terminate()
        shadow.communicate(timeout=60)
    assert shadow.returncode == 0
    rows = [
        json.loads(line)
        for line in damagewatch(environment, "models", "shadow-report", "--json").splitlines()
    ]
    assert [row["verdict"] for row in rows] == ["live only"]
    assert {row["queryClaim"] for row in rows} | {row["matchClaim"] for row in rows} == {
        key[0] for key in pair
    }
    table = damagewatch(environment, "models", "shadow-report")
    assert "live only\t1" in table
    assert len(read(stream).alerts) == 1
