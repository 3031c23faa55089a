"""Who may call what: every route, by every kind of caller. A new route without a row fails here.

A cell is the status of a call with a body that is right for the route, about things that exist in the
organisation ``default``. An answer of 401 or 403 means refused for who the caller is; 404 to the admin of
another organisation means that the thing is not shown.
"""

import hashlib
import secrets
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response

from backend.app_prefix import API_PREFIX
from backend.artifacts.service import Blob, attach
from backend.audit.service import OPERATOR
from backend.db import Database
from backend.db.models import ArtifactKind, Generation, GenerationState, Model, PartyKind
from backend.organizations.repository import find_organization, find_project
from backend.organizations.service import FIRST_NAME, create_organization
from backend.parties.repository import find_party
from backend.users.service import NewUser
from splitlearn.planning import ModelManifest
from tests.unit.backend.conftest import Api, Clock, SharedClient, World, make_settings, open_world
from tests.unit.backend.jobs.conftest import ATTEMPT, CAPABILITIES, add_model

CALLERS = ("anonymous", "agent", "worker", "researcher", "auditor", "admin", "foreign_admin")
OUTSIDE_THE_SCHEMA = {"/openapi.json", "/docs", "/docs/oauth2-redirect"}
PASSWORD = "a-password-for-the-test"

