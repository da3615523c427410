"""ONNX Runtime brings a client that reports to its makers; nothing of it may wake in a service with claims."""

from __future__ import annotations

import os
import subprocess
import sys


def test_onnx_runtime_reports_to_nobody(tmp_path):
    """Its client begins by keeping an id of the device and a queue in the home folder."""
    script = "import damagewatch, onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("*"))
