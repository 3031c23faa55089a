"""A control plane for tests of the agent: answers its routes from memory, by the schemas, and can be away."""

import asyncio
import base64
import hashlib
import json
import secrets
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from safetensors.torch import save

from backend.gateway import Conversation, Role, issue_ticket
from backend.parties.takeover import Entry, decide
from splitlearn.control_plane.schemas import BlobRef, DesiredState, LogLine, MetricPoint, SiloJob, SiloLease
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    FederationRoot,
    Fingerprint,
    Identity,
    Invitation,
    PublicKey,
    SigningKey,
    TrustStore,
    sign_spec,
)
from splitlearn.partition.reading import TensorReader
from splitlearn.planning import ModelFolder
from splitlearn.planning.manifest import BlobFile, ModelManifest, TensorEntry, TensorFile, group_by_file
from splitlearn.spec import JobSpec
from tests.unit.gateway.conftest import CONTROL_PLANE

WORKER = "gpu-1"
VALIDITY = timedelta(days=30)
START_SECONDS = 20.0
COMPANIONS = ("tokenizer.json", "tokenizer_config.json")


@dataclass
class FakeJob:
    """A job as the control plane holds it; the test changes it."""

    id: str
    spec: JobSpec
    signature: bytes
    state: str = "awaiting_approval"
    desired: DesiredState = DesiredState.RUN
    epoch: int = 0
    approvals: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    attached: dict[str, tuple[int, str]] = field(default_factory=dict)
    finished: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    metrics: dict[tuple[str, str, int, int], float] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)
    result: BlobRef | None = None

    @property
    def is_over(self) -> bool:
        return self.state in {"completed", "failed", "cancelled"}


