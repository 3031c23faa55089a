"""What each role may do, as a table; all that is decided about permissions is decided here."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from backend.db.models import FactorRule, Role


class Permission(StrEnum):
    """One kind of action within the caller's own organisation; also what a token's scopes name."""

    READ = "read"
    RUN_JOBS = "run_jobs"
    MANAGE = "manage"
    READ_AUDIT = "read_audit"


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.RESEARCHER: frozenset({Permission.READ, Permission.RUN_JOBS}),
    Role.AUDITOR: frozenset({Permission.READ, Permission.READ_AUDIT}),
}

ALL_SCOPES: frozenset[Permission] = frozenset(Permission)


def allowed(roles: Iterable[Role]) -> frozenset[Permission]:
    """Return what all of these roles may do: a token never exceeds its owner, nor the owner the token."""
    return frozenset.intersection(*(PERMISSIONS[role] for role in roles))


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """Return the roles that grant a permission."""
    return tuple(role for role in Role if permission in PERMISSIONS[role])


def is_demanded(rule: str, *, is_admin: bool) -> bool:
    """Tell whether an organisation's rule demands a second factor of a member."""
    return rule == FactorRule.EVERYBODY or (rule == FactorRule.ADMINS and is_admin)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do, by the token that it came with.

    Attributes:
        member: The owner's role in the organisation.
        token: The role that an API token was made with; None for a sign-in, which passes all on.
        scopes: What the token passes on at most.
        in_projects: The owner's roles in single projects: there, they stand in for ``member``, unless that
            is admin, whom no project shuts out.
    """

    member: Role
    token: Role | None = None
    scopes: frozenset[Permission] = ALL_SCOPES
    in_projects: Mapping[uuid.UUID, Role] = field(default_factory=dict)

    @property
    def everywhere(self) -> frozenset[Permission]:
        """What may be done in the organisation, and in every project without a role of its own."""
        return self._by(self.member)

    def in_project(self, project_id: uuid.UUID) -> frozenset[Permission]:
        """Return what may be done in a project."""
        if self.member is Role.ADMIN:
            return self.everywhere
        return self._by(self.in_projects.get(project_id, self.member))

    @property
    def somewhere(self) -> frozenset[Permission]:
        """What may be done in one project at least."""
        return self.everywhere.union(*(self.in_project(project_id) for project_id in self.in_projects))

    def _by(self, role: Role) -> frozenset[Permission]:
        return allowed((role, self.token or role)) & self.scopes


def scopes_of(text: str | None) -> frozenset[Permission]:
    """Return the scopes of a token as they are stored; a word of a later version grants nothing here."""
    if text is None:
        return ALL_SCOPES
    known = {permission.value: permission for permission in Permission}
    return frozenset(known[word] for word in text.split() if word in known)


def scopes_text(scopes: Iterable[Permission] | None) -> str | None:
    """Return scopes as they are stored."""
    return None if scopes is None else " ".join(sorted(set(scopes)))
