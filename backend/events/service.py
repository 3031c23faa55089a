"""Adding events. An event is written in the transaction of what it tells of: both, or neither."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from backend.db import wake_listeners
from backend.db.models import Event, Project


class EventKind(StrEnum):
    """What an event tells of."""

    JOB_SUBMITTED = "job_submitted"
    JOB_STATE = "job_state"
    SILO_APPROVAL = "silo_approval"
    SILO_ATTACHED = "silo_attached"
    SILO_FINISHED = "silo_finished"
    SILO_LOST = "silo_lost"
    LEASE_GRANTED = "lease_granted"
    EPOCH_RAISED = "epoch_raised"
    ROUND_COMMITTED = "round_committed"
    ROUND_AVERAGED = "round_averaged"
    REPLICA_STUCK = "replica_stuck"
    GENERATION_OPENED = "generation_opened"
    GENERATION_ENDED = "generation_ended"
    MODEL_STATE = "model_state"
    DATASETS = "datasets"
    CERTIFICATE_EXPIRES = "certificate_expires"


def emit(
    session: Session,
    project_id: uuid.UUID,
    kind: EventKind,
    *,
    body: Mapping[str, Any],
    now: datetime,
    job_id: uuid.UUID | None = None,
) -> int:
    """Add an event; return its number.

    The project's row stays locked until the transaction ends, so numbers become visible in order.
    """
    wake_listeners(session)
    raised = (
        update(Project)
        .where(Project.id == project_id)
        .values(last_event_number=Project.last_event_number + 1)
        .returning(Project.last_event_number)
    )
    number = session.execute(raised).scalar_one()
    session.add(
        Event(
            project_id=project_id,
            number=number,
            job_id=job_id,
            kind=kind.value,
            body=dict(body),
            happened_at=now,
        )
    )
    return number
