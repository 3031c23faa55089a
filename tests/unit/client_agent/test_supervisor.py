"""What the supervisor makes of a job's signature, with a control plane and processes of the test."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from client_agent.data import Dataset, DatasetRegistry
from client_agent.places import AgentFolder
from client_agent.processes.forkery import Forkery
from client_agent.processes.job_process import JobProcess
from client_agent.processes.messages import Order
from client_agent.supervisor import Supervisor
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.schemas import ApprovalBody, DesiredState, SiloJob, SiloJobsAnswer
from splitlearn.control_plane.state_folder import Membership, StateFolder
from splitlearn.identity import CertificateKind, FederationRoot, Identity, SigningKey, sign_spec
from splitlearn.records import ColumnMapping, DataFormat
from splitlearn.spec import JobSpec
from tests.unit.client_agent.conftest import Write
from tests.unit.client_agent.test_job_keeper import FakeProcess

PATIENCE_SECONDS = 20.0
NOW = datetime.now(tz=UTC)
ROOT = FederationRoot.generate()
SPEC = JobSpec.parse({"model": "m", "silos": [{"name": "north", "dataset": "notes"}]})


def certified(kind: CertificateKind, name: str, key: SigningKey | None = None) -> Identity:
    key, until = key or SigningKey.generate(), NOW + timedelta(days=9)
    certificate = ROOT.issue(key.public_key, kind=kind, name=name, not_before=NOW, not_after=until)
    return Identity(certificate, key)


def job(signer: Identity) -> SiloJob:
    spec_bytes = SPEC.canonical_bytes()
    return SiloJob(
        id="0f3c0000-0000-4000-8000-000000000001",
        name="job",
        state="awaiting_approval",
        desired=DesiredState.RUN,
        approval="waiting",
        spec=base64.b64encode(spec_bytes).decode(),
        signature=base64.b64encode(sign_spec(spec_bytes, signer=signer).to_bytes()).decode(),
    )


class FakeSession:
    boot_id = "ab" * 16

    async def ended(self) -> None:
        await asyncio.Event().wait()

    async def refresh_revocations(self, *, known_number: int) -> None:
        pass


@dataclass
class FakeControlPlane:
    """Answers with the next of the test's signatures whenever it is asked at once, and holds other questions.

    Attributes:
        signers: Of the job, one for each answer; the last one stays.
        refusals: What the silo has said.
    """

    signers: list[Identity]
    session: FakeSession = field(default_factory=FakeSession)
    refusals: list[ApprovalBody] = field(default_factory=list)
    num_asked: int = 0
    has_refused: asyncio.Event = field(default_factory=asyncio.Event)

    async def put_datasets(self, _datasets: object) -> None:
        pass

    async def silo_jobs(self, *, known: str = "", wait_seconds: float = 0) -> SiloJobsAnswer:
        if known:
            await asyncio.sleep(wait_seconds)
        signer = self.signers[min(self.num_asked, len(self.signers) - 1)]
        self.num_asked += 1
        return SiloJobsAnswer(
            poll_seconds=0.01, revocation_number=1, jobs=(job(signer),), tag=str(self.num_asked)
        )

    async def put_approval(self, _job: str, body: ApprovalBody) -> None:
        self.refusals.append(body)
        self.has_refused.set()


class FakeForkery:
    """Notes which processes were asked for; they stay until they are stopped."""

    def __init__(self) -> None:
        self.has_forked = asyncio.Event()

    async def fork(self, order: Order) -> JobProcess:
        assert order.job_id
        self.has_forked.set()
        return cast("JobProcess", FakeProcess(stays=True))


@pytest.fixture
def state(tmp_path: Path, write: Write) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    silo = certified(CertificateKind.SILO, "north", folder.signing_key())
    membership = Membership(
        kind="silo",
        name="north",
        url="http://127.0.0.1:1",
        invitation="0" * 64,
        root_public_key=base64.b64encode(ROOT.public_key.raw).decode(),
        certificate=base64.b64encode(silo.certificate.to_bytes()).decode(),
    )
    folder.write_membership(membership)
    mapping = ColumnMapping()
    path = write("a.txt", "x\n")
    DatasetRegistry(folder.path).put(
        Dataset.read("notes", path, data_format=DataFormat.TEXT, columns=mapping, task="causal-lm")
    )
    return folder


def serve(
    state: StateFolder,
    signers: list[Identity],
    until: Callable[[FakeControlPlane, FakeForkery], asyncio.Event],
) -> FakeControlPlane:
    """Let a supervisor serve until something has happened, and return what was said."""

    async def test() -> FakeControlPlane:
        control_plane, forkery = FakeControlPlane(signers), FakeForkery()
        supervisor = Supervisor(
            AgentFolder(state.path),
            state=state,
            client=cast("PartyClient", control_plane),
            forkery=cast("Forkery", forkery),
            threads=1,
            device="cpu",
        )
        serving = asyncio.create_task(supervisor.run())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await until(control_plane, forkery).wait()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        return control_plane

    return asyncio.run(test())


def revoke(state: StateFolder, signer: Identity) -> None:
    serials: list[Any] = [signer.certificate.serial]
    state.update_revocations(ROOT.revoke(serials, issued_at=NOW, previous=None))


class TestSignature:
    def test_of_a_key_replaced_a_moment_ago_is_asked_for_again(self, state: StateFolder) -> None:
        """The answer with the job is older than the revocations: the key was replaced in between."""
        old, new = (certified(CertificateKind.SPEC_SIGNER, "control-plane") for _ in range(2))
        revoke(state, old)
        control_plane = serve(state, [old, new], lambda _, forkery: forkery.has_forked)
        assert (control_plane.num_asked, control_plane.refusals) == (2, [])

    def test_that_stays_the_same_is_refused_for_good(self, state: StateFolder) -> None:
        old = certified(CertificateKind.SPEC_SIGNER, "control-plane")
        revoke(state, old)
        control_plane = serve(state, [old], lambda control_plane, _: control_plane.has_refused)
        [refusal] = control_plane.refusals
        assert (control_plane.num_asked, refusal.decision, refusal.code) == (
            2,
            "refused",
            "revoked_certificate",
        )
        assert "is revoked" in refusal.reason
