import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from damagewatch.telemetry import logs

log = logging.getLogger("damagewatch.test")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root, kafka = logging.getLogger(), logging.getLogger("kafka")
    before = root.handlers, root.level, kafka.level
    yield
    root.handlers, _, _ = before
    root.setLevel(before[1])
    kafka.setLevel(before[2])
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO")  # standard error is no terminal here
    log.info("photo %s decoded", "front", extra={"width": 640})
    log.debug("not shown")
    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "photo front decoded",
        "level": "info",
        "logger": "damagewatch.test",
        "width": 640,
    }


def test_structlog_ends_in_the_same_place(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO")
    structlog.stdlib.get_logger("damagewatch.test").info("matcher started", port=9464, password="hunter2")
    structlog.stdlib.get_logger("damagewatch.test").debug("not shown")
    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "matcher started",
        "level": "info",
        "logger": "damagewatch.test",
        "port": 9464,
        "password": "***",
    }


def test_photos_and_secrets_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    photo = b"\xff\xd8SECRET" * 1000
    log.warning("bad photo %r", photo, extra={"content": photo, "api_key": "hunter2", "note": "n" * 10_000})
    text = capsys.readouterr().err
    line = json.loads(text)
    assert line["event"] == "bad photo '<8000 bytes>'"
    assert line["content"] == "<8000 bytes>"
    assert line["api_key"] == "***"
    assert len(str(line["note"])) < 5000
    assert "SECRET" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_no_local_variables(capsys: pytest.CaptureFixture[str], form: str) -> None:
    logs.configure("INFO", form)  # type: ignore[arg-type]
    try:
        password = "hunter" + str(2)
        raise RuntimeError(f"failed after {len(password)}")
    except RuntimeError:
        log.exception("failed")
    text = capsys.readouterr().err
    assert "RuntimeError: failed after 7" in text
    assert "hunter2" not in text


def test_console(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "console")
    log.info("ready", extra={"port": 9464})
    text = capsys.readouterr().err
    assert "ready" in text
    assert "port=9464" in text
    assert not text.startswith("{")


def test_configuring_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure()
    log.info("once")
    assert len(lines(capsys)) == 1


def test_kafka_never_logs_payloads(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("DEBUG")
    logging.getLogger("kafka.protocol").debug("frame %s", "payload")
    logging.getLogger("kafka.protocol").warning("disconnected")
    assert [line["event"] for line in lines(capsys)] == ["disconnected"]


def test_a_library_repeats_itself_seldom_and_others_are_free_to() -> None:
    now = 0.0
    seldom = logs.Seldom("kafka", seconds=30.0, clock=lambda: now)

    def shown(name: str, line: int = 7) -> bool:
        return seldom.filter(logging.LogRecord(name, logging.ERROR, "f.py", line, "refused", (), None))

    assert shown("kafka.net")
    assert not shown("kafka.net")
    assert shown("kafka.net", line=8)
    assert shown("kafka.coordinator")
    assert all(shown(name) for name in ("damagewatch.broker", "kafkaesque") * 2)
    now = 31.0
    assert shown("kafka.net")
