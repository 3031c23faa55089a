"""A real control plane, gateway and worker, and silos that live in the test's own process."""

import asyncio
import base64
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from backend.embedded.programs import worker as worker_program
from backend.embedded.stack import Stack, UpOptions
from backend.settings import Settings
from splitlearn.channel import Terms
from splitlearn.control_plane.blobs import fetch_blob
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.connecting import gateway_connector
from splitlearn.control_plane.enrolment import enrol
from splitlearn.control_plane.errors import NoLeaseError
from splitlearn.control_plane.schemas import (
    ApprovalBody,
    BlobRef,
    DatasetAnnouncement,
    FinishBody,
    SiloJob,
    SiloLease,
)
from splitlearn.control_plane.session import Session
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.errors import TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.identity import CertificateKind
from splitlearn.parties import (
    ComputeThread,
    OnProgress,
    SiloAtMeeting,
    SiloAveraging,
    SiloEvaluation,
    SiloParty,
    is_meeting,
)
from splitlearn.partition import ModelFolder, load_silo_blocks
from splitlearn.processes import Child, free_port
from splitlearn.protocol import SiloProtocol
from splitlearn.simulation.platform.control_plane import ControlPlane
from splitlearn.spec import JobSpec
from splitlearn.tasks import BatchPlan, EvaluationPlan, SiloData
from splitlearn.training import CheckpointStore, SiloTrainer
from splitlearn.wire import Codec

_POLL_SECONDS = 0.1
WORKER = "gpu-1"


