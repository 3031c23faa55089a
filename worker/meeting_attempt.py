"""One attempt to average a round of a trunk's replicas, under one epoch of the meeting's lease."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

import structlog
from torch import Tensor

from splitlearn.control_plane.job_log import JobLog
from splitlearn.control_plane.schemas import LeaseAnswer, MetricPoint
from splitlearn.errors import StorageError
from splitlearn.parties import (
    BlocksAveraged,
    Judged,
    MeetingParty,
    Progress,
    RoundFinished,
    StuckError,
    WatchedRounds,
)
from splitlearn.spec import JobSpec
from worker.averages import Averaged, average_contributions, bring_average, write_average
from worker.checkpoints import RoundPublisher
from worker.orders import Order, Orders
from worker.reporting import WHOLE_ROUND, send_points
from worker.station import Hosted, OnReached, Station, until_ordered
from worker.stored_files import read_tensors
from worker.trunk_loading import LeasedTrunk

_log = structlog.get_logger("worker.meeting")


class MeetingAttempt:
    """Averages one round, once: the trunks here, and the silos' blocks by a sum that this worker leads.

    Where evaluations decide on the job's end or its result, the average is evaluated here, with all silos.

    Args:
        station: The worker.
        lease: Epoch, specification, and what the replicas have contributed.
        orders: Obeyed where they are immediate: any other finds the meeting over soon by itself.
        on_reached: Told of the round, and of the global step that it ends with.
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
        assert lease.meeting is not None, "the lease is a meeting's"
        self._station, self._lease, self._meeting = station, lease, lease.meeting
        self._orders, self._on_reached, self._job_log = orders, on_reached, job_log
        self._publisher = RoundPublisher(station.home, lease)  # which counts the seconds from here
        self._loaded = LeasedTrunk(station, lease)
        self._is_done = False

    async def run(self) -> Hosted:
        """Average until the round is committed, or an order gives that up.

        Raises:
            TrunklineError: The attempt failed; nothing of the round is lost.
        """
        try:
            ordered = await until_ordered(self._host(), self._orders)
        except Exception as error:
            if not self._is_done or isinstance(error, StuckError):
                self._loaded.explain(error)
                raise
            # The average is committed: a conversation's end takes nothing away from that.
            _log.warning("tidying_failed", round=self._meeting.round, exc_info=error)
            ordered = None
        if self._is_done and ordered in {None, Order.BEGIN_AGAIN}:
            return Hosted(Order.GO_ON, self._meeting.round, None, is_round_done=True)
        return Hosted(ordered or Order.GO_ON, self._meeting.round - 1, None)

    async def _host(self) -> None:
        station, lease, number = self._station, self._lease, self._meeting.round
        spec = await station.vouched_spec(lease)
        self._on_reached(number, number * spec.global_steps_per_round)
        averaged = await average_contributions(
            station.home, self._meeting, spec, station.job_folder(lease.job)
        )
        _log.info("replicas_averaged", round=number, replicas=len(spec.shares))
        self._job_log.tell("replicas_averaged", round_number=number, epoch=lease.epoch)
        if not spec.silos_meet:
            await self._commit(averaged.state)
            return
        async with AsyncExitStack() as stack:
            judged = await self._judged(stack, spec, averaged) if spec.meeting_evaluates else None
            exchanges = {
                silo.name: await stack.enter_async_context(station.exchange(lease, spec, silo.name))
                for silo in spec.silos
                if silo.name not in lease.lost
            }

            async def commit() -> None:
                await self._commit(averaged.state if judged is None else judged.state())

            party = MeetingParty(
                spec=spec,
                round=number,
                exchanges=exchanges,
                commit=commit,
                judged=judged,
                on_progress=self._progressed,
            )
            await party.run()

    async def _judged(self, stack: AsyncExitStack, spec: JobSpec, averaged: Averaged) -> Judged:
        """Load the trunk, and what the last meeting left."""
        trainer, compute = await self._loaded.load(stack, spec)
        rounds = WatchedRounds(spec)
        if self._meeting.round > 1:
            left = await self._left_by_the_last()
            await compute(trainer.load_state, rounds.resume(left))
        return Judged(trainer, compute, averaged.state, rounds, averaged.begun)

    async def _left_by_the_last(self) -> Mapping[str, Tensor]:
        station, lease, number = self._station, self._lease, self._meeting.round - 1
        if lease.checkpoint is None or lease.checkpoint.round != number:
            raise StorageError(
                f"the average of round {number} is not kept any more, and with it what its evaluation said; "
                "retry the job from an earlier round that is kept: trunkline jobs retry"
            )
        path = await bring_average(station.home, lease.checkpoint.blob, station.job_folder(lease.job))
        return await asyncio.to_thread(read_tensors, path, round_number=number)

    def _progressed(self, progress: Progress) -> None:
        match progress:
            case BlocksAveraged():
                _log.info(
                    "blocks_averaged",
                    round=progress.round,
                    silos=len(progress.silos),
                    averaged=progress.averaged,
                    seconds=round(progress.seconds, 3),
                )
                self._job_log.tell("blocks_averaged", round_number=progress.round, seconds=progress.seconds)
            case RoundFinished(best_round=int(best)):
                point = MetricPoint(name="best_round", round=progress.round, step=WHOLE_ROUND, value=best)
                send_points(self._station.home, self._lease, [point])
            case _:
                pass

    async def _commit(self, state: Mapping[str, Tensor]) -> None:
        path = await asyncio.to_thread(write_average, state, self._station.job_folder(self._lease.job))
        await self._publisher.publish(self._meeting.round, path)
        self._is_done = True
