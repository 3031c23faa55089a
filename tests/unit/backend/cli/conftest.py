"""The command line as it is typed, against a control plane that listens on a port of this process."""

import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn
from fastapi import FastAPI

from backend.app import create_app
from backend.cli.main import run
from backend.db import Database
from backend.server import Server
from tests.unit.backend.conftest import World
from tests.unit.backend.jobs.conftest import Federation, federation_like_others
from tests.unit.backend.seeds import Seeds


@dataclass
class Typed:
    """How a command ended."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert (self.exit_code, self.err) == (0, ""), self.err
        return json.loads(self.out)


@dataclass
class Terminal:
    """Runs commands in this process; what they read and print is the test's."""

    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Typed:
        self.captured.readouterr()
        self.patch.setattr(sys, "argv", ["trunkline", *words])
        with pytest.raises(SystemExit) as ended:
            run()
        said = self.captured.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return Typed(code or 0, said.out, said.err)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("TRUNKLINE_TOKEN", "TRUNKLINE_URL"):
        monkeypatch.delenv(name, raising=False)
    return Terminal(monkeypatch, capsys)


class Listening:
    """One application on a port for all tests, each of which puts its server in."""

    def __init__(self) -> None:
        self._application: FastAPI | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def serve(self, server: Server) -> None:
        if self._application is None:
            self._application = create_app(server)
            self._listen(self._application)
        self._application.state.server = server

    def _listen(self, application: FastAPI) -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(application, log_level="error", access_log=False, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def close(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()


@pytest.fixture(scope="session")
def listening() -> Iterator[Listening]:
    listening = Listening()
    yield listening
    listening.close()


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """SQLite alone: no command asks the database itself."""
    path = tmp_path / "trunkline.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


@pytest.fixture
def admin(world: World, listening: Listening, terminal: Terminal) -> Terminal:
    """The admin's terminal."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # the server's log is not its own
    listening.serve(world.server)
    terminal.patch.setenv("TRUNKLINE_URL", listening.url)
    assert world.admin.token is not None
    terminal.patch.setenv("TRUNKLINE_TOKEN", world.admin.token)
    return terminal


@pytest.fixture
def federation(world: World, seeds: Seeds) -> Iterator[Federation]:
    yield federation_like_others(world, seeds)
    world.server.bus.close()  # streams end
