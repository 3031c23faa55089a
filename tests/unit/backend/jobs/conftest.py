"""A control plane with a model, silos, a worker and a job; the parties' words are sent as they would be."""

import base64
import hashlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from backend.audit.service import OPERATOR
from backend.db.models import Model
from backend.jobs.reconciler import reconcile
from backend.organizations.repository import find_organization, find_project
from backend.organizations.service import create_organization
from backend.users.service import NewUser
from splitlearn.control_plane.broker import TASK_NAME
from splitlearn.control_plane.generation_schemas import GenerationDispatch
from splitlearn.control_plane.schemas import DispatchBody
from splitlearn.errors import LinkError
from splitlearn.identity import CertificateKind, FederationRoot, Invitation, PublicKey
from splitlearn.planning import ModelManifest, TensorEntry, TensorFile
from tests.unit.backend.conftest import Api, Clock, PartyProgram, World
from tests.unit.backend.seeds import Seeds

LAYERS = 4
WIDTH = 8
PASSWORD = "a-password-for-the-test"
ATTEMPT = "ab" * 16
OTHER_ATTEMPT = "cd" * 16
ANNOUNCED = {"name": "notes", "task": "causal-lm", "num_rows": 7, "schema_digest": "00" * 32}
CAPABILITIES = {
    "version": "0.1.0",
    "device": {"kind": "cpu", "name": "test", "total_memory_bytes": 1 << 34, "free_memory_bytes": 1 << 33},
    "precisions": ["fp32"],
}


def make_manifest() -> ModelManifest:
    """A llama of four layers, of which no file exists."""

    def file(name: str, *tensors: str) -> TensorFile:
        entries = {
            tensor: TensorEntry(dtype="F32", shape=(WIDTH, WIDTH), num_bytes=4 * WIDTH * WIDTH)
            for tensor in tensors
        }
        return TensorFile(
            name=name, digest=hashlib.sha256(name.encode()).hexdigest(), num_bytes=300, tensors=entries
        )

    layers = [
        file(f"layer-{number:05d}.safetensors", f"model.layers.{number}.self_attn.q_proj.weight")
        for number in range(LAYERS)
    ]
    config = {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "vocab_size": WIDTH,
        "tie_word_embeddings": False,
    }
    return ModelManifest(
        source="test",
        family="llama",
        num_layers=LAYERS,
        hidden_size=WIDTH,
        num_parameters=6 * WIDTH * WIDTH,
        num_bytes=24 * WIDTH * WIDTH,
        config=config,
        companions=(),
        files=(
            file("after.safetensors", "lm_head.weight"),
            file("before.safetensors", "model.embed_tokens.weight"),
            *layers,
        ),
    )


