"""Whose number it is: a silo's, or a worker's of one trunk.

A number's party is ``silo:NAME`` or ``worker:NAME``; where a job's trunk has replicas, ``worker:NAME/rN``, so
that two replicas at one worker keep their numbers apart.
"""

import uuid
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.auth.callers import PartyCaller
from backend.db.models import Job, JobSilo, Lease, PartyKind, Silo, Worker
from backend.jobs.replicas import layout_of, replica_of


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports numbers of a job.

    Attributes:
        kind: Silo or worker.
        party: As its numbers are kept.
        others: The other ends of its steps, as theirs are: a worker's silos, or the worker of a silo.
    """

    kind: PartyKind
    party: str
    others: tuple[str, ...]


def reporter_of(session: Session, job_id: uuid.UUID, caller: PartyCaller, *, replica: int | None) -> Reporter:
    """Return whose numbers a party sends.

    Args:
        session: The transaction.
        job_id: A job that it has a part in.
        caller: The party.
        replica: Of a worker: the trunk that it speaks of.
    """
    job = session.get_one(Job, job_id)
    parts = session.execute(
        select(JobSilo, Silo).join(Silo).where(JobSilo.job_id == job_id).order_by(JobSilo.position)
    ).all()
    if caller.kind is PartyKind.SILO:
        [number] = [replica_of(job, part) for part, silo in parts if silo.id == caller.party_id]
        return Reporter(caller.kind, silo_party(caller.name), _worker(session, job, number))
    number = 0 if replica is None else replica
    silos = [silo_party(silo.name) for part, silo in parts if replica_of(job, part) == number]
    return Reporter(caller.kind, worker_party(job, caller.name, number), tuple(silos))


def silo_party(name: str) -> str:
    """Return how a silo's numbers are kept."""
    return f"silo:{name}"


def worker_party(job: Job, name: str, replica: int) -> str:
    """Return how a worker's numbers of one trunk of a job are kept; at most 77 characters."""
    is_replicated = layout_of(job.spec_bytes).is_replicated
    return f"worker:{name}/r{replica}" if is_replicated else f"worker:{name}"


def _worker(session: Session, job: Job, replica: int) -> tuple[str, ...]:
    query = (
        select(Worker.name)
        .join(Lease, Lease.worker_id == Worker.id)
        .where(Lease.job_id == job.id, Lease.replica == replica)
    )
    return tuple(worker_party(job, name, replica) for name in session.scalars(query).all())
