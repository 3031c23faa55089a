"""Who may open which connection, and which epochs are current."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.auth.callers import PartyCaller
from backend.db.models import Generation, Job, JobSilo, Lease, Party, PartyKind, Silo, Worker
from backend.gateway import Conversation, SeatDocument, StandingDocument
from backend.generations.conversations import generation_standing, give_generation_ticket
from backend.jobs.errors import LeaseLostError, UnknownJobError
from backend.jobs.replicas import serves
from backend.jobs.state import ENDED, HOSTED
from backend.parties.repository import find_party
from backend.parties.standing import is_out
from backend.settings import Settings
from backend.tickets.answering import answer_with_ticket
from backend.tickets.meetings import arrange, find_gateway
from splitlearn.control_plane.schemas import TicketAnswer, TicketBody


def give_ticket(
    session: Session,
    settings: Settings,
    body: TicketBody,
    *,
    caller: PartyCaller,
    now: datetime,
    may_arrange: bool,
) -> TicketAnswer | None:
    """Give a party leave to open one connection on its own side of a current conversation.

    Returns:
        The ticket; None where the gateway is to be arranged first, and this transaction may not.

    Raises:
        UnknownJobError: The caller has no part in such a conversation.
        LeaseLostError: The epoch is not the current one.
    """
    job_id = uuid.UUID(body.job)
    job = session.get(Job, job_id)
    if job is None:
        return give_generation_ticket(
            session, settings, body, caller=caller, now=now, may_arrange=may_arrange
        )
    lease = session.get(Lease, (job_id, body.replica), with_for_update=may_arrange)
    silo = _silo_of(session, job, body.replica, body.silo)
    if lease is None or silo is None or not _is_own_side(caller, silo, lease):
        raise UnknownJobError(
            f"the caller has no part in a conversation of silo {body.silo!r} in job {body.job}"
        )
    if caller.kind is PartyKind.WORKER and lease.worker_epoch != caller.epoch:
        raise LeaseLostError("the lease was given to an earlier process of this worker")
    if lease.released_at is not None or lease.epoch != body.epoch or job.state not in HOSTED:
        raise LeaseLostError(
            f"the job is {job.state.value} at epoch {lease.epoch}, asked was for {body.epoch}"
        )
    worker = session.get_one(Worker, lease.worker_id)
    conversation = Conversation(body.job, body.replica, silo.name, worker.name, body.epoch)
    gateway_url = find_gateway(session, settings, conversation, silo_id=silo.id, now=now)
    if gateway_url is None:
        if not may_arrange:
            return None
        gateway_url = arrange(session, settings, conversation, silo_id=silo.id, now=now)
    return answer_with_ticket(
        session,
        settings,
        conversation,
        caller=caller,
        gateway_url=gateway_url,
        correlation_id=job.correlation_id,
        now=now,
    )


def _is_own_side(caller: PartyCaller, silo: Silo, lease: Lease) -> bool:
    return caller.party_id == (silo.id if caller.kind is PartyKind.SILO else lease.worker_id)


def standings(session: Session, seats: Sequence[SeatDocument], *, now: datetime) -> list[StandingDocument]:
    """Tell the current epoch of each seat; one whose job is unknown keeps its standing."""
    found = (_standing(session, seat, now=now) for seat in seats)
    return [standing for standing in found if standing is not None]


def _standing(session: Session, seat: SeatDocument, *, now: datetime) -> StandingDocument | None:
    try:
        job_id = uuid.UUID(seat.job)
    except ValueError:
        return None
    job, lease = session.get(Job, job_id), session.get(Lease, (job_id, seat.replica))
    party = find_party(session, PartyKind(seat.role), seat.party)
    if job is None:
        generation = session.get(Generation, job_id)
        return None if generation is None else generation_standing(generation, seat, party, now=now)
    if lease is None:
        return None
    revoked = job.state in ENDED or is_out(party, now=now) or not _has_seat(lease, party)
    # A lease that was given back ends its epoch, also where the next one waits for a worker.
    epoch = lease.epoch if lease.released_at is None else lease.epoch + 1
    return StandingDocument(**seat.model_dump(), epoch=epoch, revoked=revoked)


def _has_seat(lease: Lease, party: Party | None) -> bool:
    return not isinstance(party, Worker) or party.id == lease.worker_id


def _silo_of(session: Session, job: Job, replica: int, name: str) -> Silo | None:
    """Return a silo that has a conversation under the lease of this number."""
    query = (
        select(JobSilo, Silo)
        .join(Silo, Silo.id == JobSilo.silo_id)
        .where(JobSilo.job_id == job.id, Silo.name == name)
    )
    found = session.execute(query).one_or_none()
    return found[1] if found is not None and serves(job, found[0], replica) else None
