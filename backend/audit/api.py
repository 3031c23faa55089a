"""Reading the audit, and exporting it for whoever verifies it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from backend.audit.errors import NoSignedHeadError
from backend.audit.export import export, only, signed_head
from backend.audit.repository import audit_rows
from backend.audit.schemas import AuditRowAnswer
from backend.auth.callers import AuditReader
from backend.errors import SIGNED_IN, documented
from backend.schemas import MAX_NUMBER, Page
from backend.server import ServerDep

router = APIRouter(prefix="/audit", tags=["audit"])
_MEDIA_TYPE = "application/jsonl"
_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {_MEDIA_TYPE: {"schema": {"type": "string"}}},
        "description": "One row per line, the signed head last.",
    }
}


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


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={**documented(*SIGNED_IN, NoSignedHeadError), **_LINES},
)
def export_audit(server: ServerDep, caller: AuditReader) -> StreamingResponse:
    """Export the federation's chain for ``trunkline audit verify``; other organisations' rows are hidden."""
    head = signed_head(server.database)
    lines = export(server.database, head, only(caller.organization_id))
    return StreamingResponse(lines, media_type=_MEDIA_TYPE, headers={"Cache-Control": "no-store"})
