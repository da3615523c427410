"""damagewatch: the same damage, photographed again, found in another claim."""

import os
from importlib.metadata import version as _installed

# Read once, when the libraries are first imported, and so set before anything of this package can import them.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "50000000")
# ONNX Runtime tells its makers about the models and the machine it runs on, unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Photos are worked on in parallel already; a BLAS that spreads one small product over all cores fights with that.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def version() -> str:
    """Of the installed package."""
    return _installed("damagewatch")
