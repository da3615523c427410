"""Where a training runs. Skipped without torch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra `train` (PyTorch) is not installed")
pytest.importorskip("lightning_fabric", reason="the extra `train` is not installed")

from damagewatch_training.experiment import launch  # noqa: E402


@pytest.mark.parametrize(("gpu", "chosen"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bfloat16_is_for_gpus_unless_it_is_asked_for(
    gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    class Recorder:
        def __init__(self, **options: object) -> None:
            made.append(options["precision"])

        def launch(self) -> None: ...

    monkeypatch.setattr(launch, "Fabric", Recorder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    launch.fabric()
    launch.fabric("bf16-mixed")
    launch.fabric("32-true")
    assert made == [chosen, "bf16-mixed", "32-true"]
