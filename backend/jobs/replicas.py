"""How a job's roster is dealt out to its trunk's replicas, how far each of them is, and who averages them.

The leases and rounds of a job with R replicas have the numbers 0 to R - 1 for the replicas, and R for the
*meeting*: the task that averages a round which all replicas have committed.
"""

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.db.models import Artifact, Job, JobSilo, Lease, Round, RoundState
from splitlearn.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """What a specification says of its replicas.

    Attributes:
        num_replicas: 1 where the trunk has none.
        num_rounds: Of the whole job.
        of_position: The replica of each silo, by its position in the roster.
        silos_meet: Whether the silos of all replicas take part in the meeting.
        meeting_evaluates: Whether the meeting hosts the trunk, to evaluate the average.
    """

    num_replicas: int
    num_rounds: int
    of_position: tuple[int, ...]
    silos_meet: bool = False
    meeting_evaluates: bool = False

    @property
    def is_replicated(self) -> bool:
        """Whether there are several trunks."""
        return self.num_replicas > 1

    @property
    def meeting(self) -> int | None:
        """The number under which the replicas are averaged; None where there are none."""
        return self.num_replicas if self.is_replicated else None

    def is_done(self, lease: Lease) -> bool:
        """Whether nothing is left of a replica to be hosted: its silos have all that the job's end takes."""
        return lease.released_at is not None and lease.round > self.num_rounds


@lru_cache(maxsize=4096)
def layout_of(spec_bytes: bytes) -> Layout:
    """Return a job's layout. Parsing costs more than all that is done with it; it never changes."""
    spec = JobSpec.parse(spec_bytes)
    of_position = tuple(replica for replica, share in enumerate(spec.shares) for _ in share)
    return Layout(len(spec.shares), spec.rounds, of_position, spec.silos_meet, spec.meeting_evaluates)


def replica_of(job: Job, part: JobSilo) -> int:
    """Return the replica that a silo is served by."""
    return layout_of(job.spec_bytes).of_position[part.position]


def serves(job: Job, part: JobSilo, number: int) -> bool:
    """Whether a silo has a conversation under a lease of this number: its replica's, or the meeting's."""
    layout = layout_of(job.spec_bytes)
    return number == replica_of(job, part) or (layout.silos_meet and number == layout.meeting)


def lease_to_join(job: Job, part: JobSilo, leases: Mapping[int, Lease]) -> Lease | None:
    """Return which of a job's leases a silo joins: the meeting's while that is held, else its replica's.

    Args:
        job: The job.
        part: The silo's.
        leases: By number; one that was given back may be among them.
    """
    layout = layout_of(job.spec_bytes)
    if layout.silos_meet and layout.meeting is not None:
        meeting = leases.get(layout.meeting)
        if meeting is not None and meeting.released_at is None:
            return meeting
    return leases.get(replica_of(job, part))


def leases_of(session: Session, job: Job) -> dict[int, Lease]:
    """Return all leases of a job by number, also those that were given back."""
    return {lease.replica: lease for lease in session.scalars(select(Lease).where(Lease.job_id == job.id))}


def next_epoch(session: Session, job: Job) -> int:
    """Return an epoch that no lease of the job has had: a silo goes from one lease to another."""
    return (session.scalar(select(func.max(Lease.epoch)).where(Lease.job_id == job.id)) or 0) + 1


def committed_rounds(session: Session, jobs: Collection[uuid.UUID]) -> Mapping[uuid.UUID, dict[int, int]]:
    """Return the last round that is committed under each number of each job; none where there is none."""
    query = (
        select(Round.job_id, Round.replica, func.max(Round.number))
        .where(Round.job_id.in_(jobs), Round.state == RoundState.COMMITTED)
        .group_by(Round.job_id, Round.replica)
    )
    found: defaultdict[uuid.UUID, dict[int, int]] = defaultdict(dict)
    for job_id, replica, number in session.execute(query).all():
        found[job_id][replica] = number
    return found


def common_round(session: Session, job: Job) -> int:
    """Return the last round that every replica has committed; 0 before the first."""
    committed = committed_rounds(session, [job.id]).get(job.id, {})
    return min(committed.get(replica, 0) for replica in range(layout_of(job.spec_bytes).num_replicas))


def averaged_round(session: Session, job: Job) -> int:
    """Return the last round that is whole: committed by every replica, and averaged if there are several."""
    layout = layout_of(job.spec_bytes)
    committed = committed_rounds(session, [job.id]).get(job.id, {})
    return min(committed.get(number, 0) for number in range(layout.num_replicas + layout.is_replicated))


def contributions_to(session: Session, job: Job, number: int) -> Sequence[Artifact]:
    """Return what every replica has committed of a round, in their order."""
    query = (
        select(Artifact)
        .join(Round, Round.checkpoint_id == Artifact.id)
        .where(
            Round.job_id == job.id,
            Round.number == number,
            Round.replica < layout_of(job.spec_bytes).num_replicas,
            Round.state == RoundState.COMMITTED,
        )
        .order_by(Round.replica)
    )
    return session.scalars(query).all()


def average_of(session: Session, job: Job, number: int) -> Artifact | None:
    """Return the average of a round; None before the replicas have met."""
    query = (
        select(Artifact)
        .join(Round, Round.checkpoint_id == Artifact.id)
        .where(
            Round.job_id == job.id,
            Round.number == number,
            Round.replica == layout_of(job.spec_bytes).meeting,
            Round.state == RoundState.COMMITTED,
        )
    )
    return session.scalars(query).one_or_none()


def open_leases(session: Session, job: Job) -> Sequence[Lease]:
    """Return the leases of a job that are held, or about to be taken up."""
    query = select(Lease).where(Lease.job_id == job.id, Lease.released_at.is_(None)).order_by(Lease.replica)
    return session.scalars(query).all()


def are_all_done(session: Session, job: Job, *, but: int) -> bool:
    """Whether every other replica's silos have evaluated the last average."""
    layout = layout_of(job.spec_bytes)
    leases = leases_of(session, job)
    others = (replica for replica in range(layout.num_replicas) if replica != but)
    return all(replica in leases and layout.is_done(leases[replica]) for replica in others)
