"""Adding audit rows. A row is written in the transaction of what it tells of: both, or neither.

It is hung on the chain when that transaction commits: see ``backend.audit.ledger``.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from backend.audit.ledger import append_at_commit
from backend.db.models import AuditRow, Outcome


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts.

    Attributes:
        kind: user, silo, worker, operator (the command line on the server), server (itself) or anonymous.
        name: Of the user or party; of nobody, "unknown".
        address: Where the request came from.
        organization_id: Whose audit it belongs to, or None for the whole server's.
    """

    kind: str
    name: str
    address: str = ""
    organization_id: uuid.UUID | None = None


OPERATOR = Actor(kind="operator", name="operator")
SERVER = Actor(kind="server", name="control-plane")


def record(
    session: Session,
    actor: Actor,
    *,
    at: datetime,
    action: str,
    subject_kind: str,
    subject_name: str,
    outcome: Outcome = Outcome.DONE,
    organization_id: uuid.UUID | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add one row.

    Args:
        session: The transaction of the action itself.
        actor: Who acts.
        at: Now.
        action: A verb: "invite", "revoke", "sign_in".
        subject_kind: What it is done to.
        subject_name: Its name.
        outcome: Done or refused.
        organization_id: Whose audit, when the actor has no organisation.
        details: Facts for people; never a secret.
    """
    append_at_commit(
        session,
        AuditRow(
            organization_id=organization_id or actor.organization_id,
            happened_at=at,
            actor_kind=actor.kind,
            actor_name=actor.name,
            address=actor.address,
            action=action,
            subject_kind=subject_kind,
            subject_name=subject_name,
            outcome=outcome,
            details=dict(details or {}),
        ),
    )
