"""The log of the process: lines of JSON without what must not be in them."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from websockets.exceptions import InvalidHandshake

from backend.gateway.process import configure_logs, read_settings
from splitlearn.errors import SpecError
from splitlearn.link import LIBRARY_LOGGER


@pytest.fixture
def _configured(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:  # noqa: ARG001 - captures first
    handlers = list(LIBRARY_LOGGER.handlers)
    configure_logs()
    yield
    LIBRARY_LOGGER.handlers = handlers
    structlog.reset_defaults()


def raise_about(frame: bytes) -> None:
    raise RuntimeError(str(len(frame)))


def logged(capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    [line] = capsys.readouterr().err.splitlines()
    event: dict[str, Any] = json.loads(line)
    return line, event


@pytest.mark.usefixtures("_configured")
class TestConfigureLogs:
    def test_a_traceback_shows_no_local_variables(self, capsys: pytest.CaptureFixture[str]) -> None:
        frame = bytes.fromhex("deadbeef") * 4
        try:
            raise_about(frame)
        except RuntimeError:
            LIBRARY_LOGGER.exception("connection handler failed")
        line, event = logged(capsys)
        assert event["event"] == "websocket_failed"
        assert event["exception"][0]["exc_type"] == "RuntimeError"
        assert "xde" not in line

    def test_a_peers_doing_is_one_short_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        error = InvalidHandshake("a secret header")
        LIBRARY_LOGGER.error("opening handshake failed", exc_info=error)
        line, event = logged(capsys)
        assert (event["event"], event["error"]) == ("websocket_refused", "InvalidHandshake")
        assert "secret" not in line

    def test_the_library_never_logs_headers(self) -> None:
        assert not LIBRARY_LOGGER.isEnabledFor(logging.INFO)


class TestReadSettings:
    @pytest.mark.parametrize(("name", "value"), [("TICKET_PUBLIC_KEY", "00" * 32), ("PORT", "99999")])
    def test_names_what_is_refused(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        monkeypatch.setenv("TRUNKLINE_GATEWAY_TICKET_PUBLIC_KEY", "aa" * 32)
        monkeypatch.setenv(f"TRUNKLINE_GATEWAY_{name}", value)
        with pytest.raises(SpecError, match=f"^TRUNKLINE_GATEWAY_{name}") as refused:
            read_settings()
        assert ";" in refused.value.message, "and what to do"

    def test_names_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TRUNKLINE_GATEWAY_TICKET_PUBLIC_KEY", raising=False)
        with pytest.raises(SpecError, match="PUBLIC_KEY is not set; set it; docs"):
            read_settings()
