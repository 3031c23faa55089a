"""One connection's way through the gateway: admitted, paired, relayed, closed with a reason."""

import asyncio
import contextlib
from typing import Any, NoReturn

import structlog
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from backend.clock import Clock
from backend.gateway.counters import Counters
from backend.gateway.frames import FrameCheck
from backend.gateway.hall import Guest, Hall
from backend.gateway.refusal import Refusal
from backend.gateway.tickets import Ticket, TicketVerifier
from splitlearn.link import PAIRED, CloseReason

_SCHEME = "Bearer "


class Relay:
    """Serves connections.

    Args:
        hall: Where they meet.
        verifier: Judges tickets.
        counters: Counts what passes.
        now: The clock for tickets.
        pairing_seconds: Longest wait for the other side.
        close_seconds: Longest wait for the other end to take the closing word.
    """

    def __init__(
        self,
        hall: Hall,
        *,
        verifier: TicketVerifier,
        counters: Counters,
        now: Clock,
        pairing_seconds: float,
        close_seconds: float,
    ) -> None:
        self._hall = hall
        self._verifier = verifier
        self._counters = counters
        self._now = now
        self._pairing_seconds = pairing_seconds
        self._close_seconds = close_seconds
        self._log: structlog.stdlib.BoundLogger = structlog.get_logger("gateway")

    async def serve(self, connection: ServerConnection) -> None:
        """Serve one connection until it is closed; never raises for what a peer did."""
        self._counters.connections += 1
        log = self._log.bind(connection=str(connection.id))
        reason: CloseReason | None
        try:
            ticket = self._verifier.verify(_ticket_text(connection), now=self._now())
            log = _bound(log, ticket)
            with self._hall.attend(ticket, connection) as guest:
                log.info("connection_admitted")
                reason = await self._attend(guest)
        except Refusal as refusal:
            reason = refusal.reason
            log = log.bind(detail=refusal.detail)
        self._counters.ended(reason)
        log.info("connection_ended", reason=reason.word if reason is not None else "left")
        await self._close(connection, reason)

    async def _attend(self, guest: Guest) -> CloseReason | None:
        """Relay until somebody ends the guest, or its connection ends; return the reason to tell it."""
        work = asyncio.create_task(self._relay(guest))
        lost = asyncio.create_task(guest.connection.wait_closed())
        try:
            # wait_closed also while reading is held back for a slow receiver, or before there is a peer.
            happenings: set[asyncio.Future[Any]] = {work, lost, guest.ended}
            await asyncio.wait(happenings, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            lost.cancel()
            await asyncio.gather(work, lost, return_exceptions=True)
        if guest.ended.done():
            return guest.ended.result()
        if work.cancelled():
            return None
        return work.result()

    async def _relay(self, guest: Guest) -> CloseReason | None:
        try:
            other = await self._meet(guest)
            await self._pump(guest, other)
        except TimeoutError:
            return CloseReason.PEER_ABSENT
        except ConnectionClosed as error:
            if guest.connection.state is State.OPEN:
                return CloseReason.PEER_GONE
            too_large = error.sent is not None and error.sent.code == CloseReason.FRAME_TOO_LARGE
            return CloseReason.FRAME_TOO_LARGE if too_large else None

    async def _meet(self, guest: Guest) -> Guest:
        other = await asyncio.wait_for(asyncio.shield(guest.other), timeout=self._pairing_seconds)
        await guest.connection.send(PAIRED)
        guest.greeted.set()
        # A frame must not overtake the word that the other side waits for.
        await asyncio.wait_for(other.greeted.wait(), timeout=self._pairing_seconds)
        self._counters.sessions += guest.ticket.role.value == 1
        return other

    async def _pump(self, guest: Guest, other: Guest) -> NoReturn:
        """Hand on frames one by one: the next is taken when the other side has taken this one."""
        check = FrameCheck(guest.ticket)
        loop, direction = asyncio.get_running_loop(), guest.ticket.role.direction
        while True:
            frame = await guest.connection.recv(decode=False)
            guest.last_frame = loop.time()
            check.check(frame)
            await other.connection.send(frame)
            self._counters.relayed(direction, len(frame))

    async def _close(self, connection: ServerConnection, reason: CloseReason | None) -> None:
        with contextlib.suppress(TimeoutError):
            code, word = (1000, "") if reason is None else (reason.value, reason.word)
            # The library's own deadline begins only when a stalled receiver has taken all before it.
            await asyncio.wait_for(connection.close(code, word), timeout=self._close_seconds)
        connection.transport.abort()


def _ticket_text(connection: ServerConnection) -> str:
    assert connection.request is not None
    values = connection.request.headers.get_all("Authorization")
    if len(values) != 1 or not values[0].startswith(_SCHEME):
        raise Refusal(CloseReason.MALFORMED_TICKET, "there is no one header 'Authorization: Bearer TICKET'")
    return values[0].removeprefix(_SCHEME).strip()


def _bound(log: structlog.stdlib.BoundLogger, ticket: Ticket) -> structlog.stdlib.BoundLogger:
    told = ticket.conversation
    return log.bind(
        job=told.job,
        replica=told.replica,
        epoch=told.epoch,
        silo=told.silo,
        worker=told.worker,
        role=ticket.role.word,
        correlation_id=ticket.correlation_id,
    )
