"""How a party reaches the other side of a conversation: by the gateway, with a new ticket each time."""

import ssl
from typing import Protocol

from splitlearn.control_plane.errors import LeaseLostError, NoLeaseError
from splitlearn.control_plane.schemas import TicketAnswer, TicketBody
from splitlearn.link import CloseReason, Connect, GatewayClosedError, Link, connect_gateway
from splitlearn.wire import Limits

_TICKET_PATIENCE_SECONDS = 5.0


class TicketOffice(Protocol):
    """Who gives tickets: a ``PartyClient``, or what passes the question on to one."""

    async def ticket(self, body: TicketBody, *, patience_seconds: float | None = None) -> TicketAnswer:
        """Get leave to open one connection at the gateway."""


def gateway_connector(
    client: TicketOffice,
    *,
    job: str,
    replica: int,
    epoch: int,
    silo: str,
    limits: Limits | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Connect:
    """Return a function that opens a link to the other side of one conversation, under one epoch.

    It raises LinkError where another try can help. Where none can, it raises what ends the attempt:
    ``LeaseLostError`` when a higher epoch runs or this party's part is over, ``JobOverError``.

    Args:
        client: Gives this party's tickets.
        job: Its id.
        replica: The trunk's number.
        epoch: Under which the conversation is led.
        silo: The conversation's silo.
        limits: Largest frame.
        ssl_context: Trust settings for ``wss``; None for the system's.
    """
    body = TicketBody(job=job, replica=replica, epoch=epoch, silo=silo)

    async def connect() -> Link:
        try:
            ticket = await client.ticket(body, patience_seconds=_TICKET_PATIENCE_SECONDS)
            return await connect_gateway(
                ticket.gateway_url, ticket=ticket.ticket, limits=limits, ssl_context=ssl_context
            )
        except NoLeaseError as error:
            raise LeaseLostError(error.message, code=error.code, status=error.status) from error
        except GatewayClosedError as error:
            raise _final(error) from error

    return connect


def _final(error: GatewayClosedError) -> LeaseLostError | GatewayClosedError:
    """A ticket that came too late is replaced by the next; a place that was taken by an epoch is lost."""
    if error.reason in {CloseReason.SUPERSEDED, CloseReason.REVOKED}:
        return LeaseLostError(error.message, code=error.reason.word)
    return error
