"""Queries of audit rows."""

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import AuditRow


def audit_rows(
    session: Session, organization_id: uuid.UUID, *, before: int | None, limit: int
) -> Sequence[AuditRow]:
    """Return an organisation's rows, newest first."""
    query = select(AuditRow).where(AuditRow.organization_id == organization_id)
    if before is not None:
        query = query.where(AuditRow.id < before)
    return session.scalars(query.order_by(AuditRow.id.desc()).limit(limit)).all()
