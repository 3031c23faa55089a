"""The ticket itself, once it is decided that a party gets one."""

from datetime import datetime

from sqlalchemy.orm import Session

from backend.auth.callers import PartyCaller
from backend.db.models import PartyKind
from backend.federation.service import federation_of
from backend.federation.signer import ticket_key
from backend.gateway import Conversation, Role, issue_ticket
from backend.settings import Settings
from splitlearn.control_plane.schemas import TicketAnswer


def answer_with_ticket(
    session: Session,
    settings: Settings,
    conversation: Conversation,
    *,
    caller: PartyCaller,
    gateway_url: str,
    correlation_id: str,
    now: datetime,
) -> TicketAnswer:
    """Return leave to open one connection on the caller's side of a conversation.

    Args:
        session: Where the key lies.
        settings: How long a ticket is valid.
        conversation: Current, and the caller's.
        caller: Who asks.
        gateway_url: Where the two meet.
        correlation_id: Of what the conversation is about.
        now: The server's time.
    """
    ticket = issue_ticket(
        conversation,
        role=Role.SILO if caller.kind is PartyKind.SILO else Role.WORKER,
        now=now,
        seconds=settings.ticket_seconds,
        key=ticket_key(federation_of(session)),
        correlation_id=correlation_id,
    )
    return TicketAnswer(ticket=ticket, gateway_url=gateway_url, valid_seconds=float(settings.ticket_seconds))
