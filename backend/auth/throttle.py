"""Slowing down whoever guesses passwords.

Attempts are counted before the password is looked at, so that a thousand at once count as a thousand.
A name that nobody has is counted like any other.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.auth.errors import SignInThrottledError
from backend.auth.repository import attempts, find_user, forget_attempts, memberships_of
from backend.db.models import Outcome, SignInAttempt
from backend.db.statements import insert_unless_there
from backend.settings import Settings

FIRST_WAIT_SECONDS: Final = 30
_MAX_DOUBLINGS = 16


def wait_seconds(failures: int, *, limit: int, window_seconds: int) -> int:
    """Return how long to wait after so many failures: nothing below the limit, then doubling."""
    if failures < limit:
        return 0
    return min(FIRST_WAIT_SECONDS << min(failures - limit, _MAX_DOUBLINGS), window_seconds)


def count_attempt(session: Session, settings: Settings, *, name: str, address: str, now: datetime) -> None:
    """Count an attempt as failed until :func:`forgive` is called.

    Raises:
        SignInThrottledError: This address, or this name at this address, has to wait.
    """
    limits = _limits(settings, name=name, address=address)
    window = timedelta(seconds=settings.sign_in_window_seconds)
    forget_attempts(session, before=now - window)
    for key in limits:
        insert_unless_there(session, SignInAttempt, key=key, failures=0, since=now)
    rows = attempts(session, list(limits))
    _refuse_blocked(session, rows, name=name, address=address, now=now)
    for key, row in rows.items():
        row.failures += 1
        row.since = now
        seconds = wait_seconds(
            row.failures, limit=limits[key], window_seconds=settings.sign_in_window_seconds
        )
        row.blocked_until = now + timedelta(seconds=seconds) if seconds else None


def forgive(session: Session, settings: Settings, *, name: str, address: str) -> None:
    """Take back the count of an attempt that was right; the address keeps its earlier failures."""
    by_name, by_address = _limits(settings, name=name, address=address)
    rows = attempts(session, [by_name, by_address])
    if by_name in rows:
        session.delete(rows[by_name])
    if by_address in rows:
        rows[by_address].failures = max(rows[by_address].failures - 1, 0)
        rows[by_address].blocked_until = None


def _limits(settings: Settings, *, name: str, address: str) -> dict[bytes, int]:
    by_name = hashlib.sha256(f"name\0{address}\0{name}".encode()).digest()
    by_address = hashlib.sha256(f"address\0{address}".encode()).digest()
    return {
        by_name: settings.sign_in_failures_per_name,
        by_address: settings.sign_in_failures_per_address,
    }


def _refuse_blocked(
    session: Session, rows: Mapping[bytes, SignInAttempt], *, name: str, address: str, now: datetime
) -> None:
    blocked = [(row, row.blocked_until) for row in rows.values() if row.blocked_until is not None]
    waiting = [(row, until) for row, until in blocked if until > now]
    if not waiting:
        return
    seconds = int((max(until for _, until in waiting) - now).total_seconds()) + 1
    # The audit is told of the first attempt in a time of waiting: nobody may fill what is never removed.
    if any(row.since != until for row, until in waiting):
        _record(session, name=name, address=address, seconds=seconds, now=now)
    for row, until in waiting:
        row.since = until  # which says that it was told of; the next failure after it begins anew
    raise SignInThrottledError(
        f"too many failed sign-ins from here; wait {seconds} s", retry_after_seconds=seconds
    )


def _record(session: Session, *, name: str, address: str, seconds: int, now: datetime) -> None:
    user = find_user(session, name)  # a name that nobody has may be a password: it is not written down
    memberships = memberships_of(session, user.id) if user else []
    record(
        session,
        Actor("anonymous", "unknown", address, memberships[0][1].id if memberships else None),
        at=now,
        action="sign_in_throttled",
        subject_kind="user",
        subject_name=user.name if user else "unknown",
        outcome=Outcome.REFUSED,
        details={"wait_seconds": seconds},
    )
