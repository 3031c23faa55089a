"""Agents wait for news of their jobs in one held request, not by asking every second."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import httpx2
import pytest
from sqlalchemy.orm import Session

from backend.app_prefix import API_PREFIX
from backend.jobs import silo_watch
from backend.jobs.repository import silo_fingerprints
from splitlearn.control_plane.schemas import MAX_WAIT_SECONDS
from tests.unit.backend.jobs.conftest import Federation

_HELD_SECONDS = 0.4
"""An answer that is held back for a second or more has not come after this."""

Ask = Callable[..., Awaitable[dict[str, Any]]]


class _Agents:
    """Asks for silos in one event loop, as one API process serves them."""

    def __init__(self, federation: Federation) -> None:
        transport = httpx2.ASGITransport(federation.world.anybody.client.app)
        self._client = httpx2.AsyncClient(transport=transport, base_url=f"http://api{API_PREFIX}")
        self._federation = federation

    async def ask(self, silo: str, **query: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._federation.parties[silo].token}"}
        answer = await self._client.get("/silo/jobs", params=query, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def held(self, silo: str, tag: str) -> "asyncio.Task[dict[str, Any]]":
        """Begin to wait for another answer than the one of ``tag``."""
        task = asyncio.create_task(self.ask(silo, known=tag, wait_seconds=20))
        await asyncio.sleep(_HELD_SECONDS)
        assert not task.done()
        return task


def test_an_answer_is_held_until_it_is_another(federation: Federation) -> None:
    async def run() -> None:
        agents = _Agents(federation)
        first = await agents.ask("north")
        held = await agents.held("north", first["tag"])
        job_id = await asyncio.to_thread(federation.submit)
        answer = await asyncio.wait_for(held, timeout=5)
        assert [job["id"] for job in answer["jobs"]] == [job_id]
        assert answer["tag"] != first["tag"]

    asyncio.run(run())


@pytest.mark.parametrize("known", ["", "0" * 32])
def test_an_agent_that_knows_another_answer_gets_this_one_at_once(federation: Federation, known: str) -> None:
    began = time.monotonic()
    asyncio.run(_Agents(federation).ask("north", known=known, wait_seconds=20))
    assert time.monotonic() - began < 10


def test_an_answer_comes_when_time_is_over(federation: Federation) -> None:
    async def run() -> None:
        agents = _Agents(federation)
        first = await agents.ask("north")
        assert await agents.ask("north", known=first["tag"], wait_seconds=0.2) == first

    asyncio.run(run())


def test_every_step_of_a_job_is_told_to_who_waits(federation: Federation) -> None:
    """Approval, lease, result and end: whatever an agent acts on ends its wait."""

    def to_finishing(job_id: str) -> None:
        federation.lease(job_id)
        for silo in ("north", "south"):
            federation.attach(job_id, silo)
        federation.renew(job_id, round_number=1)
        federation.release(job_id, "completed", result=federation.upload(b"trunk"))

    async def run() -> None:
        agents = _Agents(federation)
        job_id = federation.submit()
        answer = await agents.ask("north")
        for act in (
            lambda: federation.approve(job_id),
            federation.look,
            lambda: to_finishing(job_id),
            lambda: federation.finish(job_id),
        ):
            held = await agents.held("north", answer["tag"])
            await asyncio.to_thread(act)
            answer = await asyncio.wait_for(held, timeout=5)
            while (latest := await agents.ask("north"))["tag"] != answer["tag"]:
                answer = latest
        assert answer["jobs"] == []

    asyncio.run(run())


def test_what_concerns_others_alone_wakes_nobody(federation: Federation) -> None:
    async def run() -> None:
        agents = _Agents(federation)
        job_id = federation.submit()
        answer = await agents.ask("north")
        held = await agents.held("north", answer["tag"])
        await asyncio.to_thread(federation.approve, job_id, "south")
        await asyncio.sleep(_HELD_SECONDS)
        assert not held.done()
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)

    asyncio.run(run())


def test_a_revoked_silo_is_let_go(federation: Federation) -> None:
    async def run() -> None:
        agents = _Agents(federation)
        answer = await agents.ask("north")
        held = await agents.held("north", answer["tag"])
        await asyncio.to_thread(federation.world.admin.ok, "POST", "/silos/north/revoke")
        await asyncio.wait_for(held, timeout=5)

    asyncio.run(run())


def test_one_look_serves_all_who_wait(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    num_looks = 0

    def look(session: Session, silos: Collection[uuid.UUID]) -> dict[uuid.UUID, object]:
        nonlocal num_looks
        num_looks += 1
        return silo_fingerprints(session, silos)

    monkeypatch.setattr(silo_watch, "silo_fingerprints", look)

    async def run() -> None:
        nonlocal num_looks
        agents = _Agents(federation)
        answer = await agents.ask("north")
        held = [await agents.held("north", answer["tag"]) for _ in range(5)]
        num_looks = 0
        await asyncio.sleep(2.5)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    asyncio.run(run())
    assert 1 <= num_looks <= 4  # a look a second, not five


def test_a_look_that_fails_is_not_the_last(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    real = silo_fingerprints
    num_failures = 0

    def look(session: Session, silos: Collection[uuid.UUID]) -> dict[uuid.UUID, object]:
        nonlocal num_failures
        if num_failures < 2:
            num_failures += 1
            raise RuntimeError("the database is away")
        return real(session, silos)

    monkeypatch.setattr(silo_watch, "silo_fingerprints", look)

    async def run() -> None:
        agents = _Agents(federation)
        held = await agents.held("north", (await agents.ask("north"))["tag"])
        await asyncio.to_thread(federation.submit)
        await asyncio.wait_for(held, timeout=10)

    asyncio.run(run())
    assert num_failures == 2


@pytest.mark.parametrize(
    "query", [{"wait_seconds": MAX_WAIT_SECONDS + 1}, {"wait_seconds": -1}, {"known": "x" * 33}]
)
def test_refuses_what_is_out_of_bounds(federation: Federation, query: dict[str, Any]) -> None:
    answer = federation.parties["north"](
        "GET", "/silo/jobs?" + "&".join(f"{k}={v}" for k, v in query.items())
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
