"""Queries of an organisation's users."""

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.db.models import Membership, Role, User


def members_of(
    session: Session, organization_id: uuid.UUID, *, after: str, limit: int
) -> Sequence[tuple[User, Membership]]:
    """Return an organisation's users by name, from behind ``after`` on."""
    query = (
        select(User, Membership)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.organization_id == organization_id, User.name > after)
    )
    return [
        (user, membership) for user, membership in session.execute(query.order_by(User.name).limit(limit))
    ]


def find_member(session: Session, organization_id: uuid.UUID, name: str) -> tuple[User, Membership] | None:
    """Return an organisation's user of this name."""
    query = (
        select(User, Membership)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.organization_id == organization_id, User.name == name)
    )
    row = session.execute(query).one_or_none()
    return None if row is None else (row[0], row[1])


def find_user_by_email(session: Session, email: str) -> User | None:
    """Return the user of this e-mail address, in small letters."""
    return session.scalars(select(User).where(User.email == email)).one_or_none()


def lock_admins(session: Session, organization_id: uuid.UUID) -> int:
    """Return how many admins can sign in; their memberships stay locked until the transaction ends."""
    query = (
        select(Membership.id)
        .join(User, Membership.user_id == User.id)
        .where(
            Membership.organization_id == organization_id,
            Membership.role == Role.ADMIN,
            User.disabled_at.is_(None),
        )
        .order_by(Membership.id)
    )
    return len(session.scalars(query.with_for_update()).all())


def count_users(session: Session) -> int:
    """Return how many users there are on this server."""
    return session.scalars(select(func.count()).select_from(User)).one()
