"""The pinned root, and the newest revocation list."""

import secrets
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Federation
from backend.errors import refused_as
from backend.federation.authority import Authority
from backend.federation.errors import (
    MalformedListRefusedError,
    RevocationListRefusedError,
    RootChangedError,
)
from splitlearn.errors import IdentityError
from splitlearn.identity import Fingerprint, PublicKey, RevocationList, TrustStore

_ONLY = 1


def find_federation(session: Session) -> Federation | None:
    """Return the one row, or None before the first start."""
    return session.get(Federation, _ONLY)


def federation_of(session: Session, *, lock: bool = False, hold: bool = False) -> Federation:
    """Return the one row, which the first start made.

    Args:
        session: The transaction.
        lock: Nobody else locks or holds it before the transaction ends.
        hold: Nobody locks it before the transaction ends; others may hold it too.
    """
    query = select(Federation).where(Federation.id == _ONLY)
    if lock or hold:
        query = query.with_for_update(read=not lock).execution_options(populate_existing=True)
    return session.scalars(query).one()


def pin_root(session: Session, authority: Authority, *, now: datetime) -> None:
    """Pin the root at the first start, and refuse another one ever after.

    Raises:
        RootChangedError: Every silo pinned the first root; this one would be refused by all.
    """
    row = find_federation(session)
    if row is None:
        key = authority.public_key.raw
        session.add(
            Federation(id=_ONLY, root_public_key=key, nonce_key=secrets.token_bytes(32), created_at=now)
        )
        return
    if row.root_public_key != authority.public_key.raw:
        pinned = Fingerprint.of(PublicKey(row.root_public_key))
        raise RootChangedError(
            f"this database is pinned to the federation root {pinned}, but the one configured is "
            f"{authority.fingerprint}; restore the first root's file, or set TRUNKLINE_ROOT_PUBLIC_KEY to it"
        )


def revocations_of(row: Federation) -> RevocationList | None:
    """Return the newest list stored."""
    return None if row.revocation_list is None else RevocationList.from_bytes(row.revocation_list)


def trust_of(row: Federation) -> TrustStore:
    """Return whose certificates are believed."""
    return TrustStore(PublicKey(row.root_public_key), revocations=revocations_of(row))


def install_revocations(session: Session, data: bytes) -> RevocationList:
    """Store a list that an offline root signed.

    Raises:
        MalformedListRefusedError: The bytes are no list.
        RevocationListRefusedError: Not the root's, or not newer.
    """
    row = federation_of(session, lock=True)
    with refused_as(MalformedListRefusedError):
        offered = RevocationList.from_bytes(data)
    try:
        trust_of(row).update(offered)
    except IdentityError as error:
        raise RevocationListRefusedError(error.message) from error
    row.revocation_list = data
    return offered
