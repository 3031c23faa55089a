"""Queries of users' tokens and of failed sign-ins."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from backend.db.models import (
    ApiToken,
    Membership,
    Organization,
    ProjectRole,
    Role,
    SecondFactor,
    SignInAttempt,
    TokenKind,
    User,
)
from backend.paging import Cursor, is_behind


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """A token, and whose it is.

    Attributes:
        factor_rule: Of whom the organisation demands a second factor.
        has_factor: Whether the owner's is on.
    """

    token: ApiToken
    membership: Membership
    user: User
    factor_rule: str
    has_factor: bool


_OWNED = (
    select(ApiToken, Membership, User, Organization.second_factor, SecondFactor.confirmed_at.is_not(None))
    .join(Membership, ApiToken.membership_id == Membership.id)
    .join(User, Membership.user_id == User.id)
    .join(Organization, Membership.organization_id == Organization.id)
    .outerjoin(SecondFactor, SecondFactor.user_id == User.id)
)


def find_api_token(session: Session, digest: bytes) -> TokenOwner | None:
    """Return the token of this digest with its owner."""
    row = session.execute(_OWNED.where(ApiToken.digest == digest)).one_or_none()
    return None if row is None else TokenOwner(*row)


def find_token_owner(session: Session, token_id: uuid.UUID) -> TokenOwner | None:
    """Return the token of this id with its owner."""
    row = session.execute(_OWNED.where(ApiToken.id == token_id)).one_or_none()
    return None if row is None else TokenOwner(*row)


def roles_in_projects(session: Session, membership_id: uuid.UUID) -> dict[uuid.UUID, Role]:
    """Return a member's roles in single projects."""
    query = select(ProjectRole).where(ProjectRole.membership_id == membership_id)
    return {row.project_id: row.role for row in session.scalars(query)}


def find_user(session: Session, name: str) -> User | None:
    """Return the user of this name."""
    return session.scalars(select(User).where(User.name == name)).one_or_none()


def memberships_of(session: Session, user_id: uuid.UUID) -> Sequence[tuple[Membership, Organization]]:
    """Return a user's memberships, in the order in which they began."""
    query = (
        select(Membership, Organization)
        .join(Organization, Membership.organization_id == Organization.id)
        .where(Membership.user_id == user_id)
        .order_by(Membership.created_at)
    )
    return [(membership, organization) for membership, organization in session.execute(query)]


def tokens_of(
    session: Session, membership_id: uuid.UUID, *, after: Cursor | None, limit: int
) -> Sequence[ApiToken]:
    """Return a member's API tokens, oldest first, behind ``after``; sign-ins are left out."""
    query = _tokens_of(membership_id)
    if after is not None:
        query = query.where(is_behind(ApiToken.created_at, ApiToken.id, after))
    return session.scalars(query.order_by(ApiToken.created_at, ApiToken.id).limit(limit)).all()


def find_token(session: Session, membership_id: uuid.UUID, token_id: uuid.UUID) -> ApiToken | None:
    """Return a member's API token of this id."""
    return session.scalars(_tokens_of(membership_id).where(ApiToken.id == token_id)).one_or_none()


def _tokens_of(membership_id: uuid.UUID) -> Select[ApiToken]:
    return select(ApiToken).where(ApiToken.membership_id == membership_id, ApiToken.kind == TokenKind.API)


def forget_tokens_of_user(session: Session, user_id: uuid.UUID) -> None:
    """Delete all sign-ins and API tokens of a user."""
    memberships = select(Membership.id).where(Membership.user_id == user_id)
    session.execute(delete(ApiToken).where(ApiToken.membership_id.in_(memberships)))


def forget_expired_tokens(session: Session, *, now: datetime) -> None:
    """Delete what is of no use any more."""
    # What another transaction is forgetting is left to it: two that wait for each other are a deadlock.
    expired = select(ApiToken.id).where(ApiToken.expires_at <= now).with_for_update(skip_locked=True)
    session.execute(delete(ApiToken).where(ApiToken.id.in_(expired)))


def attempts(session: Session, keys: Sequence[bytes]) -> dict[bytes, SignInAttempt]:
    """Return what is known of these throttled keys, locked until the transaction ends."""
    query = select(SignInAttempt).where(SignInAttempt.key.in_(keys)).order_by(SignInAttempt.key)
    return {row.key: row for row in session.scalars(query.with_for_update())}


def forget_attempts(session: Session, *, before: datetime) -> None:
    """Delete failed sign-ins that are too long ago to matter."""
    session.execute(
        delete(SignInAttempt).where(SignInAttempt.since < before, SignInAttempt.blocked_until.is_(None))
    )
    session.execute(delete(SignInAttempt).where(SignInAttempt.blocked_until < before))
