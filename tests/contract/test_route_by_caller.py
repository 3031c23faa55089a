"""Who may call what: every route, by every kind of caller. A new route without a row fails here.

A cell is the status of a call with a body that is right for the route, about things that exist in the
organisation ``default``. An answer of 401 or 403 means refused for who the caller is; 404 to the admin of
another organisation means that the thing is not shown.
"""

import secrets
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from backend.app_prefix import API_PREFIX
from backend.audit.service import OPERATOR
from backend.db import Database
from backend.organizations.service import create_organization
from backend.users.service import NewUser
from tests.unit.backend.conftest import Api, Clock, SharedClient, World, make_settings, open_world

CALLERS = ("anonymous", "agent", "worker", "researcher", "auditor", "admin", "foreign_admin")
OUTSIDE_THE_SCHEMA = {"/openapi.json", "/docs", "/docs/oauth2-redirect"}
PASSWORD = "a-password-for-the-test"

USERS = "401 403 403 {0} {0} {0} {1}"
ADMIN = "401 403 403 403 403 {0} {1}"
PARTIES = "401 {0} {0} 403 403 403 403"
ANYBODY = "{0} {0} {0} {0} {0} {0} {0}"


def _party_rows(kind: str) -> dict[str, str]:
    return {
        f"POST {API_PREFIX}/{kind}s/invitations": ADMIN.format(201, 201),
        f"GET {API_PREFIX}/{kind}s/invitations": USERS.format(200, 200),
        f"DELETE {API_PREFIX}/{kind}s/invitations/{{invitation_id}}": ADMIN.format(204, 404),
        f"GET {API_PREFIX}/{kind}s": USERS.format(200, 200),
        f"GET {API_PREFIX}/{kind}s/{{name}}": USERS.format(200, 404),
        f"POST {API_PREFIX}/{kind}s/{{name}}/revoke": ADMIN.format(200, 404),
        # With an embedded root nobody waits for a certificate: 404 shows that the caller got through.
        f"GET {API_PREFIX}/{kind}s/{{name}}/certificate-request": ADMIN.format(404, 404),
        f"PUT {API_PREFIX}/{kind}s/{{name}}/certificate": ADMIN.format(404, 404),
    }


MATRIX = {
    "GET /healthz": ANYBODY.format(200),
    "GET /readyz": ANYBODY.format(200),
    f"POST {API_PREFIX}/sign-in": ANYBODY.format(401),  # with a wrong password
    f"POST {API_PREFIX}/sign-out": USERS.format(204, 204),
    f"GET {API_PREFIX}/me": USERS.format(200, 200),
    f"POST {API_PREFIX}/me/password": "401 403 403 401 401 401 401",  # with a wrong password
    f"GET {API_PREFIX}/tokens": USERS.format(200, 200),
    f"POST {API_PREFIX}/tokens": USERS.format(201, 201),
    f"DELETE {API_PREFIX}/tokens/{{token_id}}": USERS.format(404, 404),  # nobody else's token is shown
    f"GET {API_PREFIX}/users": USERS.format(200, 200),
    f"POST {API_PREFIX}/users": ADMIN.format(201, 201),
    f"PATCH {API_PREFIX}/users/{{name}}": ADMIN.format(200, 404),
    f"POST {API_PREFIX}/users/{{name}}/password": ADMIN.format(200, 404),
    f"GET {API_PREFIX}/organization": USERS.format(200, 200),
    f"GET {API_PREFIX}/projects": USERS.format(200, 200),
    f"POST {API_PREFIX}/projects": ADMIN.format(201, 201),
    f"GET {API_PREFIX}/federation": ANYBODY.format(200),
    f"PUT {API_PREFIX}/federation/revocations": ADMIN.format(422, 422),  # with bytes that are no list
    **_party_rows("silo"),
    **_party_rows("worker"),
    f"POST {API_PREFIX}/enrolment": ANYBODY.format(404),  # with an invented invitation
    f"GET {API_PREFIX}/login/nonce": ANYBODY.format(200),
    f"POST {API_PREFIX}/login": ANYBODY.format(401),  # with an invented nonce
    f"POST {API_PREFIX}/session/heartbeat": PARTIES.format(200),
    f"DELETE {API_PREFIX}/session": PARTIES.format(204),
    f"GET {API_PREFIX}/audit": "401 403 403 403 200 200 200",
}

BODIES: dict[str, Any] = {
    f"POST {API_PREFIX}/sign-in": {"name": "somebody-{caller}", "password": "wrong"},
    f"POST {API_PREFIX}/me/password": {"current": "wrong", "new": "a-new-password"},
    f"POST {API_PREFIX}/tokens": {"name": "script"},
    f"POST {API_PREFIX}/users": {"name": "newcomer-{caller}", "role": "auditor"},
    f"PATCH {API_PREFIX}/users/{{name}}": {"disabled": True},
    f"POST {API_PREFIX}/projects": {"name": "second"},
    f"PUT {API_PREFIX}/federation/revocations": {"revocation_list": "AAAA"},
    f"POST {API_PREFIX}/silos/invitations": {"name": "south"},
    f"POST {API_PREFIX}/workers/invitations": {"name": "south"},
    f"PUT {API_PREFIX}/silos/{{name}}/certificate": {"certificate": "AAAA"},
    f"PUT {API_PREFIX}/workers/{{name}}/certificate": {"certificate": "AAAA"},
}


