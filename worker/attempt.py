"""One attempt to host a trunk, under one epoch: from the signed specification to the last round."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from splitlearn.channel import Terms
from splitlearn.control_plane.connecting import gateway_connector
from splitlearn.control_plane.job_log import JobLog
from splitlearn.control_plane.models import fetch_manifest, fetch_model, manifest_digest
from splitlearn.control_plane.schemas import DeviceBody, LeaseAnswer
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.exchange import Exchange
from splitlearn.parties import ComputeThread, Progress, RoundFinished, StuckError, TrunkParty
from splitlearn.partition import TrunkSegment
from splitlearn.planning import Role
from splitlearn.protocol import TrunkProtocol
from splitlearn.spec import JobSpec
from splitlearn.training import TrunkTrainer, replica_party
from splitlearn.wire import Codec
from worker.checkpoints import (
    CommittedPeers,
    LeasedCheckpoints,
    RoundPublisher,
    meet_peers,
    open_checkpoints,
)
from worker.devices import describe_device
from worker.home import Home
from worker.memory import Demand, explain_out_of_memory, is_out_of_memory, refuse_too_large
from worker.orders import Order, Orders
from worker.reporting import RoundReporter
from worker.trunk_cache import TrunkCache
from worker.verification import vouched_spec
from worker.watch import WorkerWatch

_log = structlog.get_logger("worker.trunk")
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

    def job_folder(self, job: str) -> Path:
        """Folder of a job's checkpoints."""
        return self.state.path / "jobs" / job


@dataclass(frozen=True, slots=True)
class Hosted:
    """How an attempt came out.

    Attributes:
        order: What ended it early; GO_ON when the last round is done.
        last_round: The last round that is committed.
        trunk: As the result is; None where the attempt ended before it was loaded.
        is_round_done: A replica has done its round, and waits for the others'.
        result_round: The round that the result is of, once the last one is done; 0 before.
    """

    order: Order
    last_round: int
    trunk: TrunkSegment | None
    is_round_done: bool = False
    result_round: int = 0


