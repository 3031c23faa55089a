"""What a worker writes for a collector is JSON in every line, also what its libraries say."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from worker.log import configure_logging


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def say_something() -> None:
    structlog.get_logger("worker").info("worker_ready", device="cpu")
    error = ConnectionError("refused")
    logging.getLogger("celery.worker").warning("Connection to %s lost", "broker", exc_info=error)


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    say_something()
    own, library = map(json.loads, capsys.readouterr().err.splitlines())
    assert (own["event"], own["device"], own["level"]) == ("worker_ready", "cpu", "info")
    assert (library["event"], library["logger"]) == ("Connection to broker lost", "celery.worker")
    assert library["level"] == "warning"
    assert "ConnectionError: refused" in library["exception"]


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console")
    say_something()
    assert "WARNING celery.worker Connection to broker lost" in capsys.readouterr().err