@dataclass
class Stage:
    """All processes but the silos.

    Attributes:
        stack: Control plane and gateway.
        folder: Of everything.
        environment: What processes inherit.
    """

    stack: Stack
    folder: Path
    environment: Mapping[str, str]
    admin: ControlPlane = field(init=False)

    def __post_init__(self) -> None:
        first = self.stack.first_admin
        assert first is not None
        self.admin = ControlPlane(self.stack.places.url)
        self.admin.sign_in(first.name, first.password)

    def invite(self, kind: str, name: str) -> str:
        """Return the text of an invitation."""
        text: str = self.admin.call("POST", f"/{kind}s/invitations", {"name": name})["invitation"]
        return text

    @contextmanager
    def worker(self, *arguments: str, name: str = WORKER, **settings: str) -> Iterator[Child]:
        """Run a worker process, killed at the end."""
        child = self.new_worker(*arguments, name=name, **settings)
        child.start()
        try:
            yield child
        finally:
            child.signal(signal.SIGKILL)
            child.stop()

    def new_worker(self, *arguments: str, name: str = WORKER, **settings: str) -> Child:
        """Return a worker that is not started."""
        places = self.stack.places
        is_new = not places.worker_dir(name).exists()
        program = worker_program(
            places,
            {**self.environment, "TRUNKLINE_WORKER_LOG_FORMAT": "json", **settings},
            name=name,
            invitation=self.invite("worker", name) if is_new else None,
            arguments=("--device", "cpu", "--threads", "1", *arguments),
        )
        return Child(program, log_folder=self.folder / "logs")

    def register(self, model: Path, *, name: str = "m") -> None:
        """Register a model and wait until it is ready."""
        if not (model / "tokenizer.json").exists():  # the rows are hand-made: any will do
            Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(model / "tokenizer.json"))
        self.admin.call("POST", "/models", {"name": name, "source": f"folder:{model}"})
        deadline = time.monotonic() + 30
        while (found := self.admin.call("GET", f"/models/{name}"))["state"] != "ready":
            assert found["state"] != "failed", found
            assert time.monotonic() < deadline, found
            time.sleep(_POLL_SECONDS)

    def submit(self, spec: JobSpec) -> str:
        """Submit a job; returns its id."""
        job_id: str = self.admin.call("POST", "/jobs", {"spec": spec.model_dump(mode="json")})["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as people see it."""
        found: dict[str, Any] = self.admin.call("GET", f"/jobs/{job_id}")
        return found

    async def until(
        self, job_id: str, is_so: Callable[[dict[str, Any]], bool], *, seconds: float = 40
    ) -> dict[str, Any]:
        """Wait for a job to be as is wanted."""
        deadline = time.monotonic() + seconds
        while not is_so(found := await asyncio.to_thread(self.job, job_id)):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(_POLL_SECONDS)
        return found

    def log(self, name: str = WORKER) -> str:
        """Return what a worker has said."""
        return (self.folder / "logs" / f"{name}.log").read_text()


@contextmanager
def staged(folder: Path, *, models_from: Path, **environment: str) -> Iterator[Stage]:
    """Run control plane and gateway."""
    inherited = {
        **os.environ,  # noqa: TID251 - children need a PATH
        "TRUNKLINE_MODEL_SOURCES": str(models_from),
        "TRUNKLINE_LEASE_SECONDS": "3",
        "TRUNKLINE_RENEW_SECONDS": "0.3",
        "TRUNKLINE_WORKER_MEASURE": "false",
        **environment,
    }
    settings = Settings(
        state_dir=folder, port=free_port(), password_memory_kib=64, password_passes=1, password_lanes=1
    )
    options = UpOptions(
        settings=settings,
        gateway_port=free_port(),
        workers=0,
        worker_arguments=(),
        environment=inherited,
    )
    stack = Stack(options, say=lambda _: None)
    with stack.running():
        stage = Stage(stack, folder, inherited)
        try:
            yield stage
        finally:
            stage.admin.close()


class UpTo(CheckpointStore):
    """Checkpoints of which those after a round (None: of any) do not count."""

    def __init__(self, newest: int | None, folder: Path, *, spec: JobSpec, party: str) -> None:
        super().__init__(folder, spec=spec, party=party)
        self._newest = newest

    def last_round(self) -> int:
        last_round = super().last_round()
        return last_round if self._newest is None else min(last_round, self._newest)


class Silo:
    """A silo whose program is this test: it joins every epoch of its one job.

    Args:
        stage: Where it takes part.
        model: Its model's folder.
        data: Its rows.
        on_progress: Told of its steps.
        hold_sums: May put something in the way of each attempt's sums.
        hold_evaluations: Likewise of each meeting's evaluations.
    """

    def __init__(
        self,
        stage: Stage,
        model: Path,
        data: SiloData,
        *,
        on_progress: OnProgress = lambda _: None,
        hold_sums: Callable[[SiloAveraging], SiloAveraging] = lambda averaging: averaging,
        hold_evaluations: Callable[[SiloEvaluation], SiloEvaluation] = lambda evaluation: evaluation,
    ) -> None:
        self._stage, self._model, self._data = stage, model, data
        self._on_progress, self.hold_sums = on_progress, hold_sums
        self.hold_evaluations = hold_evaluations
        self.name = data.name
        self.folder = stage.folder / "silos" / self.name
        self.state = StateFolder(self.folder / "state")
        self.epochs: list[int] = []
        self.result: Path | None = None
        self.announced = asyncio.Event()

    def checkpoints(self, spec: JobSpec) -> CheckpointStore:
        """Its rounds, as it trained them."""
        return CheckpointStore(self.folder / "checkpoints", spec=spec, party=self.name)

    def final_checkpoints(self, spec: JobSpec, *, newest: int | None = None) -> CheckpointStore:
        """Its rounds up to the newest that counts, as later ones begin from them."""
        return UpTo(newest, self._final_folder(spec), spec=spec, party=self.name)

    def final_state(self, spec: JobSpec, *, last_round: int | None = None) -> dict[str, Tensor]:
        """What it has on disk after the last round; the model of ``spec`` may be called otherwise."""
        last = self._final_folder(spec) / f"round-{last_round or spec.rounds:08d}" / "state.safetensors"
        state: dict[str, Tensor] = load_file(last)
        return state

    def _final_folder(self, spec: JobSpec) -> Path:
        return self.folder / ("averaged" if spec.silos_meet else "checkpoints")

    async def take_part(self) -> None:
        """Enrol, announce, approve, train under every epoch, take the result."""
        text = await asyncio.to_thread(self._stage.invite, "silo", self.name)
        await enrol(text, self.state, kind=CertificateKind.SILO)
        async with Session(self.state) as session:
            client = PartyClient(session)
            announcement = DatasetAnnouncement(
                name=self.name, task="any", num_rows=len(self._data.training), schema_digest="0" * 64
            )
            await client.put_datasets([announcement])
            self.announced.set()
            job = await self._until(client, lambda _: True)
            await client.put_approval(job.id, ApprovalBody(decision="approved"))
            await self._train(client, job)

    async def _train(self, client: PartyClient, job: SiloJob) -> None:
        spec = JobSpec.parse(_decoded(job.spec))
        over = 0
        while True:
            now = await self._moved(client, over)
            if now.result is not None:
                await self._finish(client, now.id, now.result)
                return
            try:
                lease = await client.attach(job.id, secrets.token_hex(16))
            except NoLeaseError:
                continue
            self.epochs.append(lease.epoch)
            over = lease.epoch
            await self._attempt(client, now, spec, lease)

    async def _attempt(self, client: PartyClient, job: SiloJob, spec: JobSpec, lease: SiloLease) -> None:
        newest = job.max_resume_round
        training = asyncio.create_task(self._host(client, job.id, spec, lease, newest=newest))
        moved = asyncio.create_task(self._moved(client, lease.epoch))
        await asyncio.wait({training, moved}, return_when=asyncio.FIRST_COMPLETED)
        for task in (training, moved):
            if not task.done():
                task.cancel()
        for outcome in await asyncio.gather(training, moved, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, TrunklineError):
                raise outcome

    async def _host(
        self, client: PartyClient, job_id: str, spec: JobSpec, lease: SiloLease, *, newest: int | None
    ) -> None:
        folder = ModelFolder.open(self._model)
        cut = folder.cut(
            bottom_layers=spec.silos[0].cut.bottom_layers, top_layers=spec.silos[0].cut.top_layers
        )
        adapter = None if spec.silo_blocks == "frozen" else spec.adapter
        blocks = load_silo_blocks(folder, cut, adapter=adapter, seed=spec.seed)
        undoable = len(spec.silos) > 1 and spec.silo_blocks != "frozen"
        terms = Terms(
            job_id=job_id,
            replica=lease.replica,
            epoch=lease.epoch,
            spec_digest=spec.digest(),
            silo_name=self.name,
            worker_name=lease.worker,
        )
        protocol = SiloProtocol(
            terms, identity=self.state.identity(), trust=self.state.trust(), codec=Codec(spec.codec)
        )
        connect = gateway_connector(
            client, job=job_id, replica=lease.replica, epoch=lease.epoch, silo=self.name
        )
        trainer = SiloTrainer(blocks, spec=spec, silo=self.name, undoable=undoable)
        async with AsyncExitStack() as stack:
            compute = await stack.enter_async_context(ComputeThread(self.name))
            exchange = await stack.enter_async_context(Exchange(protocol, connect=connect, peer=lease.worker))
            averaging = self._averaging(job_id, spec, trainer, compute)
            evaluation = EvaluationPlan(
                self._data.heldout, batch_size=spec.evaluation.batch_size, pad_token_id=0
            )
            if is_meeting(spec, lease.replica):
                held_out = SiloEvaluation(
                    silo=self.name,
                    trainer=trainer,
                    plan=evaluation,
                    compute=compute,
                    on_progress=self._on_progress,
                )
                meeting = SiloAtMeeting(
                    spec=spec,
                    silo=self.name,
                    trainer=trainer,
                    trained=self.checkpoints(spec),
                    averaged=self.final_checkpoints(spec),
                    averaging=averaging,
                    evaluation=self.hold_evaluations(held_out),
                    exchange=exchange,
                    compute=compute,
                    on_progress=self._on_progress,
                )
                await meeting.run()
                return
            party = SiloParty(
                spec=spec,
                silo=self.name,
                trainer=trainer,
                training=BatchPlan(
                    self._data.training,
                    batch_size=spec.batch_size,
                    seed=spec.seed,
                    silo_name=self.name,
                    pad_token_id=0,
                ),
                evaluation=evaluation,
                exchange=exchange,
                compute=compute,
                checkpoints=self.checkpoints(spec),
                begins_from=self.final_checkpoints(spec, newest=newest),
                on_progress=self._on_progress,
                averaging=None if spec.silos_meet else averaging,
                says_goodbye=False,
            )
            await party.run()

    def _averaging(
        self, job_id: str, spec: JobSpec, trainer: SiloTrainer, compute: ComputeThread
    ) -> SiloAveraging | None:
        if spec.silo_blocks != "averaged":
            return None
        averaging = SiloAveraging.of(
            spec,
            job=job_id,
            identity=self.state.identity(),
            trust=self.state.trust(),
            record=self.folder / "sums.json",
            trainer=trainer,
            compute=compute,
        )
        return self.hold_sums(averaging)

    async def _finish(self, client: PartyClient, job_id: str, blob: BlobRef) -> None:
        self.result = await fetch_blob(client, blob, self.folder / "trunk.safetensors")
        await client.finish(job_id, FinishBody(outcome="completed"))

    async def _moved(self, client: PartyClient, epoch: int) -> SiloJob:
        """Wait for the result, or for a lease of a higher epoch."""
        return await self._until(client, lambda seen: seen.result is not None or _epoch(seen) > epoch)

    async def _until(self, client: PartyClient, is_so: Callable[[SiloJob], bool]) -> SiloJob:
        while True:
            for job in (await client.silo_jobs()).jobs:
                if is_so(job):
                    return job
            await asyncio.sleep(_POLL_SECONDS)


def _epoch(job: SiloJob) -> int:
    return job.lease.epoch if job.lease is not None else 0


def _decoded(text: str) -> bytes:
    return base64.b64decode(text)
