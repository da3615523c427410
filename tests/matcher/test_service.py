"""What the matcher does beside the stream."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from damagewatch.domain import DependencyDownError
from damagewatch.index import DamageIndex
from damagewatch.matcher import service
from damagewatch.settings import Settings
from damagewatch.telemetry.health import Health
from damagewatch.telemetry.metrics import Metrics
from damagewatch.vision.manifest import ModelRefusedError


class Index:
    """Down at first; says when it was tidied."""

    def __init__(self) -> None:
        self.asked = 0
        self.tidied = threading.Event()

    def count(self) -> int:
        self.asked += 1
        if self.asked < 3:
            raise DependencyDownError("index", "gone")
        return 17

    def optimize(self) -> None:
        self.tidied.set()


def test_the_index_is_measured_and_tidied_until_the_stop_which_probes_learn_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "WATCH_SECONDS", 0.001)
    monkeypatch.setattr(service, "TIDY_SECONDS", 0.01)
    index, metrics, health, stop = Index(), Metrics(), Health(60.0), threading.Event()
    health.beat()
    active = cast(Any, SimpleNamespace(check=lambda: None))
    watching = threading.Thread(
        target=service._watch, args=(cast(DamageIndex, index), active, metrics, health, stop)
    )
    watching.start()
    assert index.tidied.wait(10)
    assert health.ready().ok
    stop.set()
    watching.join(10)
    assert health.ready().reasons == ("stopping",)
    assert metrics.registry.get_sample_value("damagewatch_index_points") == 17


def test_refused_models_are_told_for_a_while_and_then_end_it(tmp_path: Path) -> None:
    metrics, health, stop = Metrics(), Health(60.0), threading.Event()
    base = Settings()
    settings = base.model_copy(
        update={
            "models": base.models.model_copy(update={"directory": tmp_path}),
            "telemetry": base.telemetry.model_copy(update={"refused_wait": 30.0}),
        }
    )
    refused: list[BaseException] = []

    def load() -> None:
        try:
            service._load(settings, metrics, health, stop)
        except ModelRefusedError as error:
            refused.append(error)

    loading = threading.Thread(target=load)
    loading.start()
    while not health.ready().reasons[-1].endswith("No such file or directory"):
        time.sleep(0.01)
    assert metrics.registry.get_sample_value("damagewatch_models_refused") == 1
    assert loading.is_alive()
    stop.set()
    loading.join(10)
    assert refused


STUCK = """
import time
from damagewatch.matcher.service import end_within
from damagewatch.pipeline.parallel import ParallelStage

stage = ParallelStage(time.sleep, threads=1, max_items=1, max_bytes=1, size_of=lambda _: 1)
stage.submit(60)
stage.terminate()
end_within(0.2, 7)
"""


def test_work_that_was_given_up_does_not_hold_up_the_end() -> None:
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", STUCK], timeout=50, check=False).returncode == 7
    assert time.monotonic() - began < 40
