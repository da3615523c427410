"""What made an artefact: `run.json` beside it."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import damagewatch_training
from damagewatch_training.data.dataset import write_whole
from damagewatch_training.experiment import config

FILE = "run.json"
LIBRARIES = (
    "damagewatch",
    "numpy",
    "opencv-python-headless",
    "onnx",
    "onnxruntime",
    "torch",
    "timm",
    "lightning-fabric",
    "pytorch-metric-learning",
    "segmentation-models-pytorch",
    "scikit-learn",
)


class OtherExperiment(ValueError):
    """A folder that holds the run of other settings or other data."""


def write(folder: Path, settings: Any, data_sha256: str, **more: Any) -> Path:
    """Writes `folder`/run.json, whole or not at all, and returns its path.

    Args:
        folder: Where the artefact lies or will lie.
        settings: A dataclass; written resolved, with its hash. A field `seed`, where there is one, is named.
        data_sha256: Of what was learned from or measured on: see `data_sha256`.
        **more: What else is to be kept, such as figures or the number of processes; must be JSON.
    """
    entry = {
        "config": config.resolved(settings),
        "config_sha256": config.sha256(settings),
        "data_sha256": data_sha256,
        "seed": getattr(settings, "seed", None),
        "git_commit": commit(),
        "libraries": libraries(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }
    return _replace(folder / FILE, entry)


def read(folder: Path) -> dict[str, Any] | None:
    """The run of a folder, or None where none is told."""
    path = folder / FILE
    if not path.exists():
        return None
    entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return entry


def add(folder: Path, **more: Any) -> None:
    """Adds to the run of a folder, such as its figures when it is done.

    Raises:
        FileNotFoundError: The folder has none.
    """
    entry = read(folder)
    if entry is None:
        raise FileNotFoundError(f"{folder / FILE} is missing")
    _replace(folder / FILE, entry | more)


def _replace(path: Path, entry: Mapping[str, Any]) -> Path:
    write_whole(path, (json.dumps(entry, indent=2) + "\n").encode())
    return path


def check(folder: Path, settings: Any, data_sha256: str, may_differ: Iterable[str] = ()) -> None:
    """Makes sure that a training goes on only with what it began with.

    Args:
        folder: Of the run; one without run.json is good.
        settings: Of the training that wants to go on.
        data_sha256: Of its data.
        may_differ: Settings that may have changed, such as how often a checkpoint is written.

    Raises:
        OtherExperiment: The folder's run had other settings or other data. The message names them.
    """
    entry = read(folder)
    if entry is None:
        return
    now, then = config.resolved(settings), entry["config"]
    other = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    other = [key for key in other if key not in set(may_differ)]
    if other:
        told = ", ".join(f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in other)
        raise OtherExperiment(f"{folder} holds another training ({told}): give it another folder")
    if entry["data_sha256"] != data_sha256:
        raise OtherExperiment(f"{folder} holds a training on other data: give it another folder")


def data_sha256(files: Mapping[str, Path] | Iterable[Path]) -> str:
    """One hash of several files: of their names and contents, in the order of the names.

    Args:
        files: Paths by the name that counts, or paths whose own names count.

    Raises:
        OSError: A file cannot be read.
    """
    named = dict(files) if isinstance(files, Mapping) else {path.name: path for path in files}
    whole = hashlib.sha256()
    for name in sorted(named):
        with named[name].open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        whole.update(f"{name}\0{digest}\n".encode())
    return whole.hexdigest()


def commit() -> str | None:
    """The git commit of the code, "+changes" where files differ from it; None outside a checkout."""
    here = Path(damagewatch_training.__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    if not head:
        return None
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def libraries() -> dict[str, str]:
    """The versions of the libraries that decide what comes out, of those that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
