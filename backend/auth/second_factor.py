"""A user's second factor: begun, confirmed, asked for, renewed, taken away.

Whoever guesses learns nothing from it: see :func:`accept`.
"""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Final, NoReturn

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.auth.callers import UserCaller
from backend.auth.codes import (
    matching_step,
    new_recovery_codes,
    new_secret,
    plain_code,
    recovery_digest,
)
from backend.auth.errors import FactorMissingError, FactorOnError, WrongCredentialsError
from backend.auth.repository import find_user, forget_tokens_of_user
from backend.auth.throttle import count_attempt, forgive
from backend.db.models import (
    FactorRule,
    Organization,
    Outcome,
    RecoveryCode,
    SecondFactor,
    TokenKind,
    User,
)
from backend.errors import ForbiddenError, NotFoundError
from backend.server import Server

NOBODY: Final = uuid.UUID(int=0)
"""Stands for the user whom a name does not have, so that the same is asked of the database."""
_NO_SECRET: Final = bytes(20)


class Proof(StrEnum):
    """What a user showed beside the password."""

    NOT_ASKED = "not_asked"
    CODE = "code"
    RECOVERY_CODE = "recovery_code"


def accept(
    session: Session, user: User | None, code: str | None, *, spend: bool, now: datetime
) -> Proof | None:
    """Return what a code shows, or None if it is not the one that is demanded.

    The same is computed and asked of the database whoever it is for, and whether there is a factor at all.

    Args:
        session: A writing transaction.
        user: Whose; None where nobody has the name.
        code: As typed; None if none was.
        spend: Whether a right code is used up: only where all else was right, too.
        now: The server's clock.
    """
    user_id = user.id if user else NOBODY
    typed = plain_code(code or "")
    factor = session.scalars(
        select(SecondFactor).where(SecondFactor.user_id == user_id).with_for_update()
    ).one_or_none()
    key = (user_id, recovery_digest(typed))
    recovery = session.scalars(
        select(RecoveryCode).where(RecoveryCode.user_id == key[0], RecoveryCode.digest == key[1])
    ).one_or_none()
    is_on = factor is not None and factor.confirmed_at is not None
    secret, after = (factor.secret, factor.last_step) if factor else (_NO_SECRET, 0)
    step = matching_step(secret, typed, after=after, now=now)
    if not is_on:
        return Proof.NOT_ASKED
    assert factor is not None
    if step is not None:
        if spend:
            factor.last_step = step
        return Proof.CODE
    if recovery is None:
        return None
    if spend:
        session.delete(recovery)
    return Proof.RECOVERY_CODE


def begin(server: Server, caller: UserCaller, *, password: str) -> bytes:
    """Return a new secret, to be shown once; it counts from the first right code on.

    Raises:
        ForbiddenError: The caller came with an API token.
        SignInThrottledError, WrongCredentialsError: The password is wrong, or was too often.
        FactorOnError: There is one already.
    """
    _refuse_tokens(caller)
    with server.database.write() as session:
        count_attempt(session, server.settings, name=caller.name, address=caller.address, now=server.now())
        user = find_user(session, caller.name)
        assert user is not None
    if not server.passwords.verify(password, user.password_hash):
        raise WrongCredentialsError("the password is wrong")
    secret = new_secret()
    with server.database.write() as session:
        forgive(session, server.settings, name=caller.name, address=caller.address)
        factor = _factor(session, caller.user_id)
        if factor is not None and factor.confirmed_at is not None:
            raise FactorOnError(f"{caller.name!r} has a second factor")
        if factor is None:
            factor = SecondFactor(user_id=caller.user_id, created_at=server.now())
            session.add(factor)
        factor.secret, factor.created_at, factor.last_step = secret, server.now(), 0
    return secret


def confirm(server: Server, caller: UserCaller, *, code: str) -> list[str]:
    """Switch the factor on by a first right code; return recovery codes, to be shown once.

    Raises:
        ForbiddenError: The caller came with an API token.
        FactorMissingError: None was begun.
        FactorOnError: It is on already.
        SignInThrottledError, WrongCredentialsError: The code is wrong, or was too often.
    """
    _refuse_tokens(caller)
    with server.database.read() as session:
        begun = session.get(SecondFactor, caller.user_id)
    if begun is None:
        raise FactorMissingError("no second factor was begun")
    if begun.confirmed_at is not None:
        raise FactorOnError(f"{caller.name!r} has a second factor")
    _count(server, caller)
    with server.database.write() as session:
        factor = _factor(session, caller.user_id)
        if factor is None:  # an admin took it away meanwhile
            raise FactorMissingError("no second factor was begun")
        typed = plain_code(code)
        step = matching_step(factor.secret, typed, after=factor.last_step, now=server.now())
        if step is None:
            _refuse(session, server, caller, "enrol_second_factor")
        factor.confirmed_at, factor.last_step = server.now(), step
        _forgive(session, server, caller)
        _record(session, caller.actor, "enrol_second_factor", caller.name, now=server.now())
        return _renew_recovery_codes(session, caller.user_id)


