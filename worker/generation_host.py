"""Hosts the trunk of a session of generation while its lease holds; one session after another."""

import asyncio
from collections.abc import Callable

import structlog

from splitlearn.control_plane.errors import JobOverError, LeaseLostError, NotFoundError
from splitlearn.control_plane.generation_schemas import (
    GenerationDispatch,
    GenerationLease,
    GenerationReleaseBody,
)
from splitlearn.control_plane.schemas import Reason
from splitlearn.errors import TrainingError, TrunklineError
from splitlearn.exchange import PeerAwayError
from splitlearn.generation import CacheLimits
from splitlearn.parties import StuckError
from worker.generation_attempt import GenerationAttempt
from worker.generation_keeper import GenerationKeeper, Progress
from worker.orders import Obedient, Order, Orders
from worker.station import Station, until_ordered

_OUTDATED = (LeaseLostError, JobOverError, NotFoundError)
_log = structlog.get_logger("worker.generation")


class GenerationHost(Obedient):
    """Serves dispatches, one after another, in the thread that calls :meth:`host`.

    Args:
        station: The worker.
        limits: What is kept at most for a silo that generates.
        on_stuck: Told when a computation did not come back, after the lease was given back: its thread cannot
            be ended, so the process has to.
    """

    def __init__(
        self,
        station: Station,
        *,
        limits: CacheLimits,
        on_stuck: Callable[[TrunklineError], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._station, self._limits, self._on_stuck = station, limits, on_stuck

    def host(self, dispatch: GenerationDispatch) -> None:
        """Do what a dispatch says, if it still counts. Returns when the lease is given back or lost.

        Raises:
            SupersededError, RevokedError: This process may speak for the worker no more.
        """
        with structlog.contextvars.bound_contextvars(
            generation=dispatch.generation, correlation_id=dispatch.correlation_id, epoch=dispatch.epoch
        ):
            asyncio.run(self._host(dispatch))

    async def _host(self, dispatch: GenerationDispatch) -> None:
        try:
            lease = await self._station.home.ask(
                lambda client: client.take_generation(dispatch.generation, dispatch.epoch)
            )
        except _OUTDATED as error:
            _log.info("dispatch_outdated", reason=error.message)
            return
        orders, watch = Orders(), self._station.watch
        attempt = GenerationAttempt(self._station, lease, limits=self._limits)
        keeper = GenerationKeeper(
            self._station.home,
            lease,
            orders,
            progress=lambda: attempt.progress,
            on_confirmed=watch.confirmed,
        )
        watch.began()
        end = "failed"
        try:
            with self.obeying(orders):
                async with keeper.keeping():
                    body = await self._outcome(attempt, lease, orders)
                    if body is not None:
                        await self._release(body, lease)
                    end = "generated" if body is None or body.outcome != "failed" else end
        finally:
            watch.ended(end)
        if body is not None and body.outcome == "stuck":
            self._on_stuck(StuckError(f"{body.reason.what}; {body.reason.next}"))

    async def _outcome(
        self, attempt: GenerationAttempt, lease: GenerationLease, orders: Orders
    ) -> GenerationReleaseBody | None:
        """Make the attempt; return how the lease is given back, None where it is lost."""
        ended: list[bool] = []

        async def work() -> None:
            ended.append(await attempt.run())

        try:
            order = await until_ordered(work(), orders)
        except _OUTDATED as error:
            _log.info("lease_lost", reason=error.message)
            return None
        except TrunklineError as error:
            if orders.order is Order.LOST:
                return None
            _log.warning("generation_failed", code=error.code, reason=error.message)
            self._station.trunks.clear()
            return failed_body(lease, error, attempt.progress, who=self._name)
        except Exception as error:  # noqa: BLE001 - the silo must learn of a bug, too
            _log.exception("generation_broken")
            return failed_body(lease, _bug(error), attempt.progress, who=self._name)
        if order is Order.LOST:
            return None
        return ended_body(lease, attempt.progress, order, has_left=any(ended), who=self._name)

    async def _release(self, body: GenerationReleaseBody, lease: GenerationLease) -> None:
        try:
            await self._station.home.ask(lambda client: client.release_generation(lease.generation, body))
            _log.info("generation_ended", outcome=body.outcome, tokens=body.num_tokens)
        except _OUTDATED as error:
            _log.info("lease_lost", reason=error.message)

    @property
    def _name(self) -> str:
        return f"worker:{self._station.state.enrolled().name}"[:64]


def ended_body(
    lease: GenerationLease, progress: Progress, order: Order | None, *, has_left: bool, who: str
) -> GenerationReleaseBody:
    """Return how a lease is given back where nothing went wrong.

    Args:
        lease: The lease.
        progress: How far the session came.
        order: What gave it up; None where it came to its end.
        has_left: Whether the silo took its leave.
        who: This worker.
    """
    if order is not None:
        outcome, what, next_ = "drained", "is drained, or ends", "another worker goes on"
    elif has_left:
        outcome, what, next_ = "finished", "was told that the silo is through", "nothing"
    else:
        outcome = "idle"
        what, next_ = f"was asked nothing for {lease.idle_seconds:g} s", "begin another session"
    return _body(lease, progress, outcome, outcome, who=who, what=what, next_=next_)


def failed_body(
    lease: GenerationLease, error: TrunklineError, progress: Progress, *, who: str
) -> GenerationReleaseBody:
    """Return how a lease is given back after an error."""
    what, _, remedy = error.message.rpartition("; ")
    match error:
        case PeerAwayError():
            next_ = "begin another session"
            outcome, code = "idle", "silo_away"
        case StuckError():
            outcome, code, next_ = "stuck", error.code, "this worker's process ends; another worker goes on"
        case _:
            next_ = remedy if what else "see the worker's log, then begin another session"
            outcome, code = "failed", error.code
    return _body(lease, progress, outcome, code, who=who, what=what or error.message, next_=next_)


def _body(
    lease: GenerationLease, progress: Progress, outcome: str, code: str, *, who: str, what: str, next_: str
) -> GenerationReleaseBody:
    reason = Reason(who=who, what=what[:2000], where="worker", next=next_[:2000])
    return GenerationReleaseBody.model_validate(
        {
            "epoch": lease.epoch,
            "outcome": outcome,
            "code": code,
            "reason": reason,
            "num_tokens": progress.num_tokens,
        }
    )


def _bug(error: Exception) -> TrainingError:
    return TrainingError(
        f"an error that nobody expected ended the session ({type(error).__name__}); "
        "report it with what the worker's log says of generation_broken"
    )
