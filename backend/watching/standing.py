"""What the database says of jobs, leases and parties, read when Prometheus asks; a few bounded queries."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from backend.db.models import Job, JobState, Lease, PartyStatus, Silo, Worker
from backend.jobs.state import HOSTED
from backend.server import Server

KEPT_SECONDS = 5.0
"""Several scrapers, or an eager one, cost the database no more than one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand.

    Attributes:
        jobs: By state; every state is there.
        oldest_queued_seconds: How long the job that waits longest for a worker has waited; 0 for none.
        lease_ages: By worker: seconds since the last word of the lease on which it has been silent longest.
        parties: Enrolled ones by (kind, whether heard of lately).
    """

    jobs: dict[JobState, int]
    oldest_queued_seconds: float
    lease_ages: dict[str, float]
    parties: dict[tuple[str, bool], int]


def read_standing(session: Session, *, silence: timedelta, now: datetime) -> Standing:
    """Return how things stand.

    Args:
        session: The transaction.
        silence: Who was silent for longer counts as away.
        now: The server's time.
    """
    jobs = dict.fromkeys(JobState, 0)
    for state, number in session.execute(select(Job.state, func.count()).group_by(Job.state)).all():
        jobs[state] = number
    oldest = session.scalar(select(func.min(Job.state_since)).where(Job.state == JobState.QUEUED))
    return Standing(
        jobs=jobs,
        oldest_queued_seconds=_seconds(oldest, now),
        lease_ages=_lease_ages(session, now),
        parties={
            (kind, is_online): number
            for kind, table in (("silo", Silo), ("worker", Worker))
            for is_online, number in _parties(session, table, now - silence).items()
        },
    )


def _lease_ages(session: Session, now: datetime) -> dict[str, float]:
    query = (
        select(Worker.name, func.min(func.coalesce(Lease.renewed_at, Lease.dispatched_at)))
        .join(Lease, Lease.worker_id == Worker.id)
        .join(Job, Job.id == Lease.job_id)
        .where(Job.state.in_(HOSTED), Lease.released_at.is_(None))
        .group_by(Worker.name)
    )
    return {name: _seconds(heard, now) for name, heard in session.execute(query).all()}


def _parties(session: Session, table: type[Silo | Worker], heard: datetime) -> dict[bool, int]:
    enrolled = select(func.count()).select_from(table).where(table.status == PartyStatus.ENROLLED)
    total = session.scalar(enrolled) or 0
    online = session.scalar(enrolled.where(table.last_seen_at > heard)) or 0
    return {True: online, False: total - online}


def _seconds(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


class StandingCollector(Collector):
    """Tells Prometheus how things stand, at most :data:`KEPT_SECONDS` old.

    A database that does not answer is told as such; the process's own counts are told all the same.

    Args:
        server_of: Returns the world.
    """

    def __init__(self, server_of: Callable[[], Server]) -> None:
        self._server_of = server_of
        self._lock = threading.Lock()
        self._kept: tuple[Server, float, Standing] | None = None

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: registering must not ask the database."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        standing = self._read()
        yield GaugeMetricFamily(
            "trunkline_database_readable",
            "Whether the database told how things stand.",
            value=float(standing is not None),
        )
        if standing is not None:
            yield from _families(standing)

    def _read(self) -> Standing | None:
        server = self._server_of()
        with self._lock:
            if self._kept is not None and self._kept[0] is server:
                _, read_at, standing = self._kept
                if time.monotonic() - read_at < KEPT_SECONDS:
                    return standing
            silence = timedelta(seconds=server.settings.party_silence_seconds)
            try:
                with server.database.read() as session:
                    standing = read_standing(session, silence=silence, now=server.now())
            except SQLAlchemyError:
                return None  # told by a gauge of its own; /readyz says more
            self._kept = (server, time.monotonic(), standing)
            return standing


def _families(standing: Standing) -> Iterable[Metric]:
    jobs = GaugeMetricFamily("trunkline_jobs", "Jobs by state.", labels=["state"])
    for state, number in standing.jobs.items():
        jobs.add_metric([state.value], number)
    yield jobs
    yield GaugeMetricFamily(
        "trunkline_queue_depth", "Jobs that wait for a worker.", value=standing.jobs[JobState.QUEUED]
    )
    yield GaugeMetricFamily(
        "trunkline_queue_oldest_seconds",
        "How long the job has waited that waits longest.",
        value=standing.oldest_queued_seconds,
    )
    ages = GaugeMetricFamily(
        "trunkline_lease_age_seconds",
        "Since the last word of the worker on a lease that it holds.",
        labels=["worker"],
    )
    for worker, seconds in sorted(standing.lease_ages.items()):
        ages.add_metric([worker], seconds)
    yield ages
    parties = GaugeMetricFamily(
        "trunkline_parties",
        "Enrolled parties, by whether they were heard of lately.",
        labels=["kind", "state"],
    )
    for (kind, is_online), number in standing.parties.items():
        parties.add_metric([kind, "online" if is_online else "away"], number)
    yield parties