USERS = "401 403 403 {0} {0} {0} {1}"
ADMIN = "401 403 403 403 403 {0} {1}"
RESEARCHERS = "401 403 403 {0} 403 {0} {1}"
PARTIES = "401 {0} {0} 403 403 403 403"
SPEC = {"model": "tiny", "silos": [{"name": "north", "dataset": "notes"}]}
ANYBODY = "{0} {0} {0} {0} {0} {0} {0}"
MEMBERS = "401 {0} {0} {0} {0} {0} {1}"
AGENTS = "401 {0} 403 403 403 403 403"
WORKERS = "401 403 {0} 403 403 403 403"


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
    "GET /metrics": ANYBODY.format(401),  # these callers are not on the server's own machine
    f"POST {API_PREFIX}/sign-in": ANYBODY.format(401),  # with a wrong password
    f"POST {API_PREFIX}/sign-out": USERS.format(204, 204),
    f"GET {API_PREFIX}/me": USERS.format(200, 200),
    f"POST {API_PREFIX}/me/password": "401 403 403 401 401 401 401",  # with a wrong password
    f"POST {API_PREFIX}/me/second-factor": "401 403 403 401 401 401 401",  # with a wrong password
    f"POST {API_PREFIX}/me/second-factor/confirm": USERS.format(409, 409),  # none was begun
    f"POST {API_PREFIX}/me/second-factor/recovery-codes": USERS.format(409, 409),  # nobody has one
    f"POST {API_PREFIX}/me/second-factor/remove": USERS.format(409, 409),  # likewise
    f"GET {API_PREFIX}/openid": ANYBODY.format(200),
    f"GET {API_PREFIX}/openid/start": ANYBODY.format(404),  # there is no provider
    f"GET {API_PREFIX}/openid/callback": ANYBODY.format(404),  # likewise
    f"POST {API_PREFIX}/workers/{{name}}/drain": ADMIN.format(200, 404),
    f"POST {API_PREFIX}/workers/{{name}}/undrain": ADMIN.format(200, 404),
    f"GET {API_PREFIX}/tokens": USERS.format(200, 200),
    f"POST {API_PREFIX}/tokens": USERS.format(201, 201),
    f"DELETE {API_PREFIX}/tokens/{{token_id}}": USERS.format(404, 404),  # nobody else's token is shown
    f"GET {API_PREFIX}/users": USERS.format(200, 200),
    f"POST {API_PREFIX}/users": ADMIN.format(201, 201),
    f"PATCH {API_PREFIX}/users/{{name}}": ADMIN.format(200, 404),
    f"POST {API_PREFIX}/users/{{name}}/password": ADMIN.format(200, 404),
    f"DELETE {API_PREFIX}/users/{{name}}/second-factor": ADMIN.format(404, 404),  # the user has none
    f"PATCH {API_PREFIX}/organization": ADMIN.format(200, 200),
    f"GET {API_PREFIX}/organization": USERS.format(200, 200),
    f"GET {API_PREFIX}/projects": USERS.format(200, 200),
    f"POST {API_PREFIX}/projects": ADMIN.format(201, 201),
    f"GET {API_PREFIX}/projects/{{project}}/members": USERS.format(200, 404),
    f"PUT {API_PREFIX}/projects/{{project}}/members/{{name}}": ADMIN.format(200, 404),
    f"DELETE {API_PREFIX}/projects/{{project}}/members/{{name}}": ADMIN.format(404, 404),  # she has none
    f"GET {API_PREFIX}/federation": ANYBODY.format(200),
    f"PUT {API_PREFIX}/federation/revocations": ADMIN.format(422, 422),  # with bytes that are no list
    **_party_rows("silo"),
    **_party_rows("worker"),
    f"POST {API_PREFIX}/enrolment": ANYBODY.format(404),  # with an invented invitation
    f"GET {API_PREFIX}/login/nonce": ANYBODY.format(200),
    f"POST {API_PREFIX}/login": ANYBODY.format(401),  # with an invented nonce
    f"POST {API_PREFIX}/rotation": ANYBODY.format(401),  # with an invented nonce
    f"POST {API_PREFIX}/rotation/finish": ANYBODY.format(401),  # likewise
    f"POST {API_PREFIX}/session/heartbeat": PARTIES.format(200),
    f"DELETE {API_PREFIX}/session": PARTIES.format(204),
    f"GET {API_PREFIX}/notice-channels": ADMIN.format(200, 200),
    f"POST {API_PREFIX}/notice-channels": ADMIN.format(201, 201),
    f"DELETE {API_PREFIX}/notice-channels/{{name}}": ADMIN.format(404, 404),  # there is none
    f"POST {API_PREFIX}/notice-channels/{{name}}/test": ADMIN.format(404, 404),
    f"GET {API_PREFIX}/notice-channels/{{name}}/notices": ADMIN.format(404, 404),
    f"GET {API_PREFIX}/audit": "401 403 403 403 200 200 200",
    f"GET {API_PREFIX}/audit/export": "401 403 403 403 200 200 200",
    f"POST {API_PREFIX}/models": ADMIN.format(202, 202),
    f"GET {API_PREFIX}/models": USERS.format(200, 200),
    f"GET {API_PREFIX}/models/{{name}}": USERS.format(200, 404),
    f"DELETE {API_PREFIX}/models/{{name}}": ADMIN.format(204, 404),
    f"GET {API_PREFIX}/models/manifests/{{digest}}": MEMBERS.format(200, 404),
    f"GET {API_PREFIX}/blobs/{{digest}}": MEMBERS.format(200, 404),
    f"HEAD {API_PREFIX}/blobs/{{digest}}": MEMBERS.format(200, 404),
    f"PUT {API_PREFIX}/blobs/{{digest}}": WORKERS.format(204),
    f"PUT {API_PREFIX}/silo/datasets": AGENTS.format(204),
    f"GET {API_PREFIX}/datasets": USERS.format(200, 200),
    f"GET {API_PREFIX}/silos/{{name}}/datasets": USERS.format(200, 404),
    f"GET {API_PREFIX}/federation/revocations": ADMIN.format(200, 200),
    f"POST {API_PREFIX}/federation/spec-signer/rotation": ADMIN.format(200, 200),
    f"GET {API_PREFIX}/federation/spec-signer": ADMIN.format(200, 200),
    f"PUT {API_PREFIX}/federation/spec-signer": ADMIN.format(422, 422),  # with bytes that are no certificate
    f"POST {API_PREFIX}/standings": ANYBODY.format(401),  # no user or party is a gateway
    f"POST {API_PREFIX}/jobs": RESEARCHERS.format(201, 422),  # the foreign organisation has no such model
    f"POST {API_PREFIX}/jobs/plan": USERS.format(200, 422),
    f"GET {API_PREFIX}/jobs": USERS.format(200, 200),
    f"GET {API_PREFIX}/jobs/{{job_id}}": USERS.format(200, 404),
    f"GET {API_PREFIX}/jobs/{{job_id}}/rounds": USERS.format(200, 404),
    f"GET {API_PREFIX}/jobs/{{job_id}}/artifacts": USERS.format(200, 404),
    f"GET {API_PREFIX}/jobs/{{job_id}}/metrics": USERS.format(200, 404),
    f"GET {API_PREFIX}/jobs/{{job_id}}/events": USERS.format(200, 404),
    f"GET {API_PREFIX}/events": USERS.format(200, 200),
    f"POST {API_PREFIX}/jobs/{{job_id}}/cancel": RESEARCHERS.format(200, 404),
    f"POST {API_PREFIX}/jobs/{{job_id}}/pause": RESEARCHERS.format(409, 404),  # it does not run yet
    f"POST {API_PREFIX}/jobs/{{job_id}}/resume": RESEARCHERS.format(200, 404),
    f"POST {API_PREFIX}/jobs/{{job_id}}/retry": RESEARCHERS.format(409, 404),  # it has not ended
    f"POST {API_PREFIX}/jobs/{{job_id}}/clone": RESEARCHERS.format(201, 404),
    f"GET {API_PREFIX}/silo/jobs": AGENTS.format(200),
    f"PUT {API_PREFIX}/silo/jobs/{{job_id}}/approval": AGENTS.format(204),
    f"POST {API_PREFIX}/silo/jobs/{{job_id}}/attach": AGENTS.format(409),  # no worker hosts the trunk
    f"POST {API_PREFIX}/silo/jobs/{{job_id}}/finish": AGENTS.format(409),  # nothing is finished
    f"GET {API_PREFIX}/jobs/{{job_id}}/generations": USERS.format(200, 404),
    f"POST {API_PREFIX}/jobs/{{job_id}}/generations/{{generation_id}}/end": ADMIN.format(204, 404),
    f"POST {API_PREFIX}/silo/jobs/{{job_id}}/generations": AGENTS.format(409),  # it has no result
    f"GET {API_PREFIX}/silo/jobs/{{job_id}}/generations/{{generation_id}}": AGENTS.format(200),
    f"DELETE {API_PREFIX}/silo/jobs/{{job_id}}/generations/{{generation_id}}": AGENTS.format(204),
    f"GET {API_PREFIX}/worker/generations/{{generation_id}}": WORKERS.format(409),  # nobody hosts it
    f"POST {API_PREFIX}/worker/generations/{{generation_id}}/renew": WORKERS.format(409),
    f"POST {API_PREFIX}/worker/generations/{{generation_id}}/release": WORKERS.format(409),
    f"PUT {API_PREFIX}/worker/capabilities": WORKERS.format(204),
    f"GET {API_PREFIX}/worker/leases/{{job_id}}/{{replica}}": WORKERS.format(409),  # there is no lease
    f"POST {API_PREFIX}/worker/leases/{{job_id}}/{{replica}}/renew": WORKERS.format(409),
    f"POST {API_PREFIX}/worker/leases/{{job_id}}/{{replica}}/rounds": WORKERS.format(409),
    f"POST {API_PREFIX}/worker/leases/{{job_id}}/{{replica}}/release": WORKERS.format(409),
    f"POST {API_PREFIX}/tickets": PARTIES.format(404),  # there is no conversation yet
    f"POST {API_PREFIX}/logs": "401 204 404 403 403 403 403",  # likewise
    f"GET {API_PREFIX}/jobs/{{job_id}}/logs": USERS.format(200, 404),
    f"POST {API_PREFIX}/metrics": "401 204 404 403 403 403 403",  # the worker never held the job's lease
}

