"""How audit rows are shown."""

from datetime import datetime
from typing import Any

from backend.db.models import Outcome
from backend.schemas import Answer


class AuditRowAnswer(Answer):
    """One privileged action."""

    id: int
    happened_at: datetime
    actor_kind: str
    actor_name: str
    address: str
    action: str
    subject_kind: str
    subject_name: str
    outcome: Outcome
    details: dict[str, Any]
