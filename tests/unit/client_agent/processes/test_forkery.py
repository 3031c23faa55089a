"""The forker's death, with a forker that ends at once."""

import asyncio
from pathlib import Path

import pytest

from client_agent.log import LOGGER
from client_agent.processes import forkery
from client_agent.processes.forkery import Forkery


class TestForkery:
    def test_logs_that_the_forker_has_ended_and_is_started_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(forkery, "_FORKER", "this")
        log_path = tmp_path / "forker.log"

        async def check() -> None:
            made = Forkery(environment={}, log_path=log_path)
            await made.start()
            async with asyncio.timeout(20):
                while "has ended" not in caplog.text:  # noqa: ASYNC110 - the log is the event
                    await asyncio.sleep(0.01)
            await made.start()
            made.close()

        with caplog.at_level("INFO", logger=LOGGER):
            asyncio.run(check())
        assert "the forker is started again: process" in caplog.text
        assert log_path.stat().st_mode & 0o777 == 0o600
