"""Queries of artifacts and uploads, and the lock of one blob."""

import uuid
from datetime import datetime

from sqlalchemy import Select, delete, exists, func, select, update
from sqlalchemy.orm import Session

from backend.db.models import Artifact, Job, Project, Round, Upload

_BLOBS = 0x626C6F62
"""Tells these advisory locks of PostgreSQL from others of the same database."""


def lock_blob(session: Session, digest: bytes) -> None:
    """Keep every other process from removing a blob, or making it visible, until the transaction ends.

    Held while a blob is removed, and while one becomes visible and gets its first reference: else it could be
    removed between the two. Two blobs may share a lock: one then waits for the other. On SQLite a writing
    transaction, which this must be, excludes all others anyway.
    """
    connection = session.connection()  # begins the transaction, which a session puts off until it is used
    if connection.dialect.name == "postgresql":
        half = int.from_bytes(digest[:4], "big", signed=True)
        session.execute(select(func.pg_advisory_xact_lock(_BLOBS, half)))


def used_bytes(session: Session, project_id: uuid.UUID) -> int:
    """Return what a project's references come to; a blob that it refers to twice counts once."""
    blobs = select(Artifact.digest, Artifact.num_bytes).where(Artifact.project_id == project_id).distinct()
    return session.scalar(select(func.coalesce(func.sum(blobs.subquery().c.num_bytes), 0))) or 0


def refers_to(session: Session, project_id: uuid.UUID, digest: bytes) -> bool:
    """Whether a project refers to a blob already."""
    query = select(Artifact.id).where(Artifact.project_id == project_id, Artifact.digest == digest)
    return session.scalar(query.limit(1)) is not None


def waiting_bytes(session: Session, organization_id: uuid.UUID) -> int:
    """Return what an organisation has sent and nothing refers to yet."""
    query = select(func.coalesce(func.sum(Upload.num_bytes), 0))
    return session.scalar(query.where(Upload.organization_id == organization_id)) or 0


def is_visible(session: Session, digest: bytes, organization_id: uuid.UUID) -> bool:
    """Whether an organisation refers to a blob, or has sent its bytes."""
    query = (
        select(Artifact.id)
        .join(Project)
        .where(Artifact.digest == digest, Project.organization_id == organization_id)
    )
    sent = session.get(Upload, (organization_id, digest)) is not None
    return sent or session.scalar(query.limit(1)) is not None


def is_needed(session: Session, digest: bytes) -> bool:
    """Whether anything at all refers to a blob, or it was sent and waits for that."""
    return bool(session.scalar(_anyone(Artifact, digest))) or bool(session.scalar(_anyone(Upload, digest)))


def remove_expired(session: Session, *, now: datetime) -> set[bytes]:
    """Remove the references whose time is over; return the blobs that they were to."""
    expired = session.scalars(select(Artifact).where(Artifact.expires_at <= now)).all()
    ids = [artifact.id for artifact in expired]
    session.execute(update(Round).where(Round.checkpoint_id.in_(ids)).values(checkpoint_id=None))
    session.execute(update(Job).where(Job.result_id.in_(ids)).values(result_id=None))
    for artifact in expired:
        session.delete(artifact)
    session.flush()
    return {artifact.digest for artifact in expired}


def remove_uploads(session: Session, *, before: datetime) -> set[bytes]:
    """Forget what was sent before a moment and never used; return the blobs."""
    query = delete(Upload).where(Upload.uploaded_at < before).returning(Upload.digest)
    return set(session.scalars(query).all())


def _anyone(table: type[Artifact | Upload], digest: bytes) -> Select[bool]:
    return select(exists().where(table.digest == digest))