@dataclass
class Stage:
    """Everything that the routes are about, and a client of every caller."""

    world: World
    callers: dict[str, Api]
    ids: dict[str, str]
    bodies: dict[str, Any]


@pytest.fixture(scope="module")
def built_stage(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, shared_client: SharedClient
) -> Iterator[tuple[Stage, Path, Path]]:
    folder = tmp_path_factory.mktemp("stage")
    path, snapshot = folder / "trunkline.db", folder / "snapshot.db"
    shutil.copy(sqlite_template, path)
    settings = make_settings(folder / "state", Database(f"sqlite:///{path}"), sign_in_failures_per_name=20)
    world = open_world(settings, Clock(), shared_client)
    stage = _build(world)
    world.server.database.dispose()  # the last connection writes the log back into the file
    shutil.copy(path, snapshot)
    yield stage, path, snapshot
    world.server.database.dispose()


@pytest.fixture
def stage(built_stage: tuple[Stage, Path, Path], shared_client: SharedClient) -> Stage:
    """The same stage for every route: what the last one changed is put back."""
    stage, path, snapshot = built_stage
    stage.world.server.database.dispose()
    for old in path.parent.glob("trunkline.db*"):
        old.unlink()
    shutil.copy(snapshot, path)
    shared_client.with_server(stage.world.server)
    return stage


def _build(world: World) -> Stage:
    parties = {kind: world.enrolled("north", kind) for kind in ("silo", "worker")}
    invitations = {
        kind: world.admin.ok("POST", f"/{kind}s/invitations", {"name": "invited"})["id"] for kind in parties
    }
    callers = {
        "anonymous": world.anybody,
        "agent": world.anybody.as_(parties["silo"].log_in()["token"]),
        "worker": world.anybody.as_(parties["worker"].log_in()["token"]),
        "researcher": world.user("rosa", "researcher"),
        "auditor": world.user("otto", "auditor"),
        "admin": world.admin,
        "foreign_admin": _foreign_admin(world),
    }
    world.admin.ok("POST", "/users", {"name": "victim", "role": "auditor"})
    stranger = world.invited("stranger")
    bodies = {
        f"POST {API_PREFIX}/enrolment": stranger.enrolment(secret=secrets.token_bytes(32)),
        f"POST {API_PREFIX}/login": parties["silo"].login(nonce="invented"),
    }
    return Stage(world, callers, invitations, {**BODIES, **bodies})


def _foreign_admin(world: World) -> Api:
    new = NewUser("fremd", world.server.passwords.hash(PASSWORD))
    with world.server.database.write() as session:
        create_organization(session, name="elsewhere", admin=new, actor=OPERATOR, now=world.clock())
    return world.sign_in("fremd", PASSWORD)


def _call(stage: Stage, route: str, caller: str) -> int:
    method, template = route.split(" ")
    kind = "silo" if "/silos" in template else "worker"
    path = template.format(
        name="victim" if "/users" in template else "north",
        invitation_id=stage.ids[kind],
        token_id=uuid.UUID(int=1),
    )
    api = stage.callers[caller]
    headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
    body = stage.bodies.get(route)
    if body and "{caller}" in body.get("name", ""):
        body = {**body, "name": body["name"].format(caller=caller.replace("_", "-"))}
    response = api.client.request(method, path, json=body, headers=headers)
    return int(response.status_code)


def _application(world: World) -> FastAPI:
    application = world.anybody.client.app
    assert isinstance(application, FastAPI)
    return application


class TestRouteByCaller:
    @pytest.mark.parametrize("route", MATRIX)
    def test_answers_as_the_matrix_says(self, stage: Stage, route: str) -> None:
        # The admin comes last: it may revoke, withdraw or disable what the others ask about.
        order = sorted(CALLERS, key=lambda caller: caller == "admin")
        found = {caller: _call(stage, route, caller) for caller in order}
        expected = dict(zip(CALLERS, map(int, MATRIX[route].split()), strict=True))
        assert found == expected

    def test_every_route_has_a_row(self, stage: Stage) -> None:
        schema = _application(stage.world).openapi()
        routes = {
            f"{method.upper()} {path}"
            for path, operations in schema["paths"].items()
            for method in operations
        }
        assert routes == set(MATRIX)

    def test_no_route_hides_from_the_schema(self, stage: Stage) -> None:
        hidden = {
            path
            for route in _application(stage.world).routes
            if (path := getattr(route, "path", None)) is not None
        }
        assert hidden == OUTSIDE_THE_SCHEMA
