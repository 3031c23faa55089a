"""A control plane in this process, reached as over the network."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from splitlearn.control_plane.requests import Requests
from splitlearn.control_plane.state_folder import StateFolder
from tests.unit.backend.conftest import World
from tests.unit.backend.conftest import clock as clock
from tests.unit.backend.conftest import database as database
from tests.unit.backend.conftest import seeds as seeds
from tests.unit.backend.conftest import settings as settings
from tests.unit.backend.conftest import shared_client as shared_client
from tests.unit.backend.conftest import sqlite_template as sqlite_template
from tests.unit.backend.conftest import world as world

Answer = Callable[[httpx2.Request], httpx2.Response]


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test that must not hang."""
    asyncio.run(asyncio.wait_for(test, timeout=20))


class Wire(httpx2.AsyncBaseTransport):
    """Carries requests to an application; a test may cut it, and look at what passed."""

    def __init__(self, app: FastAPI) -> None:
        self._inner = httpx2.ASGITransport(app=app)
        self.paths: list[str] = []
        self.cut: Callable[[httpx2.Request], Exception | None] = lambda _: None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.paths.append(request.url.path.removeprefix("/api/v1"))
        if (error := self.cut(request)) is not None:
            raise error
        return await self._inner.handle_async_request(request)


@pytest.fixture
def wire(world: World, monkeypatch: pytest.MonkeyPatch) -> Wire:
    app = world.anybody.client.app
    assert isinstance(app, FastAPI)
    wire = Wire(app)
    monkeypatch.setattr(httpx2, "AsyncClient", partial(httpx2.AsyncClient, transport=wire))
    return wire


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Requests]:
    """Makes requests that a function answers."""
    client = httpx2.AsyncClient

    def make(answer: Answer, **how: Any) -> Requests:
        monkeypatch.setattr(httpx2, "AsyncClient", partial(client, transport=httpx2.MockTransport(answer)))
        return Requests("http://there", **how)

    return make


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitlearn.control_plane.requests._FIRST_PAUSE_SECONDS", 0.002)
