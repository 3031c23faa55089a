"""How a job's roster is dealt out to its trunk's replicas, and how far each of them is."""

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
    """

    num_replicas: int
    num_rounds: int
    of_position: tuple[int, ...]

    @property
    def is_replicated(self) -> bool:
        """Whether there are several trunks."""
        return self.num_replicas > 1

    def is_done(self, lease: Lease) -> bool:
        """Whether a replica's silos have evaluated the last average: nothing is left to be hosted."""
        return lease.released_at is not None and lease.round > self.num_rounds


@lru_cache(maxsize=4096)
def layout_of(spec_bytes: bytes) -> Layout:
    """Return a job's layout. Parsing costs more than all that is done with it; it never changes."""
    spec = JobSpec.parse(spec_bytes)
    of_position = tuple(replica for replica, share in enumerate(spec.shares) for _ in share)
    return Layout(len(spec.shares), spec.rounds, of_position)


def replica_of(job: Job, part: JobSilo) -> int:
    """Return the replica that a silo is served by."""
    return layout_of(job.spec_bytes).of_position[part.position]


def committed_rounds(session: Session, jobs: Collection[uuid.UUID]) -> Mapping[uuid.UUID, dict[int, int]]:
    """Return the last round that each replica of each job has committed; none where there is none."""
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


def contributions_to(session: Session, job: Job, number: int) -> Sequence[Artifact]:
    """Return what every replica has committed of a round, in their order."""
    query = (
        select(Artifact)
        .join(Round, Round.checkpoint_id == Artifact.id)
        .where(Round.job_id == job.id, Round.number == number, Round.state == RoundState.COMMITTED)
        .order_by(Round.replica)
    )
    return session.scalars(query).all()


def open_leases(session: Session, job: Job) -> Sequence[Lease]:
    """Return the leases of a job that are held, or about to be taken up."""
    query = select(Lease).where(Lease.job_id == job.id, Lease.released_at.is_(None)).order_by(Lease.replica)
    return session.scalars(query).all()


def are_all_done(session: Session, job: Job, *, but: int) -> bool:
    """Whether every other replica's silos have evaluated the last average."""
    layout = layout_of(job.spec_bytes)
    leases = {lease.replica: lease for lease in session.scalars(select(Lease).where(Lease.job_id == job.id))}
    others = (replica for replica in range(layout.num_replicas) if replica != but)
    return all(replica in leases and layout.is_done(leases[replica]) for replica in others)
