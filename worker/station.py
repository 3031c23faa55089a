"""What every attempt of a worker uses, and how it obeys and speaks, whatever it hosts."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from splitlearn.channel import Terms
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.connecting import gateway_connector
from splitlearn.control_plane.schemas import DeviceBody, LeaseAnswer
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.exchange import Exchange
from splitlearn.parties import StuckError
from splitlearn.partition import TrunkSegment
from splitlearn.protocol import TrunkProtocol
from splitlearn.spec import JobSpec
from splitlearn.wire import Codec
from worker.devices import describe_device
from worker.home import Home
from worker.orders import Order, Orders
from worker.trunk_cache import TrunkCache
from worker.verification import vouched_spec
from worker.watch import WorkerWatch

OnReached = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Station:
    """What every attempt of this worker uses.

    Attributes:
        home: The control plane's thread.
        state: The worker's folder.
        devices: Where trunks are computed.
        trunks: Those that are loaded.
        watch: Counts what is done.
    """

    home: Home
    state: StateFolder
    devices: tuple[torch.device, ...]
    trunks: TrunkCache
    watch: WorkerWatch

    @property
    def models(self) -> Path:
        """Cache of models."""
        return self.state.path / "models"

    def describe_devices(self) -> list[DeviceBody]:
        """Return the devices as they are now."""
        return [describe_device(device) for device in self.devices]

    def models_at_hand(self) -> list[str]:
        """Return the digests of the models whose layers lie here, the last used first."""
        found = sorted(self.models.glob("manifests/*.json"), key=lambda path: path.stat().st_mtime)
        return [path.stem for path in reversed(found)]

    def used(self, digest: str) -> None:
        """Note that a model was used just now."""
        (self.models / "manifests" / f"{digest}.json").touch()

    @property
    def jobs(self) -> Path:
        """The folders of jobs."""
        return self.state.path / "jobs"

    def job_folder(self, job: str) -> Path:
        """Folder of a job's checkpoints."""
        return self.jobs / job

    async def vouched_spec(self, lease: LeaseAnswer) -> JobSpec:
        """Return a lease's specification; see :func:`worker.verification.vouched_spec`."""

        def take(client: PartyClient) -> Coroutine[Any, Any, LeaseAnswer]:
            return client.take_lease(lease.job, lease.replica, lease.epoch)

        return await vouched_spec(lease, trust=self.state.trust, ask_again=lambda: self.home.ask(take))

    def exchange(self, lease: LeaseAnswer, spec: JobSpec, silo: str) -> Exchange:
        """Return the conversation with a silo under a lease, not begun."""
        identity = self.state.identity()
        terms = Terms(
            job_id=lease.job,
            replica=lease.replica,
            epoch=lease.epoch,
            spec_digest=spec.digest(),
            silo_name=silo,
            worker_name=identity.certificate.name,
        )
        connect = gateway_connector(
            self.home, job=lease.job, replica=lease.replica, epoch=lease.epoch, silo=silo
        )
        protocol = TrunkProtocol(terms, identity=identity, trust=self.state.trust(), codec=Codec(spec.codec))
        return Exchange(
            protocol, connect=connect, peer=f"silo {silo!r}", patience_seconds=spec.patience_seconds
        )


@dataclass(frozen=True, slots=True)
class Hosted:
    """How an attempt came out.

    Attributes:
        order: What ended it early; GO_ON when the last round is done.
        last_round: The last round that is committed.
        trunk: As the result is; None where the attempt ended before it was loaded.
        is_round_done: A replica has done its round, and waits for the others'.
        result_round: The round that the result is of, once the last one is done; None before.
    """

    order: Order
    last_round: int
    trunk: TrunkSegment | None
    is_round_done: bool = False
    result_round: int | None = None


async def until_ordered(work: Coroutine[Any, Any, None], orders: Orders) -> Order | None:
    """Do some work until it is done, or an order gives it up.

    Returns:
        That order; None where the work is done.

    Raises:
        StuckError: A computation did not come back, whatever was ordered meanwhile.
        TrunklineError: The work failed.
    """
    doing = asyncio.create_task(work, name="trunk")
    ordered = asyncio.create_task(orders.immediate(), name="orders")
    try:
        await asyncio.wait({doing, ordered}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
            return None
        return ordered.result()
    finally:
        for task in (doing, ordered):
            task.cancel()
        outcome, _ = await asyncio.gather(doing, ordered, return_exceptions=True)
        if isinstance(outcome, StuckError):  # whatever was ordered meanwhile: this process has to end
            raise outcome
