"""Callers of the API: people, scripts and silos' agents, each asking again as soon as it is answered."""

import asyncio
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2

from bench.api_fill import EACH_JOB, NAMES, Filled
from bench.api_world import MODEL, make_spec, silo_name
from splitlearn.errors import ProcessError

_PREFIX = "/api/v1"
_TIMEOUT_SECONDS = 120.0
_BATCH_STEPS = 20
"""Of a batch of numbers; an agent sends one every two seconds."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        method, path: Of it; the path without the API's prefix.
        token: Whose.
        body: JSON, or None.
    """

    method: str
    path: str
    token: str
    body: Any = None


class RefusedError(ProcessError):
    """The API answered what the benchmark did not ask for."""


@dataclass
class World:
    """Makes requests about what the database was filled with.

    Args:
        filled: What it was filled with.
        token: Of a person who is signed in.
        pages: Where later pages of lists begin.
    """

    filled: Filled
    token: str
    pages: Mapping[str, str] = field(default_factory=dict)
    _chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - no secret
    _step: Iterator[int] = field(default_factory=lambda: itertools.count(1_000_000, _BATCH_STEPS))

    def get(self, path: str) -> Ask:
        """Return a person's question."""
        return Ask("GET", path, self.token)

    def some_job(self) -> str:
        """Return the id of one of the many jobs."""
        return self._chance.choice(self.filled.jobs)

    def some_silo(self) -> int:
        """Return the number of one of the silos that have a token."""
        return self._chance.randrange(1, self.filled.size.silos + 1)

    def batch(self) -> Ask:
        """Return a silo's numbers of the next steps."""
        job, silo = self._chance.choice(self.filled.parts)
        first = next(self._step)
        points = [
            {"name": name, "round": 1 + step // _BATCH_STEPS, "step": step, "value": self._chance.random()}
            for step in range(first, first + _BATCH_STEPS)
            for name in NAMES
        ]
        return Ask("POST", "/metrics", self.filled.token(silo), {"job": job, "metrics": points})

    def submission(self, path: str) -> Ask:
        """Return a job of some silos, to be planned or submitted."""
        silos = self._chance.sample(range(1, self.filled.size.silos + 1), 3)
        return Ask("POST", path, self.token, {"spec": make_spec(silos)})


Make = Callable[[World], Ask]


def mix() -> Mapping[str, tuple[int, Make]]:
    """Return what is asked, by its name in the table: how often of all, and how."""
    return {
        "jobs, first page": (4, lambda world: world.get("/jobs")),
        "jobs, a later page": (2, lambda world: world.get(f"/jobs?after={world.pages['jobs']}")),
        "jobs, paused": (2, lambda world: world.get("/jobs?state=paused")),
        "jobs, by name": (2, lambda world: world.get("/jobs?name=job-77")),
        "jobs, of a silo": (2, lambda world: world.get(f"/jobs?silo={silo_name(world.some_silo())}")),
        "jobs, of the busiest silo": (1, lambda world: world.get(f"/jobs?silo={silo_name(1)}&state=failed")),
        "one job": (8, lambda world: world.get(f"/jobs/{world.some_job()}")),
        "its rounds": (2, lambda world: world.get(f"/jobs/{world.some_job()}/rounds")),
        "its log": (2, lambda world: world.get(f"/jobs/{world.some_job()}/logs")),
        "its events": (4, lambda world: world.get(f"/jobs/{world.some_job()}/events?follow=false")),
        "its numbers, 100": (4, lambda world: world.get(f"/jobs/{world.some_job()}/metrics?limit=100")),
        "its losses, 1,000": (2, lambda world: world.get(f"/jobs/{world.some_job()}/metrics?name=loss")),
        "the largest job's losses, a late page": (2, _late_losses),
        "silos, first page": (2, lambda world: world.get("/silos")),
        "silos, a later page": (2, lambda world: world.get("/silos?after=silo-0800")),
        "audit, first page": (1, lambda world: world.get("/audit")),
        "a job planned": (1, lambda world: world.submission("/jobs/plan")),
        "a job submitted": (1, lambda world: world.submission("/jobs")),
        "100 numbers sent": (12, World.batch),
        "a heartbeat": (8, lambda world: _of_silo(world, "POST", "/session/heartbeat")),
        "an agent's question": (8, lambda world: _of_silo(world, "GET", "/silo/jobs")),
    }


def _late_losses(world: World) -> Ask:
    late = world.filled.size.metric_rows // 20
    return world.get(f"/jobs/{world.filled.largest}/metrics?name=loss&limit=1000&after={late}")


def _of_silo(world: World, method: str, path: str) -> Ask:
    return Ask(method, path, world.filled.token(world.some_silo()))


class Callers:
    """Asks an API, and notes how long each answer took.

    Args:
        url: The API's.
        number: So many ask at once.
    """

    def __init__(self, url: str, *, number: int) -> None:
        self._number = number
        self._client = httpx2.AsyncClient(
            base_url=f"{url}{_PREFIX}",
            timeout=_TIMEOUT_SECONDS,
            limits=httpx2.Limits(max_connections=number, max_keepalive_connections=number),
        )
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    async def __aenter__(self) -> Self:
        """Open the client."""
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def sign_in(self, filled: Filled) -> World:
        """Sign in as the first admin; return what requests are made with."""
        answer = await self.answered(
            Ask("POST", "/sign-in", "", {"name": "admin", "password": filled.password})
        )
        world = World(filled, answer["token"])
        page = await self.answered(world.get("/jobs"))
        if page["next"] is None:  # a database of a few jobs
            return World(filled, answer["token"], {"jobs": _begin_of_all(page)})
        later = await self.answered(world.get(f"/jobs?after={page['next']}"))
        return World(filled, answer["token"], {"jobs": later["next"] or page["next"]})

    async def answered(self, ask: Ask) -> Any:
        """Ask once; return the answer's JSON, or None where it has none.

        Raises:
            RefusedError: It is no success.
        """
        headers = {"Authorization": f"Bearer {ask.token}"} if ask.token else {}
        answer = await self._client.request(ask.method, ask.path, json=ask.body, headers=headers)
        if not answer.is_success:
            raise RefusedError(f"{ask.method} {ask.path}: {answer.status_code} {answer.text[:500]}")
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json and answer.content else None

    async def try_everything(self, world: World) -> None:
        """Ask what the mix does not, once each; a refusal will do, a failure will not.

        Raises:
            RefusedError: The API failed.
        """
        for ask in _everything_else(world):
            headers = {"Authorization": f"Bearer {ask.token}"}
            answer = await self._client.request(ask.method, ask.path, json=ask.body, headers=headers)
            if answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
                raise RefusedError(f"{ask.method} {ask.path}: {answer.status_code} {answer.text[:500]}")

    async def scrape(self, url: str) -> None:
        """Ask for the numbers that Prometheus asks for.

        Raises:
            RefusedError: They are not shown.
        """
        answer = await self._client.get(f"{url}/metrics")
        if not answer.is_success:
            raise RefusedError(f"GET /metrics: {answer.status_code} {answer.text[:500]}")

    async def run(self, world: World, *, seconds: float, warmup_seconds: float = 0.0) -> float:
        """Let all callers ask for so long; return how many seconds were measured."""
        begin = time.perf_counter() + warmup_seconds
        end = begin + seconds
        names = list(mix())
        weights = [weight for weight, _ in mix().values()]
        order = random.Random(1).choices(names, weights, k=10_000)  # noqa: S311 - the same in every run
        turns = itertools.cycle(order)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._number):
                    group.create_task(self._call(world, turns, begin=begin, end=end))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return time.perf_counter() - begin

    async def _call(self, world: World, turns: Iterator[str], *, begin: float, end: float) -> None:
        asks = mix()
        while (asked_at := time.perf_counter()) < end:
            name = next(turns)
            await self.answered(asks[name][1](world))
            if asked_at >= begin:
                self.seconds[name].append(time.perf_counter() - asked_at)


