"""Who is connected: seats taken, pairs made, places given up. No socket is touched here."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection

from backend.gateway.refusal import Refusal
from backend.gateway.standings import Standing, Standings
from backend.gateway.tickets import Conversation, Role, Seat, Ticket
from splitlearn.link import CloseReason


@dataclass(eq=False)
class Guest:
    """One admitted connection.

    Attributes:
        ticket: By which it was admitted.
        connection: Its websocket.
        other: Resolves to the guest on the other side.
        greeted: Set once this guest knows that it is paired; frames come after that.
        ended: Resolves to why it must go; whoever finds out first sets it.
        last_frame: When it sent one last, or came, in the event loop's seconds.
    """

    ticket: Ticket
    connection: ServerConnection
    other: "asyncio.Future[Guest]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    greeted: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Future[CloseReason] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    last_frame: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def end(self, reason: CloseReason) -> None:
        """Tell the guest's handler to close the connection; the first reason stays."""
        if not self.ended.done():
            self.ended.set_result(reason)


class Hall:
    """All guests.

    Args:
        max_guests: Connections served at the same time.
        max_per_party: Connections of one party at the same time.
        standings: What is known of epochs.
    """

    def __init__(self, *, max_guests: int, max_per_party: int, standings: Standings) -> None:
        self._max_guests = max_guests
        self._max_per_party = max_per_party
        self._standings = standings
        self._guests: set[Guest] = set()
        self._places: dict[tuple[Conversation, Role], Guest] = {}
        self._per_party: Counter[tuple[Role, str]] = Counter()
        self._is_closed = False

    @property
    def num_guests(self) -> int:
        """Connections served now."""
        return len(self._guests)

    @property
    def num_sessions(self) -> int:
        """Pairs that talk now."""
        return sum(guest.other.done() and not guest.ended.done() for guest in self._guests) // 2

    def seats(self) -> set[Seat]:
        """Return whose standings matter now."""
        return {guest.ticket.seat for guest in self._guests}

    @contextlib.contextmanager
    def attend(self, ticket: Ticket, connection: ServerConnection) -> Iterator[Guest]:
        """Give a connection its place, pair it if the other side waits; on leaving, end the other side.

        An older connection of the same place is ended as ``REPLACED``; those of lower epochs as
        ``SUPERSEDED``.

        Raises:
            Refusal: ``SUPERSEDED``, ``REVOKED``, ``TOO_MANY`` or ``GOING_AWAY``.
        """
        place = (ticket.conversation, ticket.role)
        older = self._places.get(place)
        self._refuse(ticket, spare=older is not None)
        self._standings.learn_from(ticket)
        self._end_objectionable(guest for guest in self._guests if guest.ticket.seat == ticket.seat)
        guest = Guest(ticket, connection)
        if older is not None:
            older.end(CloseReason.REPLACED)
        self._enter(guest, place)
        try:
            yield guest
        finally:
            self._leave(guest, place)

    def learn(self, standings: Collection[Standing]) -> None:
        """Take in what the feed says, and end every guest that it objects to."""
        for standing in standings:
            self._standings.learn(standing)
        self._end_objectionable(self._guests)

    def end_idle(self, *, since: float) -> None:
        """End every pair of which neither side has sent a frame since that moment of the event loop."""
        for guest in self._guests:
            if guest.other.done() and max(guest.last_frame, guest.other.result().last_frame) < since:
                guest.end(CloseReason.IDLE)

    def close(self) -> None:
        """End every guest, and admit no other."""
        self._is_closed = True
        for guest in self._guests:
            guest.end(CloseReason.GOING_AWAY)

    def _refuse(self, ticket: Ticket, *, spare: int) -> None:
        """Refuse a connection, of which ``spare`` others are about to give up their place."""
        if self._is_closed:
            raise Refusal(CloseReason.GOING_AWAY)
        if (objection := self._standings.objection(ticket)) is not None:
            raise Refusal(objection, f"epoch {ticket.conversation.epoch} of {ticket.seat}")
        if len(self._guests) - spare >= self._max_guests:
            raise Refusal(CloseReason.TOO_MANY, f"{len(self._guests)} connections (max_connections)")
        held = self._per_party[ticket.role, ticket.party]
        if held - spare >= self._max_per_party:
            raise Refusal(CloseReason.TOO_MANY, f"{ticket.party} holds {held} (max_connections_per_party)")

    def _end_objectionable(self, guests: Iterable[Guest]) -> None:
        for guest in guests:
            if (objection := self._standings.objection(guest.ticket)) is not None:
                guest.end(objection)

    def _enter(self, guest: Guest, place: tuple[Conversation, Role]) -> None:
        self._guests.add(guest)
        self._places[place] = guest
        self._per_party[guest.ticket.role, guest.ticket.party] += 1
        other = self._places.get((guest.ticket.conversation, guest.ticket.role.other))
        if other is not None and not other.other.done() and not other.ended.done():
            guest.other.set_result(other)
            other.other.set_result(guest)

    def _leave(self, guest: Guest, place: tuple[Conversation, Role]) -> None:
        self._guests.discard(guest)
        if self._places.get(place) is guest:
            del self._places[place]
        self._per_party -= Counter({(guest.ticket.role, guest.ticket.party): 1})
        if guest.other.done():
            guest.other.result().end(CloseReason.PEER_GONE)
