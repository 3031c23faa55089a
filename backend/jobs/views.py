"""A job's rows as the API shows them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from backend.db.models import Job, JobSilo, Lease, Silo
from backend.jobs.replicas import averaged_round, open_leases
from backend.jobs.repository import silos_of, worker_of
from backend.jobs.schemas import (
    JobAnswer,
    JobDetailAnswer,
    JobLeaseAnswer,
    JobSiloAnswer,
    ReasonAnswer,
    ScheduleAnswer,
)


def show(job: Job) -> JobAnswer:
    """Return a job for a list."""
    return JobAnswer(
        id=job.id,
        name=job.name,
        state=job.state,
        desired=job.desired,
        reason=_reason(job),
        submitted_by=job.submitted_by,
        correlation_id=job.correlation_id,
        parent_id=job.parent_id,
        created_at=job.created_at,
        updated_at=job.updated_at,
        state_since=job.state_since,
    )


def show_detail(session: Session, job: Job, *, notes: Sequence[str] = ()) -> JobDetailAnswer:
    """Return a job, whole; ``notes`` are for who has just submitted it."""
    leases = [_lease(session, lease) for lease in open_leases(session, job)]
    spec = json.loads(job.spec_bytes)
    return JobDetailAnswer(
        **show(job).model_dump(),
        spec=spec,
        spec_digest=job.spec_digest.hex(),
        schedule=_schedule(job, spec),
        silos=[_show_silo(part, silo) for part, silo in silos_of(session, job.id)],
        rounds_committed=averaged_round(session, job),
        lease=next(iter(leases), None),
        leases=leases,
        metrics_kept=job.metrics_kept,
        logs_kept=job.logs_kept,
        notes=list(notes),
    )


def _schedule(job: Job, spec: Mapping[str, Any]) -> ScheduleAnswer:
    return ScheduleAnswer(
        asked=job.schedule_asked or spec["schedule"],
        chosen=spec["schedule"],
        replicas=spec.get("replicas", 1),  # written only where it is another number
        reason=job.schedule_reason,
    )


def _reason(job: Job) -> ReasonAnswer:
    return ReasonAnswer(
        code=job.reason_code,
        who=job.reason_who,
        what=job.reason_what,
        where=job.reason_where,
        next=job.reason_next,
    )


def _show_silo(part: JobSilo, silo: Silo) -> JobSiloAnswer:
    return JobSiloAnswer(
        name=silo.name,
        dataset=part.dataset,
        approval=part.approval,
        approval_code=part.approval_code,
        approval_reason=part.approval_reason,
        attached_epoch=part.attached_epoch,
        finished=part.finish_outcome,
        finish_code=part.finish_code,
        finish_message=part.finish_message,
    )


def _lease(session: Session, lease: Lease) -> JobLeaseAnswer:
    return JobLeaseAnswer(
        replica=lease.replica,
        worker=worker_of(session, lease).name,
        epoch=lease.epoch,
        expires_at=lease.expires_at,
        round=lease.round,
        step=lease.step,
    )