_NO_BLOB = {"digest": "00" * 32, "num_bytes": 1}
_REASON = {"who": "w", "what": "w", "where": "w", "next": "w"}
_SAID = {"kind": "silo", "name": "north", "nonce": "invented", "signature": "A" * 86 + "=="}
_LEASE = f"POST {API_PREFIX}/worker/leases/{{job_id}}/{{replica}}"

BODIES: dict[str, Any] = {
    f"POST {API_PREFIX}/sign-in": {"name": "somebody-{caller}", "password": "wrong"},
    f"POST {API_PREFIX}/me/password": {"current": "wrong", "new": "a-new-password"},
    f"POST {API_PREFIX}/me/second-factor": {"password": "wrong"},
    f"POST {API_PREFIX}/me/second-factor/confirm": {"code": "000000"},
    f"POST {API_PREFIX}/me/second-factor/recovery-codes": {"code": "000000"},
    f"POST {API_PREFIX}/me/second-factor/remove": {"code": "000000"},
    f"PATCH {API_PREFIX}/organization": {"second_factor": "optional"},
    f"POST {API_PREFIX}/notice-channels": {
        "name": "ops",
        "kind": "webhook",
        "target": "https://hooks.example/x",
    },
    f"POST {API_PREFIX}/tokens": {"name": "script"},
    f"POST {API_PREFIX}/users": {"name": "newcomer-{caller}", "role": "auditor"},
    f"PATCH {API_PREFIX}/users/{{name}}": {"disabled": True},
    f"POST {API_PREFIX}/projects": {"name": "second"},
    f"PUT {API_PREFIX}/projects/{{project}}/members/{{name}}": {"role": "researcher"},
    f"PUT {API_PREFIX}/federation/revocations": {"revocation_list": "AAAA"},
    f"POST {API_PREFIX}/silos/invitations": {"name": "south"},
    f"POST {API_PREFIX}/workers/invitations": {"name": "south"},
    f"PUT {API_PREFIX}/silos/{{name}}/certificate": {"certificate": "AAAA"},
    f"PUT {API_PREFIX}/workers/{{name}}/certificate": {"certificate": "AAAA"},
    f"POST {API_PREFIX}/models": {"name": "another", "source": "hub:owner/name"},
    f"PUT {API_PREFIX}/silo/datasets": {"datasets": []},
    f"PUT {API_PREFIX}/federation/spec-signer": {"certificate": "AAAA"},
    f"POST {API_PREFIX}/standings": {"seats": []},
    f"POST {API_PREFIX}/jobs": {"spec": SPEC},
    f"POST {API_PREFIX}/jobs/plan": {"spec": SPEC},
    f"POST {API_PREFIX}/jobs/{{job_id}}/retry": {},
    f"POST {API_PREFIX}/jobs/{{job_id}}/clone": {},
    f"PUT {API_PREFIX}/silo/jobs/{{job_id}}/approval": {"decision": "approved"},
    f"POST {API_PREFIX}/silo/jobs/{{job_id}}/attach": {"attempt": ATTEMPT},
    f"POST {API_PREFIX}/silo/jobs/{{job_id}}/finish": {"outcome": "completed"},
    f"POST {API_PREFIX}/silo/jobs/{{job_id}}/generations": {"attempt": ATTEMPT},
    f"POST {API_PREFIX}/worker/generations/{{generation_id}}/renew": {
        "epoch": 1,
        "num_tokens": 0,
        "idle_seconds": 0,
    },
    f"POST {API_PREFIX}/worker/generations/{{generation_id}}/release": {
        "epoch": 1,
        "outcome": "idle",
        "reason": _REASON,
    },
    f"PUT {API_PREFIX}/worker/capabilities": CAPABILITIES,
    f"{_LEASE}/renew": {"epoch": 1, "round": 0, "step": 0},
    f"{_LEASE}/rounds": {"epoch": 1, "checkpoint": {"round": 1, "blob": _NO_BLOB}, "seconds": 1},
    f"{_LEASE}/release": {"epoch": 1, "outcome": "failed", "reason": _REASON},
}