@dataclass
class FakeDispatcher:
    """Keeps what was sent; refuses while it is broken."""

    sent: list[tuple[str, DispatchBody]] = field(default_factory=list)
    generations: list[tuple[str, GenerationDispatch]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    is_broken: bool = False

    def send(self, worker: str, body: DispatchBody, *, task: str = TASK_NAME) -> None:
        if self.is_broken:
            raise LinkError("the broker is away")
        self.sent.append((worker, body))
        self.tasks.append(task)

    def send_generation(self, worker: str, body: GenerationDispatch) -> None:
        if self.is_broken:
            raise LinkError("the broker is away")
        self.generations.append((worker, body))


@dataclass
class Federation:
    """Two silos, one worker, and what they say."""

    world: World
    clock: Clock
    dispatcher: FakeDispatcher
    programs: dict[str, PartyProgram]
    parties: dict[str, Api]

    def spec(self, **changes: Any) -> dict[str, Any]:
        silos = [{"name": name, "dataset": "notes"} for name in ("north", "south")]
        return {
            "name": "job",
            "model": "tiny",
            "silos": silos,
            "rounds": 3,
            "patience_seconds": 60,
            **changes,
        }

    def submit(self, **changes: Any) -> str:
        job = self.world.admin.ok("POST", "/jobs", {"spec": self.spec(**changes)})
        return str(job["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.world.admin.ok("GET", f"/jobs/{job_id}")
        return shown

    def state(self, job_id: str) -> tuple[str, str]:
        job = self.job(job_id)
        return job["state"], job["reason"]["code"]

    def look(self) -> None:
        """Let the reconciler look until it has nothing more to do."""
        for _ in range(4):
            reconcile(self.world.server, self.dispatcher)

    def approve(self, job_id: str, *silos: str) -> None:
        for silo in silos or ("north", "south"):
            self.parties[silo].ok("PUT", f"/silo/jobs/{job_id}/approval", {"decision": "approved"})

    def placed(self, **changes: Any) -> str:
        """A job whose task was sent under epoch 1."""
        job_id = self.submit(**changes)
        self.approve(job_id)
        self.look()
        return job_id

    def lease(self, job_id: str, epoch: int = 1) -> dict[str, Any]:
        answer: dict[str, Any] = self.parties["worker"].ok("GET", f"{self._lease(job_id)}?epoch={epoch}")
        return answer

    def running(self, **changes: Any) -> str:
        """A job whose silos have joined epoch 1, and whose trunk is in round 1."""
        job_id = self.placed(**changes)
        self.lease(job_id)
        for silo in ("north", "south"):
            self.attach(job_id, silo)
        self.renew(job_id, round_number=1)
        return job_id

    def attach(self, job_id: str, silo: str, attempt: str = ATTEMPT) -> dict[str, Any]:
        path = f"/silo/jobs/{job_id}/attach"
        answer: dict[str, Any] = self.parties[silo].ok("POST", path, {"attempt": attempt})
        return answer

    def renew(self, job_id: str, *, epoch: int = 1, round_number: int = 0) -> dict[str, Any]:
        body = {"epoch": epoch, "round": round_number, "step": 0}
        answer: dict[str, Any] = self.parties["worker"].ok("POST", f"{self._lease(job_id)}/renew", body)
        return answer

    def upload(self, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        worker = self.parties["worker"]
        response = worker.client.put(
            f"/api/v1/blobs/{digest}", content=content, headers={"Authorization": f"Bearer {worker.token}"}
        )
        assert response.status_code == 204, response.text
        return {"digest": digest, "num_bytes": len(content)}

    def commit_body(self, number: int, *, epoch: int = 1, content: bytes = b"state") -> dict[str, Any]:
        blob = self.upload(content + bytes([number]))
        return {"epoch": epoch, "checkpoint": {"round": number, "blob": blob}, "seconds": 1.0}

    def commit(self, job_id: str, number: int, *, epoch: int = 1) -> None:
        body = self.commit_body(number, epoch=epoch)
        self.parties["worker"].ok("POST", f"{self._lease(job_id)}/rounds", body)

    def release_body(self, outcome: str, *, epoch: int = 1, result: Any = None) -> dict[str, Any]:
        reason = {"who": "worker", "what": f"was {outcome}", "where": "round 3", "next": "nothing"}
        return {"epoch": epoch, "outcome": outcome, "code": outcome, "reason": reason, "result": result}

    def release(self, job_id: str, outcome: str, *, epoch: int = 1, result: Any = None) -> None:
        body = self.release_body(outcome, epoch=epoch, result=result)
        self.parties["worker"].ok("POST", f"{self._lease(job_id)}/release", body)

    def finish(self, job_id: str, *silos: str) -> None:
        for silo in silos or ("north", "south"):
            self.parties[silo].ok("POST", f"/silo/jobs/{job_id}/finish", {"outcome": "completed"})

    def restart_worker(self) -> None:
        self.programs["worker"] = self.programs["worker"].restarted()
        token = self.programs["worker"].log_in()["token"]
        self.parties["worker"] = self.world.anybody.as_(token)
        self.parties["worker"].ok("PUT", "/worker/capabilities", CAPABILITIES)

    def add_silo(self, name: str) -> None:
        """One more silo, with data."""
        self.programs[name] = self.world.enrolled(name, "silo")
        self.parties[name] = self.world.anybody.as_(self.programs[name].log_in()["token"])
        self.parties[name].ok("PUT", "/silo/datasets", {"datasets": [ANNOUNCED]})

    def another_worker(self, name: str) -> Api:
        """A second worker of the same organisation, online."""
        token = self.world.enrolled(name, "worker").log_in()["token"]
        worker = self.world.anybody.as_(token)
        worker.ok("PUT", "/worker/capabilities", CAPABILITIES)
        return worker

    def foreign_worker(self, name: str = "foreign-gpu") -> Api:
        """Another organisation's worker, online."""
        answer = self.foreign_admin().ok("POST", "/workers/invitations", {"name": name})
        program = PartyProgram(self.world.anybody, Invitation.parse(answer["invitation"]))
        program.enrol()
        worker = self.world.anybody.as_(program.log_in()["token"])
        worker.ok("PUT", "/worker/capabilities", CAPABILITIES)
        return worker

    def foreign_admin(self) -> Api:
        """The admin of another organisation, made by this call."""
        new = NewUser("fremd", self.world.server.passwords.hash(PASSWORD))
        with self.world.server.database.write() as session:
            create_organization(session, name="elsewhere", admin=new, actor=OPERATOR, now=self.clock())
        return self.world.sign_in("fremd", PASSWORD)

    def _lease(self, job_id: str) -> str:
        return f"/worker/leases/{job_id}/0"


def add_model(world: World) -> None:
    """Register the model, without its files."""
    with world.server.database.write() as session:
        organization = find_organization(session, "default")
        assert organization is not None
        project = find_project(session, organization.id, "default")
        assert project is not None
        manifest = make_manifest()
        session.add(
            Model(
                project_id=project.id,
                name="tiny",
                source="test",
                family="llama",
                num_layers=LAYERS,
                num_parameters=manifest.num_parameters,
                num_bytes=manifest.num_bytes,
                digest=bytes.fromhex(manifest.digest()),
                manifest=manifest.model_dump(mode="json"),
                created_at=world.clock(),
            )
        )


def signed_by(root: FederationRoot, world: World, request: dict[str, Any], **changes: Any) -> str:
    """The certificate that a person with the offline root makes of a request."""
    asked = {**request, **changes}
    certificate = root.issue(
        PublicKey(base64.b64decode(asked["public_key"])),
        kind=CertificateKind(asked["kind"]),
        name=asked["name"],
        not_before=world.clock(),
        not_after=world.clock() + timedelta(days=30),
    )
    return base64.b64encode(certificate.to_bytes()).decode()


def build_federation(world: World, *, root: FederationRoot | None = None) -> Federation:
    """Register the model, enrol the parties, announce the data.

    Args:
        world: The control plane.
        root: Its root, if that is offline.
    """
    add_model(world)
    programs = {}
    for name, kind in (("north", "silo"), ("south", "silo"), ("worker", "worker")):
        programs[name] = world.enrolled(name, kind)
        if root is not None:
            request = world.admin.ok("GET", f"/{kind}s/{name}/certificate-request")
            body = {"certificate": signed_by(root, world, request)}
            world.admin.ok("PUT", f"/{kind}s/{name}/certificate", body)
    parties = {name: world.anybody.as_(program.log_in()["token"]) for name, program in programs.items()}
    for silo in ("north", "south"):
        parties[silo].ok("PUT", "/silo/datasets", {"datasets": [ANNOUNCED]})
    parties["worker"].ok("PUT", "/worker/capabilities", CAPABILITIES)
    return Federation(world, world.clock, FakeDispatcher(), programs, parties)


def federation_like_others(world: World, seeds: Seeds) -> Federation:
    """As :func:`build_federation`; in a world that nobody has written to, what was built once is put in."""
    if world.as_kept != "world":
        return build_federation(world)
    how = (world.server.settings, world.server.database)
    known = seeds.put("federation", *how, now=world.clock())
    if known is not None:
        programs, tokens = known
        mine = {name: replace(program, api=world.anybody) for name, program in programs.items()}
        parties = {name: world.anybody.as_(token) for name, token in tokens.items()}
        world.kept_as("federation")
        return Federation(world, world.clock, FakeDispatcher(), mine, parties)
    federation = build_federation(world)
    programs = {name: replace(program) for name, program in federation.programs.items()}
    tokens = {name: party.token for name, party in federation.parties.items()}
    if seeds.keep("federation", *how, (programs, tokens), now=world.clock()):
        world.kept_as("federation")
    return federation


@pytest.fixture
def federation(world: World, seeds: Seeds) -> Federation:
    return federation_like_others(world, seeds)