def _begin_of_all(page: Mapping[str, Any]) -> str:
    newest: Sequence[Mapping[str, Any]] = page["items"]
    return f"{newest[0]['created_at']}_{newest[0]['id']}".replace("+", "%2B")


def _everything_else(world: World) -> Iterator[Ask]:
    job, (part, silo) = world.some_job(), world.filled.parts[0]
    page = f"after={world.pages['jobs']}"
    late_event = 1000 + world.filled.size.jobs * EACH_JOB["events"] - 500  # all would take minutes
    for path in (
        "/me", "/users", "/tokens", "/projects", "/workers", "/models", f"/models/{MODEL}",
        "/silos/invitations", "/silos?status=enrolled", "/silos/silo-0003", "/silos/silo-0003/datasets",
        "/datasets", "/datasets?after=silo-0003.notes", "/audit?after=5000", f"/blobs/{'0' * 64}",
        f"/jobs/{job}/artifacts", f"/jobs/{job}/artifacts?{page}",
        f"/jobs/{job}/metrics?party=silo:silo-0001", f"/jobs/{job}/logs?party=silo:silo-0001",
        f"/jobs?state=completed&name=job-77&silo=silo-0001&{page}",
        f"/events?follow=false&after={late_event}",
    ):  # fmt: skip
        yield world.get(path)
    yield Ask("POST", "/silos/invitations", world.token, {"name": "one-more"})
    for wish in ("cancel", "pause", "resume"):
        yield Ask("POST", f"/jobs/{job}/{wish}", world.token)
    for job_id in world.filled.jobs[:40]:
        yield Ask("POST", f"/jobs/{job_id}/retry", world.token, {})
    yield Ask("POST", f"/jobs/{job}/clone", world.token, {"changes": {}})
    yield Ask("POST", "/sign-in", world.token, {"name": "admin", "password": "guessed"})
    yield Ask("DELETE", f"/models/{MODEL}", world.token)
    token = world.filled.token(silo)
    yield Ask("PUT", f"/silo/jobs/{part}/approval", token, {"decision": "approved"})
    yield Ask("POST", f"/silo/jobs/{part}/attach", token, {"attempt": "ab" * 16})
    yield Ask("POST", f"/silo/jobs/{part}/finish", token, {"outcome": "failed", "code": "x", "message": ""})
    line = {"at": "2026-01-01T00:00:00Z", "level": "info", "event": "step"}
    yield Ask("POST", "/logs", token, {"job": part, "lines": [line]})
    yield Ask("POST", "/tickets", token, {"job": part, "replica": 0, "silo": silo_name(silo), "epoch": 1})
    yield Ask("GET", "/silo/jobs?known=x&wait_seconds=2", token)
    yield Ask("PUT", "/silo/datasets", token, {"datasets": []})
    yield Ask("POST", f"/silos/{silo_name(silo)}/revoke", world.token)
    yield Ask("DELETE", "/session", world.filled.token(silo + 1))
