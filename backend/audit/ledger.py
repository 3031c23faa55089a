"""Hanging rows on the chain, in the transaction of what they tell of, as its very last step.

The head's row is locked until the transaction ends, so appends of several processes come one after the
other and become visible in order. It is locked last, after everything else that the transaction locks, so
that no two transactions can wait for each other over it.
"""

import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from backend.audit import chain
from backend.db.models import AuditHead, AuditRow, Federation
from splitlearn.identity import SigningKey

_ONLY: Final = 1
_PENDING: Final = "audit_pending"


def append_at_commit(session: Session, row: AuditRow) -> None:
    """Add a row when the transaction commits; one that is rolled back leaves none."""
    pending: list[AuditRow] | None = session.info.get(_PENDING)
    if pending is None:
        pending = session.info[_PENDING] = []
        event.listen(session, "before_commit", _append_pending)
    pending.append(row)


def ensure_head(session: Session, *, now: datetime) -> None:
    """Make the head at the first start, and sign it anew when the signer's certificate is another.

    Without this, a head that was signed before the root's word came would stay without it until the next
    row.
    """
    head = _locked_head(session)
    if head.certificate != _federation(session).signer_certificate or head.signature is None:
        _sign(session, head, now=now)


def content_of(row: AuditRow) -> dict[str, Any]:
    """Return what a row's digest is taken over."""
    return {
        "action": row.action,
        "actor_kind": row.actor_kind,
        "actor_name": row.actor_name,
        "address": row.address,
        "at": chain.moment_text(row.happened_at),
        "details": row.details,
        "organization": str(row.organization_id) if row.organization_id else None,
        "outcome": row.outcome.value,
        "salt": row.salt.hex(),
        "subject_kind": row.subject_kind,
        "subject_name": row.subject_name,
    }


def head_of(session: Session) -> AuditHead | None:
    """Return where the chain ends; None before the first start."""
    return session.get(AuditHead, _ONLY)


def rows_after(session: Session, number: int, *, up_to: int, limit: int) -> Sequence[AuditRow]:
    """Return rows of the whole federation in the chain's order."""
    query = select(AuditRow).where(AuditRow.id > number, AuditRow.id <= up_to)
    return session.scalars(query.order_by(AuditRow.id).limit(limit)).all()


def _append_pending(session: Session) -> None:
    rows: Sequence[AuditRow] = tuple(session.info.get(_PENDING, ()))
    if rows:
        session.info[_PENDING].clear()
        session.flush()  # what else it locks comes before the head
        _append(session, rows)


def _append(session: Session, rows: Iterable[AuditRow]) -> None:
    head = _locked_head(session)
    newest = None
    for row in rows:
        row.id = head.number + 1
        row.salt = secrets.token_bytes(chain.SALT_BYTES)
        row.digest = chain.link(head.digest, row.id, chain.content_digest(content_of(row)))
        head.number, head.digest = row.id, row.digest
        session.add(row)
        newest = row
    assert newest is not None
    _sign(session, head, now=newest.happened_at)


def _sign(session: Session, head: AuditHead, *, now: datetime) -> None:
    federation = _federation(session)
    if federation.signer_key is None:  # the first start makes it in the same transaction
        return
    head.signature = chain.sign(
        SigningKey.from_private_bytes(federation.signer_key), head.number, head.digest, now
    )
    head.signed_at, head.certificate = now, federation.signer_certificate


def _locked_head(session: Session) -> AuditHead:
    query = select(AuditHead).where(AuditHead.id == _ONLY).with_for_update()
    # What an earlier read of this transaction saw of the head may be old by now.
    head = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if head is None:
        start = chain.genesis(_federation(session).root_public_key)
        head = AuditHead(id=_ONLY, number=0, digest=start)
        session.add(head)
    return head


def _federation(session: Session) -> Federation:
    return session.get_one(Federation, _ONLY)
