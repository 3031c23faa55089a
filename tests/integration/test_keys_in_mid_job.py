"""Keys are rotated and others shut out while a job runs on real processes; it is the same to the bit."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from splitlearn.control_plane.enrolment import enrol
from splitlearn.control_plane.errors import RefusedError
from splitlearn.control_plane.rotation import rotate_key
from splitlearn.control_plane.session import Session
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.identity import CertificateKind
from splitlearn.parties import Progress, RoundFinished
from splitlearn.simulation.demo_inputs import Inputs, Rows
from splitlearn.simulation.platform.control_plane import ControlPlane
from splitlearn.simulation.results import SimulationResult
from tests.integration.test_platform import Killer, _assert_same, _federation
from tests.integration.test_platform import in_process as in_process  # noqa: PLC0414 - a fixture
from tests.integration.test_platform import prepared as prepared  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.slow
LIMIT_SECONDS = 5.0


@dataclass
class Operator(Killer):
    """After round 1 rotates every key and shuts bystanders out; then the parts are killed, and begin anew."""

    silo: str
    folder: Path
    done: list[str] = field(default_factory=list)
    serials: dict[str, tuple[int, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.silo)

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, RoundFinished) and progress.round == 1 and not self.done:
            self.done.append("round 1")
            self._rotate()
            self._shut_out()
        super().__call__(progress)

    def _rotate(self) -> None:
        for path in sorted(self.folder.rglob("membership.json")):
            state = StateFolder(path.parent)
            before = state.identity().certificate
            after = asyncio.run(rotate_key(state, patience_seconds=30))
            self.serials[f"{before.kind.value} {before.name}"] = before.serial, after.serial
        answer = self._control_plane.call("POST", "/federation/spec-signer/rotation")
        assert answer["certificate"] is not None

    @property
    def _control_plane(self) -> ControlPlane:
        assert self.federation is not None
        return self.federation.control_plane

    def _shut_out(self) -> None:
        admin = self._control_plane
        password = admin.call("POST", "/users", {"name": "bystander", "role": "researcher"})["password"]
        body = {"name": "bystander", "password": password}
        token = admin.call("POST", "/tokens", {"name": "script"})
        user, browser = admin.call("POST", "/sign-in", body)["token"], httpx2.Client(base_url=admin.url)
        with browser:
            word = browser.post("/api/v1/sign-in", json={**body, "cookie": True}).json()["csrf_token"]
            assert browser.get("/api/v1/me").status_code == 200
            signed_out = browser.post("/api/v1/sign-out", headers={"X-CSRF-Token": word})
            assert signed_out.status_code == 204
            self._await("browser session", lambda: browser.get("/api/v1/me").status_code)
        admin.call("DELETE", f"/tokens/{token['id']}")
        self._await("API token", lambda: self._status(token["token"]))
        assert self._status(user) == 200
        admin.call("PATCH", "/users/bystander", {"disabled": True})
        self._await("user", lambda: self._status(user))
        for kind in ("silo", "worker"):
            asyncio.run(self._revoke_party(kind))

    async def _revoke_party(self, kind: str) -> None:
        admin = self._control_plane
        invitation = admin.call("POST", f"/{kind}s/invitations", {"name": "bystander"})["invitation"]
        state = StateFolder(self.folder.parent / f"bystander-{kind}")
        await enrol(invitation, state, kind=CertificateKind(kind), patience_seconds=30)
        async with Session(state, log_out=False) as session:
            token = await session.token()
            admin.call("POST", f"/{kind}s/bystander/revoke")
            route = "/session/heartbeat"
            self._await(kind, lambda: self._status(token, method="POST", route=route))
            with pytest.raises(RefusedError):
                await session.renew(token)

    def _status(self, token: str, *, method: str = "GET", route: str = "/me") -> int:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self._control_plane.url}/api/v1{route}"
        return httpx2.request(method, url, headers=headers, trust_env=False, timeout=30).status_code

    def _await(self, what: str, status: Callable[[], int]) -> None:
        began = time.monotonic()
        while status() != 401:
            assert time.monotonic() - began < LIMIT_SECONDS, f"{what} outlived its revocation"
        self.seconds[what] = time.monotonic() - began


def test_a_job_goes_on_under_new_keys_while_others_are_shut_out(
    prepared: tuple[Inputs, Rows],
    in_process: SimulationResult,
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    operator = Operator(prepared[0].spec.silos[0].name, work)
    federation = operator.federation = _federation(prepared, work, operator)
    result = federation.run()
    assert operator.killed == ["agent", "worker"]
    assert len(operator.serials) == 3
    assert all(old != new for old, new in operator.serials.values())
    assert set(operator.seconds) == {"browser session", "API token", "user", "silo", "worker"}
    _assert_same(result, in_process)
