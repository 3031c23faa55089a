"""Keeps a lease on a session of generation, and passes on that it has ended or is to go elsewhere."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog

from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.errors import UnreachableError
from splitlearn.control_plane.generation_schemas import GenerationLease, GenerationRenewBody
from splitlearn.errors import TrunklineError
from worker.home import Home
from worker.orders import Order, Orders

_log = structlog.get_logger("worker.generation")


@dataclass(frozen=True, slots=True)
class Progress:
    """How a session goes.

    Attributes:
        num_tokens: Computed so far, prompts included.
        idle_seconds: Since the silo's last question.
    """

    num_tokens: int
    idle_seconds: float


class GenerationKeeper:
    """Renews one lease, from the control plane's thread; one that is away ends nothing.

    Args:
        home: The control plane's thread.
        lease: What is kept.
        orders: Told to give it up where it is lost, and where the worker is drained.
        progress: Returns how the session goes; called in that thread.
        on_confirmed: Told whenever the lease was confirmed.
    """

    def __init__(
        self,
        home: Home,
        lease: GenerationLease,
        orders: Orders,
        *,
        progress: Callable[[], Progress],
        on_confirmed: Callable[[], None],
    ) -> None:
        self._home, self._lease, self._orders = home, lease, orders
        self._progress, self._on_confirmed = progress, on_confirmed

    def keeping(self) -> AbstractAsyncContextManager[None]:
        """Renew until the block is left; in another loop than the control plane's."""
        return self._home.beside(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease.renew_seconds)
            await self._renew(self._home.client)

    async def _renew(self, client: PartyClient) -> None:
        lease, now = self._lease, self._progress()
        body = GenerationRenewBody(
            epoch=lease.epoch, num_tokens=now.num_tokens, idle_seconds=now.idle_seconds
        )
        try:
            answer = await client.renew_generation(
                lease.generation, body, patience_seconds=lease.renew_seconds
            )
        except UnreachableError:
            return  # whoever gets the lease meanwhile gets a higher epoch, which closes our connection
        except TrunklineError as error:
            _log.info("lease_lost", code=error.code, reason=error.message)
            self._orders.give(Order.LOST)
            return
        self._on_confirmed()
        if answer.drain:
            self._orders.give(Order.DRAIN_NOW)
