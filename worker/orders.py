"""What an attempt to host a trunk is told to do, by whoever asks: control plane, operator, signal."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from splitlearn.control_plane.schemas import DesiredState, RenewAnswer


class Order(IntEnum):
    """What to do; a higher one counts more, and is never taken back within an attempt."""

    GO_ON = 0
    GIVE_WAY_AFTER_ROUND = 1
    DRAIN_AFTER_ROUND = 2
    PAUSE_AFTER_ROUND = 3
    DRAIN_NOW = 4
    BEGIN_AGAIN = 5
    CANCEL = 6
    LOST = 7

    @property
    def is_immediate(self) -> bool:
        """Whether the round that is under way is given up."""
        return self >= Order.DRAIN_NOW


@dataclass(frozen=True, slots=True)
class Answered:
    """What the control plane's answer to a renewal means.

    Attributes:
        order: What to do.
        epoch: Under which the lease goes on.
    """

    order: Order
    epoch: int


def order_of(answer: RenewAnswer, *, epoch: int) -> Answered:
    """Decide what a renewal's answer means for an attempt under ``epoch``."""
    if answer.desired is DesiredState.CANCEL:
        return Answered(Order.CANCEL, answer.epoch)
    if answer.epoch > epoch:
        return Answered(Order.BEGIN_AGAIN, answer.epoch)
    if answer.desired is DesiredState.PAUSE:
        return Answered(Order.PAUSE_AFTER_ROUND, answer.epoch)
    if answer.drain:
        return Answered(Order.DRAIN_AFTER_ROUND, answer.epoch)
    return Answered(Order.GIVE_WAY_AFTER_ROUND if answer.turn_over else Order.GO_ON, answer.epoch)


class Orders:
    """The orders of one attempt. Given from any thread, obeyed in the event loop that made this."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.order = Order.GO_ON

    def give(self, order: Order) -> None:
        """Tell the attempt; from any thread. One that counts less than what it was told changes nothing."""
        try:
            self._loop.call_soon_threadsafe(self._take, order)
        except RuntimeError:  # the loop is closed: the attempt is over
            return

    async def immediate(self) -> Order:
        """Wait for an order that gives up the round, and return it."""
        while not self.order.is_immediate:
            self._changed.clear()
            await self._changed.wait()
        return self.order

    def ends_the_job_after(self, num_rounds: int) -> bool:
        """Whether no other round is to begin.

        Args:
            num_rounds: Done in this attempt. Whoever gives way to others has done one, at least: jobs that
                take turns all come to their end.
        """
        if self.order is Order.GIVE_WAY_AFTER_ROUND:
            return num_rounds > 0
        return self.order is not Order.GO_ON

    def _take(self, order: Order) -> None:
        if order > self.order:
            self.order = order
            self._changed.set()


class Obedient:
    """A host whose attempts, the one that runs and those that follow, heed the orders given to it."""

    def __init__(self) -> None:
        self._giving = threading.Lock()
        self._orders: Orders | None = None
        self._standing = Order.GO_ON

    def give(self, order: Order) -> None:
        """Give an order to the attempt that runs and to all that follow; from any thread."""
        with self._giving:
            self._standing = max(self._standing, order)
            orders = self._orders
        if orders is not None:
            orders.give(order)

    @contextmanager
    def obeying(self, orders: Orders) -> Iterator[None]:
        """Pass on to an attempt's orders, within the block, what was given and what will be."""
        with self._giving:
            self._orders, standing = orders, self._standing
        orders.give(standing)
        try:
            yield
        finally:
            with self._giving:
                self._orders = None
