"""One attempt to average a round of a trunk's replicas, under one epoch of the meeting's lease."""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog

from splitlearn.control_plane.job_log import JobLog
from splitlearn.control_plane.schemas import LeaseAnswer
from splitlearn.parties import MeetingParty
from splitlearn.spec import JobSpec
from worker.averages import average_contributions
from worker.checkpoints import RoundPublisher
from worker.orders import Order, Orders
from worker.station import Hosted, OnReached, Station, until_ordered

_log = structlog.get_logger("worker.meeting")


class MeetingAttempt:
    """Averages one round, once: the trunks here, and the silos' blocks by a sum that this worker leads.

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
        self._is_done = False

    async def run(self) -> Hosted:
        """Average until the round is committed, or an order gives that up.

        Raises:
            TrunklineError: The attempt failed; nothing of the round is lost.
        """
        try:
            ordered = await until_ordered(self._host(), self._orders)
        except Exception as error:
            if not self._is_done:
                raise
            # The average is committed: a conversation's end takes nothing away from that.
            _log.warning("tidying_failed", round=self._meeting.round, exc_info=error)
            ordered = None
        if self._is_done and ordered in {None, Order.BEGIN_AGAIN}:
            return Hosted(Order.GO_ON, self._meeting.round, None, is_round_done=True)
        return Hosted(ordered or Order.GO_ON, self._meeting.round - 1, None)

    async def _host(self) -> None:
        spec, number = await self._station.vouched_spec(self._lease), self._meeting.round
        self._on_reached(number, number * spec.global_steps_per_round)
        folder = self._station.job_folder(self._lease.job)
        average = await average_contributions(self._station.home, self._meeting, spec, folder)
        _log.info("replicas_averaged", round=number, replicas=len(spec.shares))
        self._job_log.tell("replicas_averaged", round_number=number, epoch=self._lease.epoch)
        if spec.silo_blocks == "averaged":
            await self._meet(spec, average)
        else:
            await self._commit(average)

    async def _meet(self, spec: JobSpec, average: Path) -> None:
        async with AsyncExitStack() as stack:
            exchanges = {
                silo.name: await stack.enter_async_context(
                    self._station.exchange(self._lease, spec, silo.name)
                )
                for silo in spec.silos
            }
            party = MeetingParty(
                spec=spec,
                round=self._meeting.round,
                exchanges=exchanges,
                commit=partial(self._commit, average),
            )
            summed = await party.run()
        _log.info(
            "blocks_averaged",
            round=summed.round,
            silos=len(summed.silos),
            averaged=summed.averaged,
            seconds=round(summed.seconds, 3),
        )
        self._job_log.tell("blocks_averaged", round_number=summed.round, seconds=summed.seconds)

    async def _commit(self, average: Path) -> None:
        await self._publisher.publish(self._meeting.round, average)
        self._is_done = True
