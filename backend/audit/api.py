"""Reading the audit."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend.audit.repository import audit_rows
from backend.audit.schemas import AuditRowAnswer
from backend.auth.callers import AuditReader
from backend.errors import SIGNED_IN, documented
from backend.schemas import MAX_NUMBER, Page
from backend.server import ServerDep

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("", responses=documented(*SIGNED_IN))
def list_audit(
    server: ServerDep, caller: AuditReader, after: Annotated[int | None, Query(ge=1, lt=MAX_NUMBER)] = None
) -> Page[AuditRowAnswer]:
    """List your organisation's audit rows, newest first; ``after`` is an older page's start."""
    limit = server.settings.max_page
    with server.database.read() as session:
        rows = audit_rows(session, caller.organization_id, before=after, limit=limit + 1)
        items = [AuditRowAnswer.model_validate(row) for row in rows[:limit]]
    return Page(items=items, next=str(items[-1].id) if len(rows) > limit else None)
