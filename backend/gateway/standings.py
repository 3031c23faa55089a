"""Which epoch each seat is at, and which seats are revoked, as far as this gateway has learned."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from backend.gateway.tickets import Seat, Ticket
from splitlearn.link import CloseReason

DEFAULT_MAX_REMEMBERED = 65_536


@dataclass(frozen=True, slots=True)
class Standing:
    """What the control plane says of a seat now.

    Attributes:
        seat: Whose.
        epoch: Connections of a lower one are superseded.
        is_revoked: The party has no part in this job (any more), in whatever epoch.
    """

    seat: Seat
    epoch: int
    is_revoked: bool = False


class Feed(Protocol):
    """Where the gateway learns standings; asked again every few seconds."""

    async def standings(self, seats: Collection[Seat]) -> Collection[Standing]:
        """Return the standing of these seats; one that is left out keeps the one it had.

        Raises:
            FeedError: Nothing was learned; the gateway goes on with what it knows and asks again.
        """


class FeedError(Exception):
    """The control plane was not reached, or its answer is none."""


class Standings:
    """The newest standing of every seat that was seen lately; never goes back to a lower epoch.

    Memory is bounded: the seats longest unheard of are forgotten first. A seat in use is asked about all
    the time, and an old ticket for a forgotten one expires within minutes.

    Args:
        max_remembered: Seats kept.
    """

    def __init__(self, *, max_remembered: int = DEFAULT_MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._known: OrderedDict[Seat, Standing] = OrderedDict()

    def learn(self, standing: Standing) -> None:
        """Take in what the feed says. A revoked seat can be given back at a higher epoch only."""
        known = self._known.get(standing.seat)
        if known is None or standing.epoch > known.epoch or self._revokes(standing, known):
            self._known[standing.seat] = standing
        self._known.move_to_end(standing.seat)
        while len(self._known) > self._max_remembered:
            self._known.popitem(last=False)

    def learn_from(self, ticket: Ticket) -> None:
        """Take in a verified ticket: the control plane signed that its epoch exists."""
        self.learn(Standing(ticket.seat, ticket.conversation.epoch))

    def objection(self, ticket: Ticket) -> CloseReason | None:
        """Return why a ticket's connection must not be served, or None."""
        known = self._known.get(ticket.seat)
        if known is None or ticket.conversation.epoch > known.epoch:
            return None
        if known.is_revoked:
            return CloseReason.REVOKED
        return CloseReason.SUPERSEDED if ticket.conversation.epoch < known.epoch else None

    @staticmethod
    def _revokes(standing: Standing, known: Standing) -> bool:
        return standing.epoch == known.epoch and standing.is_revoked
