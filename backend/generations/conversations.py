"""Who may meet at the gateway about a session: its silo and the worker that holds its lease, in its epoch.

A session's id stands where a job's does in tickets, terms and envelopes, with replica 0: keys, pairing and
standing are its own.
"""

import uuid
from datetime import datetime

from sqlalchemy.orm import Session

from backend.auth.callers import PartyCaller
from backend.db.models import Generation, GenerationState, Party, PartyKind, Silo, Worker
from backend.gateway import Conversation, SeatDocument, StandingDocument
from backend.jobs.errors import LeaseLostError, UnknownJobError
from backend.parties.standing import is_out
from backend.settings import Settings
from backend.tickets.answering import answer_with_ticket
from backend.tickets.choice import choose
from backend.tickets.meetings import present_gateways
from splitlearn.control_plane.schemas import TicketAnswer, TicketBody


def give_generation_ticket(
    session: Session,
    settings: Settings,
    body: TicketBody,
    *,
    caller: PartyCaller,
    now: datetime,
    may_arrange: bool,
) -> TicketAnswer | None:
    """Give a party leave to open one connection on its own side of a session's conversation.

    Returns:
        The ticket; None where the gateway is to be arranged first, and this transaction may not.

    Raises:
        UnknownJobError: The caller has no part in such a conversation.
        LeaseLostError: The epoch is not the current one, or the session is not hosted.
    """
    row = session.get(Generation, uuid.UUID(body.job), with_for_update=may_arrange)
    silo = None if row is None else session.get_one(Silo, row.silo_id)
    if row is None or silo is None or silo.name != body.silo or body.replica or not _is_own(caller, row):
        raise UnknownJobError(
            f"the caller has no part in a conversation of silo {body.silo!r} in job {body.job}"
        )
    if caller.kind is PartyKind.WORKER and row.worker_epoch != caller.epoch:
        raise LeaseLostError("the lease was given to an earlier process of this worker")
    if row.state is not GenerationState.HOSTED or row.epoch != body.epoch:
        raise LeaseLostError(
            f"the session is {row.state.value} at epoch {row.epoch}, asked was for {body.epoch}"
        )
    worker = session.get_one(Worker, row.worker_id)
    conversation = Conversation(body.job, 0, silo.name, worker.name, row.epoch)
    gateway_url = _gateway(session, settings, row, conversation, now=now, may_arrange=may_arrange)
    if gateway_url is None:
        return None
    return answer_with_ticket(
        session,
        settings,
        conversation,
        caller=caller,
        gateway_url=gateway_url,
        correlation_id=row.correlation_id,
        now=now,
    )


def generation_standing(
    row: Generation, seat: SeatDocument, party: Party | None, *, now: datetime
) -> StandingDocument:
    """Tell the current epoch of a seat in a session.

    Args:
        row: The session.
        seat: Which one.
        party: Whose it is; None where there is no such party.
        now: The server's time.
    """
    is_elsewhere = isinstance(party, Worker) and party.id != row.worker_id
    revoked = row.state is GenerationState.ENDED or is_out(party, now=now) or is_elsewhere
    # A lease that was given back ends its epoch, also where the next one waits for a worker.
    epoch = row.epoch if row.state is GenerationState.HOSTED else row.epoch + 1
    return StandingDocument(**seat.model_dump(), epoch=epoch, revoked=revoked)


def _is_own(caller: PartyCaller, row: Generation) -> bool:
    return caller.party_id == (row.silo_id if caller.kind is PartyKind.SILO else row.worker_id)


def _gateway(
    session: Session,
    settings: Settings,
    row: Generation,
    conversation: Conversation,
    *,
    now: datetime,
    may_arrange: bool,
) -> str | None:
    """Return where both meet in this epoch; chosen once and written down, while that gateway is there."""
    if len(settings.gateway_urls) == 1:
        return settings.gateway_urls[0]
    present = present_gateways(session, settings, now=now)
    if row.gateway_url in present:
        return row.gateway_url
    if may_arrange:
        row.gateway_url = choose(present, conversation)
        return row.gateway_url
    return None
