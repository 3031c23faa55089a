"""Agents of many silos in one process: each signs in with a key of its own, beats, and waits for jobs.

What an agent's supervisor asks of the control plane when it has nothing to do, at its own intervals. Agents
share one client and its connections; no model, data set or folder is there.
"""

import asyncio
import base64
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2

from splitlearn.control_plane.session import HEARTBEAT_SECONDS, new_boot_id
from splitlearn.errors import ProcessError
from splitlearn.identity import LOGIN_CONTEXTS, CertificateKind, SigningKey, login_statement

WAIT_SECONDS = 20.0
"""As ``client_agent.supervisor`` asks to be held back."""
_PREFIX = "/api/v1"
_SIGN_IN_AT_ONCE = 20
_TIMEOUT_SECONDS = 120.0
_PAUSE_SECONDS = 1.0


class NoAnswerError(ProcessError):
    """The API did not answer: it has too much to do, or is gone."""


@dataclass
class Agent:
    """One silo's agent.

    Attributes:
        name: The silo's.
        key: Its identity.
        token: Of its session.
        seen: Jobs that it was told of, and when.
    """

    name: str
    key: SigningKey = field(repr=False)
    token: str = field(default="", repr=False)
    seen: dict[str, float] = field(default_factory=dict)
    _told: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def tell(self, jobs: Sequence[Mapping[str, Any]], *, now: float) -> None:
        """Note which jobs it was told of."""
        for job in jobs:
            self.seen.setdefault(job["id"], now)
        self._told.set()

    async def knows(self, job: str) -> None:
        """Wait until it was told of a job."""
        while job not in self.seen:
            self._told.clear()
            await self._told.wait()


class Fleet:
    """All agents, and how long the control plane took to answer them.

    An agent that is not answered asks again, as the product's do; how often that was is ``num_unanswered``.

    Args:
        url: The API's; also what is signed.
        agents: Who.
    """

    def __init__(self, url: str, agents: list[Agent]) -> None:
        self._url, self.agents = url, agents
        most = 2 * len(agents) + 10  # a held question and a heartbeat each
        self._client = httpx2.AsyncClient(
            base_url=f"{url}{_PREFIX}",
            timeout=_TIMEOUT_SECONDS,
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.num_answers = self.num_unanswered = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Open the client."""
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def sign_in(self) -> float:
        """Sign all in, some at a time; return how many seconds that took."""
        began, gate = time.perf_counter(), asyncio.Semaphore(_SIGN_IN_AT_ONCE)
        await asyncio.gather(*(self._sign_in(agent, gate) for agent in self.agents))
        return time.perf_counter() - began

    def begin(self) -> None:
        """Let them beat and ask from now on, spread over their intervals as if each had begun some time."""
        chance = random.Random(0)  # noqa: S311 - when they begin
        for agent in self.agents:
            for act in (self._beat, self._ask):
                later = chance.uniform(0, HEARTBEAT_SECONDS if act == self._beat else WAIT_SECONDS)
                self._tasks.append(asyncio.create_task(act(agent, later)))

    def check(self) -> None:
        """Raise what ended an agent before its time.

        Raises:
            ProcessError: The API refused it.
        """
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def call(self, method: str, path: str, *, token: str = "", body: Any = None) -> Any:
        """Ask once; return the answer.

        Raises:
            NoAnswerError: None came.
            ProcessError: It is no success.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = await self._client.request(method, path, json=body, headers=headers)
        except httpx2.HTTPError as error:
            self.num_unanswered += 1
            raise NoAnswerError(
                f"{method} {path}: no answer within {_TIMEOUT_SECONDS:g} s ({type(error).__name__})"
            ) from error
        if not answer.is_success:
            raise ProcessError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        self.num_answers += 1
        return answer.json() if answer.content else None

    async def _sign_in(self, agent: Agent, gate: asyncio.Semaphore) -> None:
        async with gate:
            asked_at = time.perf_counter()
            nonce = await self.call("GET", "/login/nonce")
            boot_id, kind = new_boot_id(), CertificateKind.SILO
            statement = login_statement(
                audience=self._url,
                kind=kind,
                name=agent.name,
                nonce=nonce["nonce"],
                boot_id=boot_id,
                previous_boot_id="",
            )
            body = {
                "kind": kind.value,
                "name": agent.name,
                "nonce": nonce["nonce"],
                "boot_id": boot_id,
                "previous_boot_id": None,
                "signature": base64.b64encode(agent.key.sign(LOGIN_CONTEXTS[kind], statement)).decode(
                    "ascii"
                ),
            }
            answer: Mapping[str, Any] = await self.call("POST", "/login", body=body)
            agent.token = answer["token"]
            self.seconds["sign-in"].append(time.perf_counter() - asked_at)

    async def _answered(self, agent: Agent, method: str, path: str) -> Any:
        """Ask until there is an answer; return it."""
        while True:
            try:
                return await self.call(method, path, token=agent.token)
            except NoAnswerError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _beat(self, agent: Agent, later: float) -> None:
        await asyncio.sleep(later)
        while True:
            asked_at = time.perf_counter()
            await self._answered(agent, "POST", "/session/heartbeat")
            self.seconds["heartbeat"].append(time.perf_counter() - asked_at)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _ask(self, agent: Agent, later: float) -> None:
        await asyncio.sleep(later)
        path, answer = "/silo/jobs", None
        while True:
            asked_at = time.perf_counter()
            answer = await self._answered(agent, "GET", path)
            agent.tell(answer["jobs"], now=time.perf_counter())
            path = f"/silo/jobs?known={answer['tag']}&wait_seconds={WAIT_SECONDS:g}"
            await asyncio.sleep(asked_at + answer["poll_seconds"] - time.perf_counter())
