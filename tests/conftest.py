"""What all tests share: one real Kafka for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from damagewatch.broker.development import DevelopmentKafka

# Examples are drawn anew on a developer's machine, and the same on every run that decides whether code lands.
# No example fails for being slow: machines are shared.
settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


@pytest.fixture(scope="session")
def development_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevelopmentKafka | None]:
    """The run's own broker, or None where DAMAGEWATCH_TEST_KAFKA names another one to use."""
    if os.environ.get("DAMAGEWATCH_TEST_KAFKA"):
        yield None
        return
    kafka = DevelopmentKafka(tmp_path_factory.mktemp("kafka"))
    kafka.up()
    try:
        yield kafka
    finally:
        kafka.down()


@pytest.fixture(scope="session")
def kafka_bootstrap(development_kafka: DevelopmentKafka | None) -> str:
    """Address of a real Kafka. Every test uses topics, groups and workers of its own."""
    if development_kafka is None:
        return os.environ["DAMAGEWATCH_TEST_KAFKA"]
    return development_kafka.status().bootstrap
