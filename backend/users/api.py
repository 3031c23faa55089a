"""An admin's view of the organisation's users."""

from typing import Annotated

from fastapi import APIRouter, Query, status

from backend.audit import record
from backend.auth.callers import Admin, Reader
from backend.auth.passwords import generate_password
from backend.auth.second_factor import reset
from backend.auth.service import set_password
from backend.db.models import Membership, User
from backend.errors import SIGNED_IN, NotFoundError, UnavailableError, documented
from backend.parameters import PathName
from backend.schemas import Page
from backend.server import ServerDep
from backend.users import service
from backend.users.repository import members_of
from backend.users.schemas import ChangeUserBody, CreateUserBody, PasswordAnswer, UserAnswer

router = APIRouter(prefix="/users", tags=["users"])


@router.get("", responses=documented(*SIGNED_IN))
def list_users(
    server: ServerDep, caller: Reader, after: Annotated[str, Query(max_length=64)] = ""
) -> Page[UserAnswer]:
    """List your organisation's users by name."""
    limit = server.settings.max_page
    with server.database.read() as session:
        rows = members_of(session, caller.organization_id, after=after, limit=limit + 1)
        items = [_answer(user, membership) for user, membership in rows[:limit]]
    return Page(items=items, next=items[-1].name if len(rows) > limit else None)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=documented(*SIGNED_IN, service.UserNameTakenError, service.EmailTakenError, UnavailableError),
)
def create_user(server: ServerDep, caller: Admin, body: CreateUserBody) -> PasswordAnswer:
    """Make a user; its password is shown this once."""
    password = generate_password()
    new = service.NewUser(body.name, server.passwords.hash(password), email=body.email)
    with server.database.write() as session:
        service.create_user(
            session,
            new,
            organization_id=caller.organization_id,
            role=body.role,
            actor=caller.actor,
            now=server.now(),
        )
    return PasswordAnswer(name=body.name, password=password)


@router.patch(
    "/{name}",
    responses=documented(*SIGNED_IN, NotFoundError, service.LastAdminError, service.EmailTakenError),
)
def change_user(server: ServerDep, caller: Admin, name: PathName, body: ChangeUserBody) -> UserAnswer:
    """Change a user's role or address, disable it, or enable it again."""
    with server.database.write() as session:
        user, membership = service.change_user(
            session,
            name,
            body,
            organization_id=caller.organization_id,
            actor=caller.actor,
            now=server.now(),
        )
        return _answer(user, membership)


@router.post("/{name}/password", responses=documented(*SIGNED_IN, NotFoundError, UnavailableError))
def reset_password(server: ServerDep, caller: Admin, name: PathName) -> PasswordAnswer:
    """Give a user a new password, shown this once; its sign-ins and tokens end."""
    password = generate_password()
    hashed = server.passwords.hash(password)
    with server.database.write() as session:
        user, _ = service.member(session, caller.organization_id, name)
        set_password(session, user, hashed)
        record(
            session,
            caller.actor,
            at=server.now(),
            action="reset_password",
            subject_kind="user",
            subject_name=name,
        )
    return PasswordAnswer(name=name, password=password)


@router.delete(
    "/{name}/second-factor",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, NotFoundError),
)
def reset_second_factor(server: ServerDep, caller: Admin, name: PathName) -> None:
    """Take away the second factor of a user who lost it; the user's sign-ins and tokens end."""
    with server.database.write() as session:
        user, _ = service.member(session, caller.organization_id, name)
        reset(session, user, actor=caller.actor, now=server.now())


def _answer(user: User, membership: Membership) -> UserAnswer:
    return UserAnswer(
        name=user.name,
        role=membership.role,
        email=user.email,
        created_at=user.created_at,
        disabled_at=user.disabled_at,
    )
