"""Making, changing and disabling users."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.auth.repository import find_user, forget_tokens_of_user
from backend.db.models import Membership, OpenIdIdentity, Role, User
from backend.errors import ConflictError, NotFoundError
from backend.users.repository import find_member, find_user_by_email, lock_admins
from backend.users.schemas import ChangeUserBody


class UserNameTakenError(ConflictError):
    """A user of this name exists on this server."""

    code = "name_taken"
    remedy = "choose another name"


class LastAdminError(ConflictError):
    """Nobody would be left who can manage the organisation."""

    code = "last_admin"
    remedy = "make another user an admin first"


class EmailTakenError(ConflictError):
    """Another user has this e-mail address."""

    code = "email_taken"
    remedy = "give each user an address of its own"


@dataclass(frozen=True, slots=True)
class NewUser:
    """A name, and the hash of its first password."""

    name: str
    password_hash: str = field(repr=False)
    email: str | None = None


def create_user(
    session: Session, new: NewUser, *, organization_id: uuid.UUID, role: Role, actor: Actor, now: datetime
) -> tuple[User, Membership]:
    """Make a user and its membership.

    Raises:
        UserNameTakenError: The name is taken, maybe by another organisation's user.
        EmailTakenError: The address is.
    """
    if find_user(session, new.name) is not None:
        raise UserNameTakenError(f"a user {new.name!r} exists on this server")
    user = User(name=new.name, password_hash=new.password_hash, created_at=now)
    session.add(user)
    if new.email is not None:
        _set_email(session, user, new.email)
    session.flush()
    membership = Membership(user_id=user.id, organization_id=organization_id, role=role, created_at=now)
    session.add(membership)
    record(
        session,
        actor,
        at=now,
        action="create_user",
        subject_kind="user",
        subject_name=new.name,
        organization_id=organization_id,
        details={"role": role.value},
    )
    return user, membership


def change_user(
    session: Session,
    name: str,
    body: ChangeUserBody,
    *,
    organization_id: uuid.UUID,
    actor: Actor,
    now: datetime,
) -> tuple[User, Membership]:
    """Change a user's role, or disable or enable it. Disabling ends its sign-ins and tokens at once.

    Raises:
        NotFoundError: The organisation has no such user.
        LastAdminError: The last admin would go.
        EmailTakenError: Another user has the address.
    """
    user, membership = member(session, organization_id, name)
    role = membership.role if body.role is None else body.role
    disabled = user.disabled_at is not None if body.disabled is None else body.disabled
    _keep_an_admin(session, user, membership, role=role, disabled=disabled)
    membership.role = role
    if disabled and user.disabled_at is None:
        user.disabled_at = now
        forget_tokens_of_user(session, user.id)
    elif not disabled:
        user.disabled_at = None
    if body.email is not None and body.email != user.email:
        _set_email(session, user, body.email)
    record(
        session,
        actor,
        at=now,
        action="change_user",
        subject_kind="user",
        subject_name=name,
        details={"role": role.value, "disabled": disabled},
    )
    return user, membership


def member(session: Session, organization_id: uuid.UUID, name: str) -> tuple[User, Membership]:
    """Return the organisation's user of this name.

    Raises:
        NotFoundError: It has none.
    """
    found = find_member(session, organization_id, name)
    if found is None:
        raise NotFoundError(f"your organisation has no user {name!r}")
    return found


def _set_email(session: Session, user: User, email: str) -> None:
    """Set an address; who the provider meant by the old one has to be found anew."""
    with session.no_autoflush:
        other = find_user_by_email(session, email)
    if other is not None and other is not user:
        raise EmailTakenError(f"another user on this server has the address {email!r}")
    user.email = email
    session.flush()
    session.execute(delete(OpenIdIdentity).where(OpenIdIdentity.user_id == user.id))


def _keep_an_admin(
    session: Session, user: User, membership: Membership, *, role: Role, disabled: bool
) -> None:
    is_one = membership.role is Role.ADMIN and user.disabled_at is None
    stays_one = role is Role.ADMIN and not disabled
    if is_one and not stays_one and lock_admins(session, membership.organization_id) == 1:
        raise LastAdminError(f"{user.name!r} is the organisation's last admin")
