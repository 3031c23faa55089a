"""A job that has completed, and what its silos and workers say about generating with its result."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest

from backend.jobs.reconciler import reconcile
from tests.unit.backend.jobs.conftest import Federation
from tests.unit.backend.jobs.conftest import federation as federation
from tests.unit.backend.seeds import Seeds

ATTEMPT = "12" * 16
_REASON = {"who": "worker", "what": "says so", "where": "worker", "next": "nothing"}


@dataclass
class Generating:
    """The words of a session's parties, about one job."""

    federation: Federation
    job_id: str

    def open(self, silo: str = "north", attempt: str = ATTEMPT) -> dict[str, Any]:
        opened: dict[str, Any] = self.federation.parties[silo].ok(
            "POST", f"/silo/jobs/{self.job_id}/generations", {"attempt": attempt}
        )
        return opened

    def refused(self, silo: str = "north", attempt: str = ATTEMPT) -> tuple[int, str]:
        path = f"/silo/jobs/{self.job_id}/generations"
        return self.federation.parties[silo].refused("POST", path, {"attempt": attempt})

    def ask(self, session: str, silo: str = "north") -> dict[str, Any]:
        path = f"/silo/jobs/{self.job_id}/generations/{session}"
        standing: dict[str, Any] = self.federation.parties[silo].ok("GET", path)
        return standing

    def standing(self, session: str) -> tuple[str, str]:
        """State and reason as people see them, without a word of the silo."""
        items = self.federation.world.admin.ok("GET", f"/jobs/{self.job_id}/generations")["items"]
        [found] = [item for item in items if item["id"] == session]
        return found["state"], found["reason_code"]

    def end(self, session: str, silo: str = "north") -> None:
        self.federation.parties[silo].ok("DELETE", f"/silo/jobs/{self.job_id}/generations/{session}")

    def hosted(self, silo: str = "north", attempt: str = ATTEMPT) -> str:
        """A session whose task was sent under epoch 1."""
        session = str(self.open(silo, attempt)["id"])
        self.look()
        return session

    def taken(self, silo: str = "north", attempt: str = ATTEMPT) -> str:
        """A session whose worker has asked what it is to do."""
        session = self.hosted(silo, attempt)
        self.take(session)
        return session

    def take(self, session: str, *, epoch: int = 1, worker: str = "worker") -> dict[str, Any]:
        path = f"/worker/generations/{session}?epoch={epoch}"
        lease: dict[str, Any] = self.federation.parties[worker].ok("GET", path)
        return lease

    def renew(self, session: str, *, epoch: int = 1, idle_seconds: float = 0.0) -> dict[str, Any]:
        body = {"epoch": epoch, "num_tokens": 5, "idle_seconds": idle_seconds}
        path = f"/worker/generations/{session}/renew"
        answer: dict[str, Any] = self.federation.parties["worker"].ok("POST", path, body)
        return answer

    def renew_refused(self, session: str, *, epoch: int = 1, worker: str = "worker") -> tuple[int, str]:
        body = {"epoch": epoch, "num_tokens": 5, "idle_seconds": 0}
        path = f"/worker/generations/{session}/renew"
        return self.federation.parties[worker].refused("POST", path, body)

    def release(self, session: str, outcome: str, *, epoch: int = 1, num_tokens: int = 0) -> None:
        body = {
            "epoch": epoch, "outcome": outcome, "code": outcome, "reason": _REASON, "num_tokens": num_tokens,
        }  # fmt: skip
        self.federation.parties["worker"].ok("POST", f"/worker/generations/{session}/release", body)

    def look(self) -> None:
        self.federation.look()

    def wait(self, seconds: float, *, hearing: str | None = None) -> None:
        """Let time pass, in which the worker's process, and one session's silo, go on speaking."""
        step = 5.0
        while seconds > 0:
            self.federation.clock.advance(seconds=min(step, seconds))
            seconds -= step
            for party in self.federation.parties.values():
                party("POST", "/session/heartbeat")
            if hearing is not None:
                self.ask(hearing)
                self.renew(hearing)
            reconcile(self.federation.world.server, self.federation.dispatcher)


def complete(federation: Federation, **changes: Any) -> str:
    """A job that has completed, with a result."""
    job_id = federation.running(**changes)
    for number in (1, 2, 3):
        federation.commit(job_id, number)
    federation.release(job_id, "completed", result=federation.upload(f"trunk of {job_id}".encode()))
    federation.finish(job_id)
    federation.look()
    assert federation.state(job_id)[0] == "completed"
    return job_id


@pytest.fixture
def generating(federation: Federation, seeds: Seeds) -> Generating:
    """Where nobody has written since the federation, the job that was completed once is put in."""
    world = federation.world
    if world.as_kept != "federation":
        return Generating(federation, complete(federation))
    how = (world.server.settings, world.server.database)
    known = seeds.put("completed", *how, now=world.clock())
    if known is None:
        job_id, now = complete(federation), world.clock()
        seeds.keep("completed", *how, (job_id, deepcopy(federation.dispatcher)), now=now)
    else:
        job_id, dispatcher = known
        federation.dispatcher = deepcopy(dispatcher)
    return Generating(federation, job_id)
