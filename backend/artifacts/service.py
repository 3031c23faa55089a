"""References to blobs: whose they are, and how much of its share a project uses."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.artifacts.errors import QuotaError, UnknownBlobError
from backend.artifacts.repository import is_visible, lock_blob, refers_to, used_bytes, waiting_bytes
from backend.artifacts.store import ArtifactStore
from backend.db.models import Artifact, ArtifactKind, Project, Round, RoundState, Upload
from backend.settings import Settings

_MADE_HERE = frozenset({ArtifactKind.MODEL_LAYER, ArtifactKind.MODEL_FILE})
"""Kinds that this server wrote itself; all others were sent by a worker."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that somebody says is in the store."""

    digest: bytes
    num_bytes: int


def note_upload(session: Session, blob: Blob, organization_id: uuid.UUID, *, now: datetime) -> None:
    """Write down that an organisation sent a blob's bytes: it may now read it, and refer to it."""
    row = session.get(Upload, (organization_id, blob.digest))
    if row is None:
        row = Upload(organization_id=organization_id, digest=blob.digest, num_bytes=blob.num_bytes)
        session.add(row)
    row.uploaded_at = now


def refuse_hoard(session: Session, settings: Settings, organization_id: uuid.UUID) -> None:
    """Refuse another blob to an organisation that keeps sending what nothing refers to.

    Raises:
        QuotaError: As much as a project may keep waits already.
    """
    waiting = waiting_bytes(session, organization_id)
    if waiting >= settings.artifact_quota_bytes:
        raise QuotaError(
            f"{waiting} bytes were sent that nothing refers to; a project may keep "
            f"{settings.artifact_quota_bytes}"
        )


def attach(
    session: Session,
    store: ArtifactStore,
    settings: Settings,
    blob: Blob,
    *,
    project_id: uuid.UUID,
    kind: ArtifactKind,
    name: str,
    now: datetime,
    job_id: uuid.UUID | None = None,
    keep: timedelta | None = None,
) -> Artifact:
    """Make a reference to a blob that is in the store.

    Raises:
        UnknownBlobError: It is not there, of another size, or was sent by another organisation: whoever
            knows a digest does not have the bytes yet.
        QuotaError: The project's share is used up.
    """
    organization_id = session.get_one(Project, project_id).organization_id
    lock_blob(session, blob.digest)
    may = kind in _MADE_HERE or is_visible(session, blob.digest, organization_id)
    if not may or not store.has(blob.digest) or store.size(blob.digest) != blob.num_bytes:
        raise UnknownBlobError(f"the store has no blob {blob.digest.hex()} of {blob.num_bytes} bytes")
    _refuse_over_quota(session, settings, project_id, blob)
    row = Artifact(
        project_id=project_id,
        job_id=job_id,
        kind=kind,
        name=name,
        digest=blob.digest,
        num_bytes=blob.num_bytes,
        created_at=now,
        expires_at=now + keep if keep else None,
    )
    session.add(row)
    upload = session.get(Upload, (organization_id, blob.digest))
    if upload is not None:
        session.delete(upload)
    session.flush()
    return row


def _refuse_over_quota(session: Session, settings: Settings, project_id: uuid.UUID, blob: Blob) -> None:
    if refers_to(session, project_id, blob.digest):
        return
    used = used_bytes(session, project_id)
    if used + blob.num_bytes > settings.artifact_quota_bytes:
        raise QuotaError(
            f"{blob.num_bytes} bytes more than the {used} used would pass the project's "
            f"{settings.artifact_quota_bytes}"
        )


def drop_old_checkpoints(
    session: Session, job_id: uuid.UUID, replica: int, *, keep: int, now: datetime
) -> None:
    """Let all but a replica's newest checkpoints expire."""
    query = (
        select(Artifact)
        .join(Round, Round.checkpoint_id == Artifact.id)
        .where(Round.job_id == job_id, Round.replica == replica, Round.state == RoundState.COMMITTED)
        .order_by(Round.number.desc())
        .offset(keep)
    )
    for artifact in session.scalars(query).all():
        artifact.expires_at = artifact.expires_at or now
