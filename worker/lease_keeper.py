"""Keeps a lease while its trunk trains, and passes on what people want of the job."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog

from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.errors import JobOverError, LeaseLostError, NotFoundError, UnreachableError
from splitlearn.control_plane.schemas import LeaseAnswer, RenewAnswer, RenewBody
from splitlearn.errors import TrunklineError
from worker.home import Home
from worker.orders import Order, Orders, order_of

_log = structlog.get_logger("worker.lease")


class LeaseKeeper:
    """Renews one lease under one epoch, from the control plane's thread.

    A control plane that is away ends nothing: the trunk goes on until it has a round to commit. Whoever might
    get the lease meanwhile gets a higher epoch with it, which closes this attempt's connections at the
    gateway and refuses its commits.

    Args:
        home: The control plane's thread.
        lease: What is kept.
        orders: Told what the control plane wants.
        on_confirmed: Told whenever the lease was confirmed.
    """

    def __init__(
        self,
        home: Home,
        lease: LeaseAnswer,
        orders: Orders,
        *,
        on_confirmed: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_confirmed = on_confirmed
        self._home, self._lease, self._orders = home, lease, orders
        self._round = self._step = 0
        self._epoch = lease.epoch
        self._confirmed_at = time.monotonic()
        self._lock = asyncio.Lock()

    @property
    def epoch(self) -> int:
        """The lease's epoch as last heard of; higher than the attempt's when it has to begin again."""
        return self._epoch

    @property
    def where(self) -> str:
        """How far the training is, for people."""
        return f"round {self._round}" if self._round else "before the first round"

    def reached(self, *, round_number: int, step: int) -> None:
        """Note how far the training is; from any thread."""
        self._round, self._step = round_number, step

    def keeping(self) -> AbstractAsyncContextManager[None]:
        """Renew until the block is left; in another loop than the control plane's."""
        return self._home.beside(self._keep())

    async def ask_now(self) -> None:
        """Renew out of turn; the order stands when this returns."""
        await self._home.ask(self._renew)
        await asyncio.sleep(0)  # what was handed over to this loop is taken first

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease.renew_seconds)
            await self._renew(self._home.client)

    async def _renew(self, client: PartyClient) -> None:
        lease = self._lease
        async with self._lock:
            body = RenewBody(epoch=lease.epoch, round=self._round, step=self._step)
            try:
                answer = await client.renew_lease(
                    lease.job, lease.replica, body, patience_seconds=lease.renew_seconds
                )
            except UnreachableError:
                self._say_unconfirmed()
            except (LeaseLostError, JobOverError, NotFoundError) as error:
                _log.info("lease_lost", reason=error.message)
                self._orders.give(Order.LOST)
            except TrunklineError as error:
                _log.warning("renewal_refused", code=error.code, reason=error.message)
                self._orders.give(Order.LOST)
            else:
                self._confirmed(answer)

    def _confirmed(self, answer: RenewAnswer) -> None:
        self._confirmed_at = time.monotonic()
        self._on_confirmed()
        found = order_of(answer, epoch=self._lease.epoch)
        self._epoch = max(self._epoch, found.epoch)
        self._orders.give(found.order)

    def _say_unconfirmed(self) -> None:
        seconds = time.monotonic() - self._confirmed_at
        if seconds > self._lease.valid_seconds:
            _log.warning("lease_unconfirmed", seconds=round(seconds), commits="wait for the control plane")
