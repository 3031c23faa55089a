"""Jobs in the API, as people see them. What parties see is in ``splitlearn.control_plane.schemas``."""

import uuid
from datetime import datetime
from typing import Any

from pydantic import Field

from backend.db.models import Approval, Desired, JobState, RoundState
from backend.organizations.service import FIRST_NAME
from backend.schemas import MAX_NUMBER, Answer, Body, Name


class SubmitBody(Body):
    """A job.

    Attributes:
        spec: A JobSpec; its ``model`` is a registered model's name.
        project: Where it belongs.
    """

    spec: dict[str, Any]
    project: Name = FIRST_NAME


class CloneBody(Body):
    """Changes to a job's specification, as a JSON merge patch (RFC 7396)."""

    changes: dict[str, Any] = Field(default_factory=dict)


class RetryBody(Body):
    """Where to go on; left out for the newest round that every party has.

    Attributes:
        round: The last round that counts; 0 begins anew.
    """

    round: int | None = Field(default=None, ge=0, lt=MAX_NUMBER)


class ReasonAnswer(Answer):
    """Why a job is in its state."""

    code: str
    who: str
    what: str
    where: str
    next: str


class JobSiloAnswer(Answer):
    """A silo's part in a job."""

    name: str
    dataset: str
    approval: Approval
    approval_code: str
    approval_reason: str
    attached_epoch: int | None
    finished: str | None
    finish_code: str
    finish_message: str


class JobLeaseAnswer(Answer):
    """Who hosts a replica's trunk.

    Attributes:
        replica: From 0; the number after the last one stands for the task that averages them.
    """

    replica: int
    worker: str
    epoch: int
    expires_at: datetime
    round: int
    step: int


class ScheduleAnswer(Answer):
    """How silos and trunk take turns.

    Attributes:
        asked: By whoever submitted the job: ``auto``, or the same.
        chosen: What the signed specification says.
        replicas: Of the trunk.
        reason: Why it was chosen; None where it was asked for.
    """

    asked: str
    chosen: str
    replicas: int
    reason: str | None


class JobAnswer(Answer):
    """A job in a list.

    Attributes:
        state_since: When it came into its state; since then it waits for what the reason names.
    """

    id: uuid.UUID
    name: str
    state: JobState
    desired: Desired
    reason: ReasonAnswer
    submitted_by: str
    correlation_id: str = ""
    parent_id: uuid.UUID | None
    created_at: datetime
    updated_at: datetime
    state_since: datetime | None


class JobDetailAnswer(JobAnswer):
    """One job, whole.

    Attributes:
        spec: As signed.
        schedule: How silos and trunk take turns.
        rounds_committed: The last round in the artifact store.
        lease: Who hosts the trunk now, or its first replica that is hosted.
        leases: Who hosts which replica now.
        metrics_kept, logs_kept: ``whole``, ``thinned`` (a tenth of the steps) or ``dropped``.
        notes: In the answer to a submission, and in the event ``job_submitted``: what its author should know
            of the specification, a sentence each.
    """

    spec: dict[str, Any]
    spec_digest: str
    schedule: ScheduleAnswer
    silos: list[JobSiloAnswer]
    rounds_committed: int
    lease: JobLeaseAnswer | None
    leases: list[JobLeaseAnswer]
    metrics_kept: str
    logs_kept: str
    notes: list[str] = Field(default_factory=list)


class RoundAnswer(Answer):
    """A committed round.

    Attributes:
        replica: Which trunk's; the number after the last one's stands for their average.
    """

    number: int
    replica: int
    epoch: int
    state: RoundState
    started_at: datetime
    committed_at: datetime | None


class ArtifactAnswer(Answer):
    """Something that a job left in the store; read it by ``GET /api/v1/blobs/{digest}``."""

    name: str
    kind: str
    digest: str
    num_bytes: int
    created_at: datetime
    expires_at: datetime | None


class RolePlan(Answer):
    """What one segment needs, in bytes; an estimate, meant to tell what fits from what does not.

    ``caches`` are those of texts that an evaluation generates; the total holds them where they are more than
    activations and logits, which are gone by then. ``best`` is a copy of what is trained, as it was after the
    best round.
    """

    role: str
    num_layers: int
    num_parameters: int
    download_bytes: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    caches: int = 0
    best: int = 0
    total: int


class LayersPlan(Answer):
    """Contiguous layers of the trunk on one device.

    Attributes:
        device: The worker's word for it.
        first_layer, last_layer: Numbers in the whole model; both belong to the range.
        num_bytes: What they would need while they train.
        free_bytes: What was free of the device when its worker told of it last.
    """

    device: str
    first_layer: int
    last_layer: int
    num_bytes: int
    free_bytes: int


class WorkerPlan(Answer):
    """Whether an online worker could host the trunk now, and how.

    Attributes:
        lacks: Why not; None where it could.
        layers: Which layers would lie where; empty where it could not.
    """

    name: str
    lacks: str | None
    layers: list[LayersPlan]


class PlanAnswer(Answer):
    """What a job would need.

    Attributes:
        schedule: How it would be run, and why.
        wire_bytes_per_token: Tensor bytes per valid token and step, both directions.
        wire_bytes_per_step: Of one silo, with envelopes; rows as long as ``assumptions`` say.
        max_wire_bytes_per_step: Likewise, where every row has ``max_tokens`` tokens.
        wire_bytes_per_sum: Of one silo in a secure sum of the silos' blocks, both directions.
        sums_per_round: Such sums in a round; 0 where blocks are not averaged.
        total_steps: Optimiser steps of the trunk.
        seconds_per_step: Of one such step.
        silo_seconds_per_step: Of these, what the slowest silo computes.
        trunk_seconds_per_step: Likewise the trunk, or its busiest replica.
        seconds_per_round: Secure sums included; evaluation and checkpoints are not.
        assumptions: What is not known, and what was taken instead.
        notes: What the job's author should know of the specification, a sentence each.
        workers: Online workers whose free memory is enough.
        placements: Every online worker, with what it lacks, or where the trunk's layers would lie.
    """

    model: str
    schedule: ScheduleAnswer
    wire_bytes_per_token: int
    wire_bytes_per_step: int
    max_wire_bytes_per_step: int
    wire_bytes_per_sum: int
    sums_per_round: int
    total_steps: int
    seconds_per_step: float
    silo_seconds_per_step: float
    trunk_seconds_per_step: float
    seconds_per_round: float
    assumptions: list[str]
    notes: list[str]
    roles: list[RolePlan]
    workers: list[str]
    placements: list[WorkerPlan]
