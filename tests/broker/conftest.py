from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from broker_stream import Stream


@pytest.fixture
def stream(kafka_bootstrap: str) -> Stream:
    return Stream(kafka_bootstrap, 3)
