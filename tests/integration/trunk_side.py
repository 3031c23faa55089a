"""The worker's side of a job in a test: hosts the trunk under the job's epochs, and can be held at a step."""

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from safetensors.torch import save

from backend.gateway import Role
from splitlearn.channel import Terms
from splitlearn.exchange import Exchange
from splitlearn.link import Connect, Link, connect_gateway
from splitlearn.parties import ComputeThread, TrunkParty
from splitlearn.partition import TrunkSegment, load_trunk, segment_state
from splitlearn.planning import ModelFolder
from splitlearn.protocol import TrunkProtocol
from splitlearn.training import CheckpointStore, TrunkTrainer
from splitlearn.wire import Codec
from tests.integration.fake_control_plane import WORKER, FakeControlPlane, FakeJob

HOLD_SECONDS = 60.0
_LOOK_SECONDS = 0.05


class Gate:
    """Holds the trunk when a step begins, until the test lets it go on.

    Args:
        step: Global step, from 0.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self.reached, self.open = threading.Event(), threading.Event()

    def pass_step(self, step: int) -> None:
        if step == self._step:
            self.reached.set()
            assert self.open.wait(HOLD_SECONDS), "nobody opened the gate"


class _HeldTrainer(TrunkTrainer):
    gate: Gate | None = None

    def begin_step(self, step: int, **fields: Any) -> None:
        if self.gate is not None:
            self.gate.pass_step(step)
        super().begin_step(step, **fields)


class TrunkSide:
    """Hosts one job's trunk, in a thread of its own.

    Args:
        control_plane: Holds the job's epoch.
        job: The job.
        folder: The whole model.
        work_dir: Gets the trunk's checkpoints.
        gate: Where to hold.
    """

    def __init__(
        self,
        control_plane: FakeControlPlane,
        job: FakeJob,
        *,
        folder: ModelFolder,
        work_dir: Path,
        gate: Gate | None = None,
    ) -> None:
        self._control_plane, self._job, self._folder = control_plane, job, folder
        self._work_dir, self._gate = work_dir, gate
        self._is_stopped = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._host()))

    def start(self) -> None:
        """Take the lease, and begin."""
        self._control_plane.change(self._job, epoch=self._job.epoch + 1, state="running")
        self._thread.start()

    def stop(self) -> None:
        """End, whether the job is through or not."""
        self._is_stopped = True
        if self._gate is not None:
            self._gate.open.set()
        self._thread.join(HOLD_SECONDS)

    async def _host(self) -> None:
        while True:
            epoch = self._job.epoch
            attempt = asyncio.create_task(self._attempt(epoch))
            while not attempt.done() and self._job.epoch == epoch and not self._is_stopped:
                await asyncio.wait({attempt}, timeout=_LOOK_SECONDS)
            if attempt.done():
                result = self._control_plane.put_blob(save(attempt.result()))
                self._control_plane.change(self._job, result=result, state="finishing")
                return
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
            if self._is_stopped:
                return

    async def _attempt(self, epoch: int) -> Any:
        spec = self._job.spec
        cut = spec.silos[0].cut
        async with AsyncExitStack() as stack:
            compute = await stack.enter_async_context(ComputeThread("trunk"))
            trunk: TrunkSegment = await compute(
                load_trunk,
                self._folder,
                self._folder.cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers),
                adapter=spec.adapter,
                seed=spec.seed,
            )
            trainer = _HeldTrainer(trunk, spec=spec)
            trainer.gate = self._gate
            exchanges = {
                silo.name: await stack.enter_async_context(self._exchange(silo.name, epoch))
                for silo in spec.silos
            }
            party = TrunkParty(
                spec=spec,
                trainer=trainer,
                exchanges=exchanges,
                compute=compute,
                checkpoints=CheckpointStore(self._work_dir / "trunk", spec=spec, party="trunk-0"),
            )
            await party.run()
            return segment_state(trunk)

    def _exchange(self, silo: str, epoch: int) -> Exchange:
        spec, control_plane = self._job.spec, self._control_plane
        terms = Terms(
            job_id=self._job.id,
            replica=0,
            epoch=epoch,
            spec_digest=spec.digest(),
            silo_name=silo,
            worker_name=WORKER,
        )
        protocol = TrunkProtocol(
            terms, identity=control_plane.worker, trust=control_plane.trust, codec=Codec(spec.codec)
        )
        return Exchange(
            protocol,
            connect=self._connect(silo, epoch),
            peer=f"silo {silo!r}",
            patience_seconds=spec.patience_seconds,
        )

    def _connect(self, silo: str, epoch: int) -> Connect:
        async def connect() -> Link:
            ticket = self._control_plane.ticket(self._job, silo=silo, role=Role.WORKER, epoch=epoch)
            return await connect_gateway(self._control_plane.gateway_url, ticket=ticket)

        return connect