def renew_recovery_codes(server: Server, caller: UserCaller, *, code: str) -> list[str]:
    """Return new recovery codes, to be shown once; the old ones are worth nothing any more.

    Raises:
        ForbiddenError: The caller came with an API token.
        FactorMissingError: There is no factor.
        SignInThrottledError, WrongCredentialsError: The code is wrong, or was too often.
    """
    _refuse_tokens(caller)
    _count_with_factor(server, caller)
    with server.database.write() as session:
        _spend(session, server, caller, code, "renew_recovery_codes")
        return _renew_recovery_codes(session, caller.user_id)


def remove(server: Server, caller: UserCaller, *, code: str) -> None:
    """Take the caller's factor away, by a last right code.

    Raises:
        ForbiddenError: The caller came with an API token.
        FactorMissingError: There is no factor.
        SignInThrottledError, WrongCredentialsError: The code is wrong, or was too often.
    """
    _refuse_tokens(caller)
    _count_with_factor(server, caller)
    with server.database.write() as session:
        _spend(session, server, caller, code, "remove_second_factor")
        _forget(session, caller.user_id)


def reset(session: Session, user: User, *, actor: Actor, now: datetime) -> None:
    """Take a user's factor away, as an admin; the user's sign-ins and tokens end.

    Raises:
        NotFoundError: The user has none.
    """
    if _factor(session, user.id) is None:
        raise NotFoundError(f"{user.name!r} has no second factor")
    _forget(session, user.id)
    forget_tokens_of_user(session, user.id)
    _record(session, actor, "reset_second_factor", user.name, now=now)


def demand(session: Session, caller: UserCaller, rule: FactorRule, *, now: datetime) -> Organization:
    """Say of whom the organisation demands a second factor; it counts from the next request on.

    Raises:
        FactorMissingError: The caller has none, and would be shut out by its own word.
    """
    if rule is not FactorRule.OPTIONAL and not has_factor(session, caller.user_id):
        raise FactorMissingError(f"{caller.name!r} has no second factor, and would be shut out first")
    organization = session.get_one(Organization, caller.organization_id, with_for_update=True)
    organization.second_factor = rule.value
    record(
        session,
        caller.actor,
        at=now,
        action="demand_second_factor",
        subject_kind="organization",
        subject_name=organization.name,
        details={"of": rule.value},
    )
    return organization


def has_factor(session: Session, user_id: uuid.UUID) -> bool:
    """Tell whether a user's factor is on."""
    factor = session.get(SecondFactor, user_id)
    return factor is not None and factor.confirmed_at is not None


def _refuse_tokens(caller: UserCaller) -> None:
    if caller.token_kind is not TokenKind.SESSION:
        # Else a token that was stolen could shut its owner out.
        raise ForbiddenError("an API token changes no second factor; sign in")


def _factor(session: Session, user_id: uuid.UUID) -> SecondFactor | None:
    return session.get(SecondFactor, user_id, with_for_update=True)


def _count(server: Server, caller: UserCaller) -> None:
    with server.database.write() as session:
        count_attempt(session, server.settings, name=caller.name, address=caller.address, now=server.now())


def _count_with_factor(server: Server, caller: UserCaller) -> None:
    with server.database.read() as session:
        if not has_factor(session, caller.user_id):
            raise FactorMissingError(f"{caller.name!r} has no second factor")
    _count(server, caller)


def _forgive(session: Session, server: Server, caller: UserCaller) -> None:
    forgive(session, server.settings, name=caller.name, address=caller.address)


def _spend(session: Session, server: Server, caller: UserCaller, code: str, action: str) -> None:
    user = session.get_one(User, caller.user_id)
    if accept(session, user, code, spend=True, now=server.now()) in {None, Proof.NOT_ASKED}:
        _refuse(session, server, caller, action)
    _forgive(session, server, caller)
    _record(session, caller.actor, action, caller.name, now=server.now())


def _refuse(session: Session, server: Server, caller: UserCaller, action: str) -> NoReturn:
    _record(session, caller.actor, action, caller.name, now=server.now(), outcome=Outcome.REFUSED)
    raise WrongCredentialsError("the code is wrong, was used before, or its time is over")


def _renew_recovery_codes(session: Session, user_id: uuid.UUID) -> list[str]:
    session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    codes = new_recovery_codes()
    session.add_all(RecoveryCode(user_id=user_id, digest=recovery_digest(code)) for code in codes)
    return codes


def _forget(session: Session, user_id: uuid.UUID) -> None:
    session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    session.execute(delete(SecondFactor).where(SecondFactor.user_id == user_id))


def _record(
    session: Session,
    actor: Actor,
    action: str,
    name: str,
    *,
    now: datetime,
    outcome: Outcome = Outcome.DONE,
) -> None:
    record(session, actor, at=now, action=action, subject_kind="user", subject_name=name, outcome=outcome)
