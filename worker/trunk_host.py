"""Hosts the trunk of a dispatched job while its lease holds; a task that comes twice finds it taken."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from splitlearn.control_plane.errors import JobOverError, LeaseLostError, NotFoundError
from splitlearn.control_plane.job_log import JobLog
from splitlearn.control_plane.schemas import DispatchBody, LeaseAnswer, Reason, ReleaseBody
from splitlearn.errors import TrainingError, TrunklineError
from splitlearn.parties import SiloAwayError, SiloLeftError, StuckError
from worker.attempt import Attempt
from worker.checkpoints import publish_result
from worker.lease_keeper import LeaseKeeper
from worker.meeting_attempt import MeetingAttempt
from worker.orders import Obedient, Order, Orders
from worker.station import Hosted, Station
from worker.stored_files import drop_folder

_ENDS = frozenset({"completed", "failed", "cancelled"})
"""Outcomes after which this worker has no use for what it kept of the job; the store has it."""
_OUTDATED = (LeaseLostError, JobOverError, NotFoundError)
_LAST_WORD_SECONDS = 5.0
_PAUSE_SECONDS = 0.25
_log = structlog.get_logger("worker.trunk")


@dataclass(frozen=True, slots=True)
class _Next:
    """What follows an attempt: the lease goes on under another epoch, or it was given back or lost."""

    epoch: int | None


_OVER = _Next(None)


class TrunkHost(Obedient):
    """Serves dispatches, one after another, in the thread that calls :meth:`host`.

    Args:
        station: The worker.
        on_stuck: Told when a computation did not come back, after the lease was given back: its thread cannot
            be ended, so the process has to.
    """

    def __init__(
        self, station: Station, *, on_stuck: Callable[[TrunklineError], None] = lambda _: None
    ) -> None:
        super().__init__()
        self._station, self._on_stuck = station, on_stuck
        self._stuck: StuckError | None = None

    def host(self, dispatch: DispatchBody) -> None:
        """Do what a dispatch says, if it still counts. Returns when the lease is given back or lost.

        Raises:
            SupersededError, RevokedError: This process may speak for the worker no more.
        """
        with structlog.contextvars.bound_contextvars(
            job=dispatch.job, replica=dispatch.replica, correlation_id=dispatch.correlation_id
        ):
            asyncio.run(self._host(dispatch))

    async def _host(self, dispatch: DispatchBody) -> None:
        epoch: int | None = dispatch.epoch
        while epoch is not None:
            lease = await self._take(dispatch, epoch)
            if lease is None:
                return
            with structlog.contextvars.bound_contextvars(epoch=epoch):
                epoch = (await self._under(lease)).epoch

    async def _take(self, dispatch: DispatchBody, epoch: int) -> LeaseAnswer | None:
        try:
            return await self._station.home.ask(
                lambda client: client.take_lease(dispatch.job, dispatch.replica, epoch)
            )
        except _OUTDATED as error:
            _log.info("dispatch_outdated", epoch=epoch, reason=error.message)
            return None

    async def _under(self, lease: LeaseAnswer) -> _Next:
        """Make one attempt under a lease, and give the lease back where it is not to go on."""
        orders = Orders()
        home, watch = self._station.home, self._station.watch
        keeper = LeaseKeeper(home, lease, orders, on_confirmed=watch.confirmed)
        job_log = JobLog(lambda lines: home.client.post_logs(lease.job, lines))
        telling = home.start(job_log.run())
        job_log.tell("lease_taken", epoch=lease.epoch)
        watch.began()
        end = "failed"
        try:
            with self.obeying(orders):
                async with keeper.keeping():
                    end, following = await self._make_attempt(lease, orders, keeper, job_log)
        finally:
            watch.ended(end)
            telling.cancel()
            if self._stuck is not None:
                self._on_stuck(self._stuck)
        return following

    async def _make_attempt(
        self, lease: LeaseAnswer, orders: Orders, keeper: LeaseKeeper, job_log: JobLog
    ) -> tuple[str, _Next]:
        """Return in a word how the attempt ended, and what follows."""
        end = "failed"
        try:
            hosted = await self._attempt(lease, orders, keeper, job_log)
            end = hosted.order.name.lower()
            job_log.tell("attempt_ended", code=end, round_number=hosted.last_round)
            return end, await self._conclude(lease, hosted, keeper)
        except TrunklineError as error:
            job_log.tell("attempt_failed", level="warning", code=error.code, epoch=lease.epoch)
            return end, await self._failed(lease, error, keeper)
        except Exception as error:  # noqa: BLE001 - the job must learn of a bug, too
            _log.exception("attempt_broken")
            job_log.tell("attempt_broken", level="error", epoch=lease.epoch)
            return end, await self._failed(lease, _bug(error), keeper)

    async def _attempt(
        self, lease: LeaseAnswer, orders: Orders, keeper: LeaseKeeper, job_log: JobLog
    ) -> Hosted:
        def reached(round_number: int, step: int) -> None:
            keeper.reached(round_number=round_number, step=step)

        kind = Attempt if lease.meeting is None else MeetingAttempt
        attempt = kind(self._station, lease, orders, on_reached=reached, job_log=job_log)
        try:
            return await attempt.run()
        except TrunklineError as error:
            if isinstance(error, StuckError):
                self._stuck = error
            await _ask_why(error, keeper, orders)
            if not orders.order.is_immediate:
                raise
            _log.info("attempt_overtaken", order=orders.order.name.lower(), reason=error.message)
            return Hosted(orders.order, 0, None)

    async def _conclude(self, lease: LeaseAnswer, hosted: Hosted, keeper: LeaseKeeper) -> _Next:
        _log.info("attempt_ended", order=hosted.order.name.lower(), last_round=hosted.last_round)
        match hosted.order:
            case Order.LOST:
                return _OVER
            case Order.BEGIN_AGAIN:
                return _Next(keeper.epoch)
            case Order.GO_ON if hosted.is_round_done:
                return await self._release(_round_done_body(lease, hosted, self._name), lease)
            case Order.GO_ON:
                return await self._complete(lease, hosted)
            case _:
                return await self._release(_release_body(lease, hosted, self._name), lease)

    async def _complete(self, lease: LeaseAnswer, hosted: Hosted) -> _Next:
        assert hosted.trunk is not None, "the last round is done"
        folder = self._station.job_folder(lease.job)
        result = await publish_result(self._station.home, hosted.trunk, folder)
        reason = Reason(
            who=self._name,
            what=_trained(hosted),
            where="worker",
            next="every silo exports its result",
        )
        body = ReleaseBody(epoch=lease.epoch, outcome="completed", reason=reason, result=result)
        return await self._release(body, lease)

    async def _failed(self, lease: LeaseAnswer, error: TrunklineError, keeper: LeaseKeeper) -> _Next:
        if isinstance(error, _OUTDATED):
            await keeper.ask_now()
            _log.info("lease_lost", reason=error.message)
            return _Next(keeper.epoch) if keeper.epoch > lease.epoch else _OVER
        _log.warning("attempt_failed", code=error.code, reason=error.message)
        self._station.trunks.clear()
        return await self._release(failed_body(lease, error, who=self._name, where=keeper.where), lease)

    async def _release(self, body: ReleaseBody, lease: LeaseAnswer) -> _Next:
        if body.outcome in _ENDS:
            await asyncio.to_thread(drop_folder, self._station.job_folder(lease.job))
        try:
            await self._station.home.ask(lambda client: client.release_lease(lease.job, lease.replica, body))
            _log.info("lease_released", outcome=body.outcome)
        except _OUTDATED as error:
            _log.info("lease_lost", reason=error.message)
        return _OVER

    @property
    def _name(self) -> str:
        return f"worker:{self._station.state.enrolled().name}"[:64]


async def _ask_why(error: TrunklineError, keeper: LeaseKeeper, orders: Orders) -> None:
    """Ask what the control plane wants: closed connections are often the first sign of it.

    A silo that left in mid-job is about to say why: its own word tells people more than ours that it left.
    """
    until = time.monotonic() + (_LAST_WORD_SECONDS if isinstance(error, SiloLeftError) else 0)
    while True:
        await keeper.ask_now()
        await asyncio.sleep(0)
        if orders.order.is_immediate or time.monotonic() > until:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def failed_body(lease: LeaseAnswer, error: TrunklineError, *, who: str, where: str) -> ReleaseBody:
    """Return how a lease is given back after an error: what waits or is tried again, and what has failed."""
    what, _, remedy = error.message.rpartition("; ")
    facts = {"who": who, "what": (what or error.message)[:2000], "where": where}
    away: tuple[str, ...] = ()
    match error:
        case SiloAwayError():
            facts["who"] = ", ".join(f"silo:{name}" for name in error.silos)[:64]
            facts["next"] = (
                "goes on by itself when the silo is back, however late; see there: trunkline-agent status. "
                "Or end it: trunkline jobs cancel ID"
            )
            outcome, away = "waiting", error.silos
        case StuckError():
            facts["next"] = "this worker's process ends; the job goes on after the last round, once"
            outcome = "stuck"
        case _:
            facts["next"] = (remedy if what else "see the worker's log, then: trunkline jobs retry")[:2000]
            outcome = "failed"
    return ReleaseBody.model_validate(
        {"epoch": lease.epoch, "outcome": outcome, "code": error.code, "reason": facts, "away": away}
    )


def _trained(hosted: Hosted) -> str:
    what = f"the trunk is trained: {hosted.last_round} round{'' if hosted.last_round == 1 else 's'}"
    if hosted.result_round == 0:
        what += ", none of which was better than what the job began with: that is the result"
    elif hosted.result_round not in {None, hosted.last_round}:
        what += f", and the result is that of round {hosted.result_round}, the best"
    return what


def _bug(error: Exception) -> TrainingError:
    return TrainingError(
        f"an error that nobody expected ended the attempt ({type(error).__name__}); "
        "report it with what the worker's log says of attempt_broken"
    )


def _round_done_body(lease: LeaseAnswer, hosted: Hosted, who: str) -> ReleaseBody:
    what = f"replica {lease.replica} of the trunk has done its round"
    next_ = "goes on from the average of all replicas, once they have done theirs"
    if lease.meeting is not None:
        what, next_ = "the replicas of the trunk are averaged", "each goes on from the average"
    reason = Reason(who=who, what=what, where=f"round {hosted.last_round}", next=next_)
    return ReleaseBody(epoch=lease.epoch, outcome="round_done", code="round_done", reason=reason)


def _release_body(lease: LeaseAnswer, hosted: Hosted, who: str) -> ReleaseBody:
    where = f"round {hosted.last_round}"
    match hosted.order:
        case Order.CANCEL:
            reason = Reason(who=who, what="the trunk ended, as was asked", where=where, next="nothing")
            return ReleaseBody(epoch=lease.epoch, outcome="cancelled", code="cancelled", reason=reason)
        case Order.PAUSE_AFTER_ROUND:
            reason = Reason(who=who, what="the round is done, the job rests", where=where, next="resume it")
            return ReleaseBody(epoch=lease.epoch, outcome="paused", code="paused", reason=reason)
        case Order.GIVE_WAY_AFTER_ROUND:
            what = "its turn is over, others wait for the worker"
            reason = Reason(who=who, what=what, where=where, next="goes on when it is its turn again")
            return ReleaseBody(epoch=lease.epoch, outcome="drained", code="turn_over", reason=reason)
        case Order.DRAIN_AFTER_ROUND:
            what = "the worker is drained, or ends"
            reason = Reason(who=who, what=what, where=where, next="another worker goes on")
            return ReleaseBody(epoch=lease.epoch, outcome="drained", code="drained", reason=reason)
        case _:
            reason = Reason(who=who, what="the worker ends", where=where, next="another worker goes on")
            return ReleaseBody(epoch=lease.epoch, outcome="drained", code="drained", reason=reason)
