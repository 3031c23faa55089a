"""Whom a provider's word signs in: by subject once they are known, by a verified e-mail address at first."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.auth.repository import find_user
from backend.db.base import MAX_NAME
from backend.db.models import Membership, OpenIdIdentity, Organization, Role, User
from backend.db.models.sign_in import MAX_SUBJECT
from backend.db.models.user import MAX_EMAIL
from backend.errors import ApiError
from backend.openid.errors import NotAdmittedError, TokenRefusedError
from backend.openid.settings import OpenIdSettings
from backend.organizations.repository import find_organization
from backend.users.repository import find_user_by_email
from backend.users.schemas import ChangeUserBody
from backend.users.service import NewUser, change_user, create_user

NO_PASSWORD: Final = ""
"""Stored instead of a hash: no password is right, and each takes as long to be found wrong."""
_MAX_GROUPS: Final = 1000
_MAX_NAMESAKES: Final = 100


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as the provider knows them.

    Attributes:
        email: Verified by the provider, in small letters.
        groups: What the role claim names.
    """

    issuer: str
    subject: str
    email: str
    groups: frozenset[str]

    @classmethod
    def of(cls, claims: Mapping[str, Any], settings: OpenIdSettings) -> "Person":
        """Return whom a verified token is about.

        Raises:
            TokenRefusedError: A claim is lacking or of a wrong form.
            NotAdmittedError: The address is not verified, or not of a domain that is let in.
        """
        subject, email = claims["sub"], claims.get("email")
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
            raise TokenRefusedError(f"the provider's token has no subject of 1 to {MAX_SUBJECT} characters")
        if not isinstance(email, str) or not 0 < len(email) <= MAX_EMAIL or "@" not in email:
            raise NotAdmittedError(
                "the provider names no e-mail address; ask its operator for the scope 'email'"
            )
        if claims.get("email_verified") is not True:
            raise NotAdmittedError(f"the provider has not verified the e-mail address {email!r}")
        domains = settings.openid_domain_list
        if domains and email.rpartition("@")[2].lower() not in domains:
            raise NotAdmittedError(f"{email!r} is of no domain that is let in here")
        return cls(
            settings.openid_issuer, subject, email.lower(), _groups(claims, settings.openid_role_claim)
        )


def admit(session: Session, settings: OpenIdSettings, person: Person, *, address: str, now: datetime) -> User:
    """Return the user whom the provider vouches for: made, linked and given a role as the settings say.

    Raises:
        NotAdmittedError: There is no such user, it is disabled, or none of its groups is let in.
    """
    organization = find_organization(session, settings.openid_organization)
    if organization is None:
        raise NotAdmittedError(f"there is no organisation {settings.openid_organization!r} here")
    session.refresh(organization, with_for_update=True)  # of two first sign-ins, one links or makes the user
    actor = Actor("openid", person.issuer[:MAX_NAME], address, organization.id)
    role = _role(settings, person)
    user = _linked(session, person) or _by_email(session, person, organization, actor, now=now)
    if user is None and settings.openid_provision:
        chosen = role or Role(settings.openid_default_role)
        user = _provision(session, person, organization, chosen, actor, now=now)
    if user is None or user.disabled_at is not None:
        raise NotAdmittedError(f"nobody here who may sign in has the address {person.email!r}")
    if role is not None:
        _set_role(session, user, organization, role, actor, now=now)
    return user


def _groups(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    value = claims.get(claim, ())
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise TokenRefusedError(f"the claim {claim!r} of the provider's token is no list of words")
    return frozenset(word for word in words[:_MAX_GROUPS] if isinstance(word, str))


def _role(settings: OpenIdSettings, person: Person) -> Role | None:
    """Return the role that the groups give, the first in the table's order; None where groups give none."""
    by_group = settings.openid_role_map
    if not by_group:
        return None
    given = {by_group[group] for group in person.groups & by_group.keys()}
    for role in Role:
        if role.value in given:
            return role
    raise NotAdmittedError(f"{person.email!r} is in no group that is let in here")


def _linked(session: Session, person: Person) -> User | None:
    row = session.get(OpenIdIdentity, (person.issuer, person.subject))
    return None if row is None else session.get_one(User, row.user_id)


def _by_email(
    session: Session, person: Person, organization: Organization, actor: Actor, *, now: datetime
) -> User | None:
    user = find_user_by_email(session, person.email)
    if user is None:
        return None
    linked = select(OpenIdIdentity.subject).where(
        OpenIdIdentity.user_id == user.id, OpenIdIdentity.issuer == person.issuer
    )
    if session.scalars(linked).first() is not None:
        # An address that was given to somebody else at the provider must not give them the old one's account.
        raise NotAdmittedError(
            f"{person.email!r} belongs to somebody else at the provider now; an admin sets the address anew"
        )
    _link(session, person, user, organization, actor, now=now)
    return user


def _provision(
    session: Session, person: Person, organization: Organization, role: Role, actor: Actor, *, now: datetime
) -> User:
    new = NewUser(_free_name(session, person.email), NO_PASSWORD)
    user, _ = create_user(session, new, organization_id=organization.id, role=role, actor=actor, now=now)
    user.email = person.email
    _link(session, person, user, organization, actor, now=now)
    return user


def _link(
    session: Session, person: Person, user: User, organization: Organization, actor: Actor, *, now: datetime
) -> None:
    session.add(OpenIdIdentity(issuer=person.issuer, subject=person.subject, user_id=user.id, created_at=now))
    record(
        session,
        actor,
        at=now,
        action="link_openid",
        subject_kind="user",
        subject_name=user.name,
        organization_id=organization.id,
        details={"email": person.email},
    )


def _set_role(
    session: Session, user: User, organization: Organization, role: Role, actor: Actor, *, now: datetime
) -> None:
    query = select(Membership).where(
        Membership.user_id == user.id, Membership.organization_id == organization.id
    )
    member = session.scalars(query).one_or_none()
    if member is None or member.role is role:
        return
    try:
        change_user(
            session,
            user.name,
            ChangeUserBody(role=role),
            organization_id=organization.id,
            actor=actor,
            now=now,
        )
    except ApiError as error:  # the last admin
        raise NotAdmittedError(f"{error.message}, and the provider's groups say {role.value!r}") from error


def _free_name(session: Session, email: str) -> str:
    local = email.rpartition("@")[0]
    plain = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in local
    )
    base = plain[: MAX_NAME - len(str(_MAX_NAMESAKES)) - 1] or "user"
    for number in range(1, _MAX_NAMESAKES):
        name = base if number == 1 else f"{base}-{number}"
        if find_user(session, name) is None:
            return name
    raise NotAdmittedError(f"{_MAX_NAMESAKES} users are called {base!r} already; an admin makes this one")