class Attempt:
    """Hosts the trunk of a lease once.

    Args:
        station: The worker.
        lease: Epoch and specification.
        orders: Obeyed; an immediate one within seconds.
        on_reached: Told of the round under way (0 before the first) and the global step.
        job_log: Told what people with the job may know.
    """

    def __init__(
        self,
        station: Station,
        lease: LeaseAnswer,
        orders: Orders,
        *,
        on_reached: OnReached,
        job_log: JobLog,
    ) -> None:
        self._job_log = job_log
        self._station, self._lease, self._orders = station, lease, orders
        self._on_reached = on_reached
        self._last_round = 0 if lease.checkpoint is None else lease.checkpoint.round
        self._trunk: TrunkSegment | None = None
        self._is_trained = self._is_complete = self._is_round_done = False
        self._result_round = 0
        self._demand: Demand | None = None
        self._num_rounds = 0

    async def run(self) -> Hosted:
        """Host until the last round is done, or an order says otherwise.

        Raises:
            TrunklineError: The attempt failed; nothing of what is committed is lost.
        """
        work = asyncio.create_task(self._host(), name="trunk")
        order = asyncio.create_task(self._orders.immediate(), name="orders")
        try:
            await asyncio.wait({work, order}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                self._raise_failure(work)
                return Hosted(
                    self._end(), self._last_round, self._trunk, self._is_round_done, self._result_round
                )
            ordered = order.result()
        except (RuntimeError, MemoryError) as error:
            if self._demand is None or not is_out_of_memory(error):
                raise
            self._station.trunks.clear()
            raise explain_out_of_memory(self._demand, self._station.describe_devices()) from error
        finally:
            for task in (work, order):
                task.cancel()
            outcome, _ = await asyncio.gather(work, order, return_exceptions=True)
            if isinstance(outcome, StuckError):  # whatever was ordered meanwhile: this process has to end
                raise outcome
        if self._is_round_done and ordered is Order.BEGIN_AGAIN:
            # A silo began again just after the round: there is nothing to be done anew.
            ordered = Order.GO_ON
        return Hosted(ordered, self._last_round, None, self._is_round_done and ordered is Order.GO_ON)

    def _raise_failure(self, work: "asyncio.Task[None]") -> None:
        """Raise what ended the work early. Once the last round is committed, only its result counts."""
        error = work.exception()
        if error is None:
            return
        if self._is_trained and isinstance(error, Exception) and not isinstance(error, StuckError):
            _log.warning("tidying_failed", after_round=self._last_round, exc_info=error)
            return
        raise error

    def _end(self) -> Order:
        return Order.GO_ON if self._is_complete or self._is_round_done else self._orders.order

    async def _host(self) -> None:
        station, lease = self._station, self._lease
        spec = await vouched_spec(
            lease,
            trust=station.state.trust,
            ask_again=lambda: station.home.ask(
                lambda client: client.take_lease(lease.job, lease.replica, lease.epoch)
            ),
        )
        demand = await self._fetch(spec)
        self._demand = demand
        home, folder = station.home, station.job_folder(lease.job)
        checkpoints = await open_checkpoints(home, lease, spec, folder)
        peers = await meet_peers(home, lease, spec, folder)
        async with AsyncExitStack() as stack:
            compute = await stack.enter_async_context(
                ComputeThread("trunk", patience_seconds=spec.patience_seconds)
            )
            trunk = await compute(self._station.trunks.get, demand)
            trainer = await compute(
                lambda: TrunkTrainer(trunk, spec=spec, party=replica_party(lease.replica))
            )
            exchanges = {
                name: await stack.enter_async_context(self._exchange(spec, name))
                for name in spec.shares[lease.replica]
                if name not in lease.lost
            }
            party = self._party(spec, trainer, exchanges, compute, checkpoints, peers=peers)
            self._reached(spec, checkpoints.last_round() + 1, 0)
            self._job_log.tell("trunk_hosted", round_number=checkpoints.last_round(), epoch=self._lease.epoch)
            _log.info("trunk_hosted", after_round=checkpoints.last_round(), silos=len(exchanges))
            before = self._last_round
            try:
                await party.run()
            finally:
                self._last_round = max(self._last_round, party.last_round)
                self._is_round_done = peers is not None and self._last_round > before
                is_last = party.rounds.is_over and party.last_round == party.rounds.last_round
                self._is_complete = party.is_over if peers is not None else is_last
                self._trunk, self._is_trained = trunk, self._is_complete or self._is_round_done
                self._result_round = party.rounds.result_round

    async def _fetch(self, spec: JobSpec) -> Demand:
        """Bring the trunk's layers here, unless there is no hope that they fit."""
        cut, station = spec.silos[0].cut, self._station
        path = await station.home.ask(
            lambda client: fetch_model(
                client,
                manifest_digest(spec.model),
                roles=[Role.TRUNK],
                bottom_layers=cut.bottom_layers,
                top_layers=cut.top_layers,
                cache=station.models,
                tokenizer=False,
            )
        )
        digest = manifest_digest(spec.model)
        manifest = await station.home.ask(lambda client: fetch_manifest(client, digest, station.models))
        station.used(digest)
        folder = manifest.folder(path)  # which knows all tensors' sizes, and needs the trunk's files alone
        demand = Demand(
            spec,
            folder,
            folder.cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers),
            on_heap=any(device.type == "cpu" for device in station.devices),
        )
        refuse_too_large(demand, station.describe_devices())
        return demand

    def _exchange(self, spec: JobSpec, silo: str) -> Exchange:
        lease, station = self._lease, self._station
        identity = station.state.identity()
        terms = Terms(
            job_id=lease.job,
            replica=lease.replica,
            epoch=lease.epoch,
            spec_digest=spec.digest(),
            silo_name=silo,
            worker_name=identity.certificate.name,
        )
        connect = gateway_connector(
            station.home, job=lease.job, replica=lease.replica, epoch=lease.epoch, silo=silo
        )
        protocol = TrunkProtocol(
            terms, identity=identity, trust=station.state.trust(), codec=Codec(spec.codec)
        )
        return Exchange(
            protocol, connect=connect, peer=f"silo {silo!r}", patience_seconds=spec.patience_seconds
        )

    def _party(
        self,
        spec: JobSpec,
        trainer: TrunkTrainer,
        exchanges: dict[str, Exchange],
        compute: ComputeThread,
        checkpoints: LeasedCheckpoints,
        *,
        peers: CommittedPeers | None,
    ) -> TrunkParty:
        station, lease = self._station, self._lease
        reporter = RoundReporter(
            station.home,
            lease,
            station.devices,
            on_reached=lambda round_number, steps: self._reached(spec, round_number, steps),
            watch=station.watch,
            job_log=self._job_log,
            count_bytes=lambda: sum(exchange.traffic.total_bytes for exchange in exchanges.values()),
        )

        def progressed(progress: Progress) -> None:
            self._num_rounds += isinstance(progress, RoundFinished)
            reporter(progress)

        return TrunkParty(
            spec=spec,
            trainer=trainer,
            exchanges=exchanges,
            compute=compute,
            checkpoints=checkpoints,
            on_progress=progressed,
            publish=RoundPublisher(station.home, lease),
            replica=lease.replica,
            peers=peers,
            stops_after_a_round=peers is not None,
            is_asked_to_stop=lambda: self._orders.ends_the_job_after(self._num_rounds),
        )

    def _reached(self, spec: JobSpec, round_number: int, steps_done: int) -> None:
        steps_before = (round_number - 1) * (spec.total_steps // spec.rounds)
        self._on_reached(min(round_number, spec.rounds), steps_before + steps_done)
