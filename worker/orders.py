"""What an attempt to host a trunk is told to do, by whoever asks: control plane, operator, signal."""

import asyncio
from dataclasses import dataclass
from enum import IntEnum

from splitlearn.control_plane.schemas import DesiredState, RenewAnswer


class Order(IntEnum):
    """What to do; a higher one counts more, and is never taken back within an attempt."""

    GO_ON = 0
    DRAIN_AFTER_ROUND = 1
    PAUSE_AFTER_ROUND = 2
    DRAIN_NOW = 3
    BEGIN_AGAIN = 4
    CANCEL = 5
    LOST = 6

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
    return Answered(Order.DRAIN_AFTER_ROUND if answer.drain else Order.GO_ON, answer.epoch)


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

    @property
    def ends_the_round(self) -> bool:
        """Whether no other round is to begin."""
        return self.order is not Order.GO_ON

    def _take(self, order: Order) -> None:
        if order > self.order:
            self.order = order
            self._changed.set()
