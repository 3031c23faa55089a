"""One attempt to host a trunk, under one epoch: from the signed specification to the last round."""

from contextlib import AsyncExitStack
from functools import partial

import structlog

from splitlearn.control_plane.job_log import JobLog
from splitlearn.control_plane.schemas import LeaseAnswer
from splitlearn.exchange import Exchange
from splitlearn.parties import ComputeThread, Progress, RoundFinished, StuckError, TrunkParty
from splitlearn.spec import JobSpec
from splitlearn.training import TrunkTrainer
from worker.averages import CommittedPeers, meet_peers
from worker.checkpoints import LeasedCheckpoints, RoundPublisher, open_checkpoints
from worker.orders import Order, Orders
from worker.reporting import RoundReporter
from worker.station import Hosted, OnReached, Station, until_ordered
from worker.trunk_loading import LeasedTrunk

_log = structlog.get_logger("worker.trunk")


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
        self._loaded = LeasedTrunk(station, lease)
        self._is_trained = self._is_complete = self._is_round_done = False
        self._result_round: int | None = None
        self._num_rounds = 0

    async def run(self) -> Hosted:
        """Host until the last round is done, or an order says otherwise.

        Raises:
            TrunklineError: The attempt failed; nothing of what is committed is lost.
        """
        try:
            ordered = await until_ordered(self._host(), self._orders)
        except Exception as error:
            if not self._is_trained or isinstance(error, StuckError):
                self._loaded.explain(error)
                raise
            # Once the last round is committed, only its result counts.
            _log.warning("tidying_failed", after_round=self._last_round, exc_info=error)
            ordered = None
        if ordered is None:
            trunk = self._loaded.segment
            return Hosted(self._end(), self._last_round, trunk, self._is_round_done, self._result_round)
        if self._is_round_done and ordered is Order.BEGIN_AGAIN:
            # A silo began again just after the round: there is nothing to be done anew.
            ordered = Order.GO_ON
        return Hosted(ordered, self._last_round, None, self._is_round_done and ordered is Order.GO_ON)

    def _end(self) -> Order:
        return Order.GO_ON if self._is_complete or self._is_round_done else self._orders.order

    async def _host(self) -> None:
        station, lease = self._station, self._lease
        spec = await station.vouched_spec(lease)
        home, folder = station.home, station.job_folder(lease.job)
        checkpoints = await open_checkpoints(home, lease, spec, folder)
        peers = await meet_peers(home, lease, spec, folder, own=checkpoints.committed_file)
        async with AsyncExitStack() as stack:
            trainer, compute = await self._loaded.load(stack, spec)
            exchanges = {
                name: await stack.enter_async_context(self._station.exchange(lease, spec, name))
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
                self._is_trained = self._is_complete or self._is_round_done
                self._result_round = party.rounds.result_round

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
            on_reached=partial(self._reached, spec),
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
        if self._num_rounds and spec.replicas > 1:
            return  # of a replica this was the only round
        steps_before = (round_number - 1) * (spec.total_steps // spec.rounds)
        self._on_reached(min(round_number, spec.rounds), steps_before + steps_done)