class FakeControlPlane:
    """State, and the routes over it.

    Args:
        gateway_url: Where tickets are good.
    """

    def __init__(self, gateway_url: str) -> None:
        self.gateway_url = gateway_url
        self.root = FederationRoot.generate()
        self.signer = self.certified(CertificateKind.SPEC_SIGNER, "specs")
        self.worker = self.certified(CertificateKind.WORKER, WORKER)
        self.trust = TrustStore(self.root.public_key)
        self.jobs: dict[str, FakeJob] = {}
        self.datasets: dict[str, list[dict[str, Any]]] = {}
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.tokens: dict[str, tuple[str, str]] = {}
        self.boots: dict[str, str] = {}
        self.changed = threading.Condition()
        self.invited: dict[bytes, str] = {}
        self.is_away = False
        self.url = ""

    # What a test does

    def certified(self, kind: CertificateKind, name: str) -> Identity:
        key = SigningKey.generate()
        return Identity(self._certificate(key.public_key, kind, name), key)

    def invite(self, silo: str) -> str:
        """Return an invitation for a silo."""
        fingerprint = Fingerprint.of(self.root.public_key)
        secret = secrets.token_bytes(32)
        self.invited[secret] = silo
        return Invitation(CertificateKind.SILO, silo, self.url, fingerprint, secret).to_text()

    def register(self, folder: ModelFolder) -> str:
        """Take in a model; return how a specification names it."""
        with TensorReader(folder) as reader:
            files = tuple(
                self._tensor_file(name, infos, reader) for name, infos in group_by_file(folder).items()
            )
        manifest = ModelManifest(
            source="hub/tiny",
            family=folder.family.model_type,
            num_layers=folder.num_layers,
            hidden_size=folder.hidden_size,
            num_parameters=0,
            num_bytes=sum(file.num_bytes for file in files),
            config=dict(folder.config),
            companions=tuple(self._companion(folder.path / name) for name in COMPANIONS),
            files=files,
        )
        self.manifests[manifest.digest()] = manifest.canonical_bytes()
        return f"tiny@sha256:{manifest.digest()}"

    def submit(self, spec: JobSpec) -> FakeJob:
        """Sign a job and show it to its silos."""
        signature = sign_spec(spec.canonical_bytes(), signer=self.signer).to_bytes()
        job = FakeJob(str(uuid.uuid4()), spec, signature)
        self.jobs[job.id] = job
        return job

    def wait_until(self, holds: Any, *, seconds: float = 60.0) -> None:
        """Wait until a route has changed something so that ``holds()``."""
        with self.changed:
            assert self.changed.wait_for(holds, timeout=seconds), "it did not come to pass"

    def change(self, job: FakeJob, **fields: Any) -> None:
        """Change a job, and wake who waits."""
        with self.changed:
            for name, value in fields.items():
                setattr(job, name, value)
            self.changed.notify_all()

    def put_blob(self, content: bytes) -> BlobRef:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return BlobRef(digest=digest, num_bytes=len(content))

    # Routes

    def app(self) -> FastAPI:
        app = FastAPI()
        for method, path, handler in (
            ("GET", "/federation", self._federation),
            ("POST", "/enrolment", self._enrol),
            ("GET", "/login/nonce", self._nonce),
            ("POST", "/login", self._login),
            ("POST", "/session/heartbeat", self._heartbeat),
            ("DELETE", "/session", self._log_out),
            ("PUT", "/silo/datasets", self._datasets),
            ("GET", "/silo/jobs", self._silo_jobs),
            ("PUT", "/silo/jobs/{job}/approval", self._approve),
            ("POST", "/silo/jobs/{job}/attach", self._attach),
            ("POST", "/silo/jobs/{job}/finish", self._finish),
            ("POST", "/tickets", self._ticket),
            ("POST", "/metrics", self._metrics),
            ("POST", "/logs", self._logs),
            ("GET", "/models/manifests/{digest}", self._manifest),
            ("GET", "/blobs/{digest}", self._blob),
        ):
            app.add_api_route(f"/api/v1{path}", self._guarded(handler), methods=[method], response_model=None)
        return app

    def _guarded(self, handler: Any) -> Any:
        async def route(request: Request) -> Response:
            if self.is_away:
                return _refusal(503, "unavailable")
            body = json.loads(raw) if (raw := await request.body()) else {}
            with self.changed:
                answer = handler(request, body)
                self.changed.notify_all()
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return route

    def _silo_of(self, request: Request) -> str:
        token = request.headers["authorization"].removeprefix("Bearer ")
        return self.tokens[token][0]

    def _federation(self, _: Request, __: Any) -> Any:
        return {
            "audience": self.url,
            "root_public_key": _text(self.root.public_key.raw),
            "revocation_number": 0,
            "revocation_list": None,
        }

    def _enrol(self, _: Request, body: Any) -> Any:
        name = self.invited[base64.b64decode(body["secret"])]
        certificate = self._certificate(
            PublicKey(base64.b64decode(body["public_key"])), CertificateKind.SILO, name
        )
        return {
            "kind": "silo",
            "name": name,
            "status": "enrolled",
            "certificate": _text(certificate.to_bytes()),
            "root_public_key": _text(self.root.public_key.raw),
        }

    def _nonce(self, _: Request, __: Any) -> Any:
        return {"nonce": secrets.token_hex(8), "audience": self.url}

    def _login(self, _: Request, body: Any) -> Any:
        name, boot = body["name"], body["boot_id"]
        entry = decide(
            recorded_boot_id=self.boots.get(name),
            other_is_live=any(silo == name for silo, _ in self.tokens.values()),
            boot_id=boot,
            previous_boot_id=body["previous_boot_id"] or "",
        )
        if entry is Entry.REFUSED:
            return _refusal(409, "identity_in_use")
        if entry.raises_epoch:
            self.tokens = {key: value for key, value in self.tokens.items() if value[0] != name}
        self.boots[name] = boot
        token = secrets.token_hex(8)
        self.tokens[token] = (name, boot)
        return {"token": token, "epoch": 1}

    def _heartbeat(self, _: Request, __: Any) -> Any:
        return {"epoch": 1, "revocation_number": 0}

    def _log_out(self, request: Request, _: Any) -> Any:
        self.tokens.pop(request.headers["authorization"].removeprefix("Bearer "), None)
        return Response(status_code=204)

    def _datasets(self, request: Request, body: Any) -> Any:
        self.datasets[self._silo_of(request)] = body["datasets"]
        return Response(status_code=204)

    def _silo_jobs(self, request: Request, _: Any) -> Any:
        silo = self._silo_of(request)
        jobs = [self._view(job, silo) for job in self.jobs.values() if self._wants(job, silo)]
        return {"poll_seconds": 0.1, "revocation_number": 0, "jobs": jobs}

    def _wants(self, job: FakeJob, silo: str) -> bool:
        is_in = any(entry.name == silo for entry in job.spec.silos)
        return is_in and not job.is_over and silo not in job.finished

    def _view(self, job: FakeJob, silo: str) -> Any:
        return SiloJob(
            id=job.id,
            name=job.spec.name,
            state=job.state,
            desired=job.desired,
            approval=job.approvals.get(silo, ("waiting",))[0],
            spec=_text(job.spec.canonical_bytes()),
            signature=_text(job.signature),
            lease=self._lease(job) if job.epoch and job.result is None else None,
            result=job.result,
        ).model_dump(mode="json")

    def _lease(self, job: FakeJob) -> SiloLease:
        return SiloLease(replica=0, epoch=job.epoch, worker=WORKER, gateway_url=self.gateway_url)

    def _approve(self, request: Request, body: Any) -> Any:
        job = self.jobs[request.path_params["job"]]
        job.approvals[self._silo_of(request)] = (body["decision"], body["code"], body["reason"])
        if body["decision"] == "refused":
            job.state = "failed"
        return Response(status_code=204)

    def _attach(self, request: Request, body: Any) -> Any:
        job, silo = self.jobs[request.path_params["job"]], self._silo_of(request)
        if job.is_over:
            return _refusal(409, "job_over")
        epoch, attempt = job.attached.get(silo, (0, ""))
        if epoch == job.epoch and attempt != body["attempt"]:
            job.epoch += 1
        job.attached[silo] = (job.epoch, body["attempt"])
        return self._lease(job).model_dump(mode="json")

    def _finish(self, request: Request, body: Any) -> Any:
        job, silo = self.jobs[request.path_params["job"]], self._silo_of(request)
        job.finished[silo] = (body["outcome"], body["code"], body["message"])
        if body["outcome"] == "failed":
            job.state = "failed"
        elif len(job.finished) == len(job.spec.silos):
            job.state = "completed"
        return Response(status_code=204)

    def _ticket(self, request: Request, body: Any) -> Any:
        job = self.jobs[body["job"]]
        if body["epoch"] != job.epoch:
            return _refusal(409, "lease_lost")
        text = self.ticket(job, silo=self._silo_of(request), role=Role.SILO, epoch=job.epoch)
        return {"ticket": text, "gateway_url": self.gateway_url, "valid_seconds": 60}

    def ticket(self, job: FakeJob, *, silo: str, role: Role, epoch: int) -> str:
        talk = Conversation(job.id, 0, silo, WORKER, epoch=epoch)
        return issue_ticket(talk, role=role, now=datetime.now(tz=UTC), seconds=60, key=CONTROL_PLANE)

    def _metrics(self, request: Request, body: Any) -> Any:
        silo = self._silo_of(request)
        for raw in body["metrics"]:
            point = MetricPoint.model_validate(raw)
            self.jobs[body["job"]].metrics[silo, point.name, point.round, point.step] = point.value
        return Response(status_code=204)

    def _logs(self, request: Request, body: Any) -> Any:
        silo = self._silo_of(request)
        lines = [LogLine.model_validate(raw) for raw in body["lines"]]
        self.jobs[body["job"]].told += [(silo, line.event) for line in lines]
        return Response(status_code=204)

    def _manifest(self, request: Request, _: Any) -> Any:
        return Response(self.manifests[request.path_params["digest"]])

    def _blob(self, request: Request, _: Any) -> Any:
        return Response(self.blobs[request.path_params["digest"]])

    def _certificate(self, key: PublicKey, kind: CertificateKind, name: str) -> Certificate:
        now = datetime.now(tz=UTC)
        return self.root.issue(key, kind=kind, name=name, not_before=now, not_after=now + VALIDITY)

    def _tensor_file(self, name: str, infos: Any, reader: TensorReader) -> TensorFile:
        blob = self.put_blob(save({info.name: reader.read(info.name) for info in infos}))
        entries = {
            info.name: TensorEntry(dtype=info.dtype, shape=info.shape, num_bytes=info.num_bytes)
            for info in infos
        }
        return TensorFile(name=name, digest=blob.digest, num_bytes=blob.num_bytes, tensors=entries)

    def _companion(self, path: Path) -> BlobFile:
        blob = self.put_blob(path.read_bytes())
        return BlobFile(name=path.name, digest=blob.digest, num_bytes=blob.num_bytes)


@contextmanager
def serving(control_plane: FakeControlPlane) -> Iterator[None]:
    """Answer at a free port of loopback."""
    config = uvicorn.Config(control_plane.app(), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def told(sockets: Any = None) -> None:
        await startup(sockets)
        port = server.servers[0].sockets[0].getsockname()[1]
        control_plane.url = f"http://127.0.0.1:{port}"
        started.set()

    server.startup = told  # type: ignore[method-assign]
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    try:
        assert started.wait(START_SECONDS), "the control plane did not start"
        yield
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _refusal(status: int, code: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": f"refused: {code}", "remedy": None}, status_code=status)
