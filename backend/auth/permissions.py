"""What each role may do, as a table."""

from collections.abc import Iterable
from enum import StrEnum

from backend.db.models import Role


class Permission(StrEnum):
    """One kind of action within the caller's own organisation."""

    READ = "read"
    RUN_JOBS = "run_jobs"
    MANAGE = "manage"
    READ_AUDIT = "read_audit"


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.RESEARCHER: frozenset({Permission.READ, Permission.RUN_JOBS}),
    Role.AUDITOR: frozenset({Permission.READ, Permission.READ_AUDIT}),
}


def allowed(roles: Iterable[Role]) -> frozenset[Permission]:
    """Return what all of these roles may do: a token never exceeds its owner, nor the owner the token."""
    return frozenset.intersection(*(PERMISSIONS[role] for role in roles))