BLOB = b"a layer"
DIGEST = hashlib.sha256(BLOB).digest()
MANIFEST = ModelManifest(
    source="hub:owner/name",
    family="llama",
    num_layers=1,
    hidden_size=1,
    num_parameters=0,
    num_bytes=0,
    config={"model_type": "llama"},
    companions=(),
    files=(),
)


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
    world.admin.ok("POST", "/projects", {"name": "second-of-default"})
    _add_model(world)
    job_id = _add_job(world, callers["agent"])
    generation_id = _add_generation(world, job_id)
    world.server.bus.close()  # so that streams of events end
    stranger = world.invited("stranger")
    bodies = {
        f"POST {API_PREFIX}/enrolment": stranger.enrolment(secret=secrets.token_bytes(32)),
        f"POST {API_PREFIX}/login": parties["silo"].login(nonce="invented"),
        f"POST {API_PREFIX}/rotation": {
            **_SAID,
            "public_key": parties["silo"].enrolment()["public_key"],
            "new_signature": _SAID["signature"],
        },
        f"POST {API_PREFIX}/rotation/finish": _SAID,
    }
    told = {"job": job_id, "replica": 0, "epoch": 1, "silo": "north"}
    bodies[f"POST {API_PREFIX}/tickets"] = told
    point = {"name": "loss", "round": 1, "step": 0, "value": 1.0}
    line = {"at": "2026-03-01T12:00:00Z", "level": "info", "event": "attached"}
    bodies[f"POST {API_PREFIX}/logs"] = {"job": job_id, "lines": [line]}
    bodies[f"POST {API_PREFIX}/metrics"] = {"job": job_id, "metrics": [point]}
    return Stage(
        world, callers, {**invitations, "job": job_id, "generation": generation_id}, {**BODIES, **bodies}
    )


