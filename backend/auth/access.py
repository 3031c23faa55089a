"""Who may call what, in the API's own document: read off the very checks that the routes run."""

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from backend.auth.callers import PartyOf, UserWith, find_caller
from backend.auth.permissions import roles_with
from backend.db.models import PartyKind, Role

ANYBODY = "anybody"
FIELD = "x-access"
"""In every operation: a list of roles and kinds of parties, or ``anybody`` where no token is asked for."""


def access_of(route: APIRoute) -> list[str]:
    """Return who gets past the checks of a route."""
    checks = [dependant.call for dependant in _all(route.dependant)]
    users = [check for check in checks if isinstance(check, UserWith)]
    parties = [check for check in checks if isinstance(check, PartyOf)]
    assert len(users) + len(parties) <= 1, f"{route.path} asks twice who calls"
    if users:
        permission = users[0].permission
        return [role.value for role in (Role if permission is None else roles_with(permission))]
    if parties:
        return [kind.value for kind in parties[0].kinds]
    if find_caller in checks:
        return [*(role.value for role in Role), *(kind.value for kind in PartyKind)]
    return [ANYBODY]


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _all(inner)