def _add_job(world: World, agent: Api) -> str:
    add_model(world)
    announced = {"name": "notes", "task": "any", "num_rows": 7, "schema_digest": "00" * 32}
    agent.ok("PUT", "/silo/datasets", {"datasets": [announced]})
    return str(world.admin.ok("POST", "/jobs", {"spec": SPEC})["id"])


def _add_generation(world: World, job_id: str) -> str:
    """A session that waits for a worker; its job is taken for one that had a result."""
    with world.server.database.write() as session:
        silo = find_party(session, PartyKind.SILO, "north")
        assert silo is not None
        row = Generation(
            job_id=uuid.UUID(job_id),
            silo_id=silo.id,
            attempt="00" * 16,
            state=GenerationState.WAITING,
            reason_code="opened",
            reason_who="north",
            reason_what="opened it",
            reason_next="it waits",
            created_at=world.clock(),
            heard_at=world.clock(),
        )
        session.add(row)
        session.flush()
        return str(row.id)


def _add_model(world: World) -> None:
    """Add a model with one file; that the file is the manifest's too matters to no route."""
    with world.server.store.writer(None, max_bytes=len(BLOB)) as writer:
        writer.write(BLOB)
        writer.commit()
    with world.server.database.write() as session:
        organization = find_organization(session, FIRST_NAME)
        assert organization is not None
        project = find_project(session, organization.id, FIRST_NAME)
        assert project is not None
        model = Model(
            project_id=project.id,
            name="north",
            source=MANIFEST.source,
            family=MANIFEST.family,
            num_layers=1,
            num_parameters=0,
            num_bytes=0,
            digest=DIGEST,
            manifest=MANIFEST.model_dump(mode="json"),
            created_at=world.clock(),
        )
        session.add(model)
        attach(
            session,
            world.server.store,
            world.server.settings,
            Blob(DIGEST, len(BLOB)),
            project_id=project.id,
            kind=ArtifactKind.MODEL_FILE,
            name="layer",
            now=world.clock(),
        )


def _foreign_admin(world: World) -> Api:
    new = NewUser("fremd", world.server.passwords.hash(PASSWORD))
    with world.server.database.write() as session:
        create_organization(session, name="elsewhere", admin=new, actor=OPERATOR, now=world.clock())
    return world.sign_in("fremd", PASSWORD)


def _call(stage: Stage, route: str, caller: str) -> int:
    method, template = route.split(" ")
    kind = "silo" if "/silos" in template else "worker"
    path = template.format(
        name="victim" if "/users" in template or "/members" in template else "north",
        project="second-of-default",
        invitation_id=stage.ids[kind],
        token_id=uuid.UUID(int=1),
        job_id=stage.ids["job"],
        generation_id=stage.ids["generation"],
        replica=0,
        digest=DIGEST.hex(),
    )
    is_lease = path.endswith("/0") or template.endswith("/worker/generations/{generation_id}")
    if is_lease:  # it is asked for under an epoch
        path += "?epoch=1"
    api = stage.callers[caller]
    headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
    body = stage.bodies.get(route)
    if body and "{caller}" in body.get("name", ""):
        body = {**body, "name": body["name"].format(caller=caller.replace("_", "-"))}
    response = api.client.request(method, path, json=body, headers=headers)
    if not response.is_success:
        _assert_documented(stage, method, template, response)
    return int(response.status_code)


def _assert_documented(stage: Stage, method: str, template: str, response: Response) -> None:
    """The route's page names the very code that it answers with."""
    operation = _application(stage.world).openapi()["paths"][template][method.lower()]
    documented = operation["responses"][str(response.status_code)]["content"]["application/json"]["examples"]
    if method != "HEAD":  # whose answers have no body
        assert response.json()["code"] in documented, (method, template, response.text)


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

    def test_the_document_names_who_is_let_in(self, stage: Stage) -> None:
        """``x-access`` of every operation, against the statuses above: 403 is who is not on its list."""
        words = {
            "agent": "silo",
            **{caller: caller for caller in ("worker", "researcher", "auditor", "admin")},
        }
        for path, operations in _application(stage.world).openapi()["paths"].items():
            for method, operation in operations.items():
                row = dict(zip(CALLERS, MATRIX[f"{method.upper()} {path}"].split(), strict=True))
                access = set(operation["x-access"])
                refused = {word for caller, word in words.items() if row[caller] == "403"}
                assert refused == (set() if "anybody" in access else set(words.values()) - access), path

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
