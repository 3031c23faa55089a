"""Both databases, built by the migrations; PostgreSQL's are thrown away after each test."""

import base64
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import SecretStr
from sqlalchemy.engine import URL

from backend.app import create_app
from backend.app_prefix import API_PREFIX
from backend.bootstrap import FirstAdmin, start
from backend.db import Database, upgrade
from backend.server import Server
from backend.settings import Settings
from splitlearn.identity import (
    LOGIN_CONTEXTS,
    CertificateKind,
    Context,
    FederationRoot,
    Invitation,
    SigningKey,
    enrolment_statement,
    login_statement,
)
from tests import services
from tests.unit.backend.compiled_once import compiled_once
from tests.unit.backend.seeds import Seeds, empty_tables

DATABASES = ("sqlite", "postgresql")

ON_SQLITE_ALONE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""For what is refused before the database is asked, or asked the same way by another test."""


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    with compiled_once():
        yield


@pytest.fixture(scope="session")
def postgresql_database(postgresql_server: URL) -> Iterator[Database]:
    """One migrated database for all tests: making another takes a second."""
    with services.new_postgresql_database(postgresql_server) as url:
        database = Database(url)
        upgrade(database)
        yield database
        database.dispose()


@pytest.fixture
def emptied_postgresql_database(postgresql_database: Database) -> Iterator[Database]:
    yield postgresql_database
    empty_tables(postgresql_database)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "trunkline.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.dispose()
    return path


@pytest.fixture(params=DATABASES)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'trunkline.db'}"
    else:
        url = request.getfixturevalue("empty_postgresql_url")
    database = Database(url)
    yield database
    database.dispose()


@pytest.fixture
def fresh_database(empty_database: Database) -> Database:
    """A migrated database whose tables the test may change."""
    upgrade(empty_database)
    return empty_database


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database without a row."""
    if request.param == "postgresql":
        yield request.getfixturevalue("emptied_postgresql_database")
        return
    path = tmp_path / "trunkline.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


class Clock:
    """The server's clock, moved by the test."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, **duration: float) -> None:
        self.moment += timedelta(**duration)


@dataclass
class Api:
    """The API as one caller sees it."""

    client: TestClient
    token: str | None = None

    def __call__(self, method: str, path: str, body: object = None) -> Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return self.client.request(method, API_PREFIX + path, json=body, headers=headers)

    def ok(self, method: str, path: str, body: object = None) -> Any:
        response = self(method, path, body)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def refused(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        response = self(method, path, body)
        assert not response.is_success, response.text
        return response.status_code, response.json()["code"]

    def as_(self, token: str) -> "Api":
        return Api(self.client, token)


@dataclass
class PartyProgram:
    """An agent or worker as the control plane meets it: a key, a state folder, and one process."""

    api: Api
    invitation: Invitation
    key: SigningKey = field(default_factory=SigningKey.generate)
    boot_id: str = field(default_factory=lambda: secrets.token_hex(16))
    stored_boot_id: str | None = None

    def enrolment(self, **changes: Any) -> dict[str, Any]:
        fields = {
            "audience": self.invitation.url,
            "kind": self.invitation.kind,
            "name": self.invitation.name,
            "fingerprint": self.invitation.fingerprint,
            "secret": self.invitation.secret,
            "public_key": self.key.public_key,
            **changes,
        }
        signature = self.key.sign(Context.ENROLMENT, enrolment_statement(**fields))
        return {
            "secret": base64.b64encode(fields["secret"]).decode(),
            "fingerprint": str(fields["fingerprint"]),
            "public_key": base64.b64encode(fields["public_key"].raw).decode(),
            "signature": base64.b64encode(signature).decode(),
        }

    def login(self, **changes: Any) -> dict[str, Any]:
        nonce = self.api.ok("GET", "/login/nonce")
        fields = {
            "audience": nonce["audience"],
            "kind": self.invitation.kind,
            "name": self.invitation.name,
            "nonce": nonce["nonce"],
            "boot_id": self.boot_id,
            "previous_boot_id": self.stored_boot_id or "",
            **changes,
        }
        context = LOGIN_CONTEXTS[CertificateKind(fields["kind"])]
        signature = self.key.sign(context, login_statement(**fields))
        fields.pop("audience")
        fields["previous_boot_id"] = fields["previous_boot_id"] or None
        return {**fields, "signature": base64.b64encode(signature).decode()}

    def enrol(self) -> Any:
        return self.api.ok("POST", "/enrolment", self.enrolment())

    def log_in(self) -> Any:
        answer = self.api.ok("POST", "/login", self.login())
        self.stored_boot_id = self.boot_id
        return answer

    def restarted(self) -> "PartyProgram":
        """The next process on the same state folder."""
        return PartyProgram(self.api, self.invitation, self.key, stored_boot_id=self.stored_boot_id)

    def copied(self) -> "PartyProgram":
        """A process on another machine that got the key, but not the state folder."""
        return PartyProgram(self.api, self.invitation, self.key)


@dataclass
class World:
    """A started control plane and its first admin."""

    server: Server
    clock: Clock
    anybody: Api
    admin: Api
    first: FirstAdmin
    as_kept: str = ""
    """Up to where it was built or put in by a seed, and nobody has written since; empty once somebody has."""

    def kept_as(self, name: str) -> None:
        """Take note that the database is as a seed of this name."""

        def forget() -> None:
            self.as_kept = ""

        if not self._is_watched:
            self.server.database.on_commit(forget)
        self.as_kept, self._is_watched = name, True

    _is_watched: bool = False

    def sign_in(self, name: str, password: str) -> Api:
        return self.anybody.as_(
            self.anybody.ok("POST", "/sign-in", {"name": name, "password": password})["token"]
        )

    def user(self, name: str, role: str) -> Api:
        created = self.admin.ok("POST", "/users", {"name": name, "role": role})
        return self.sign_in(name, created["password"])

    def invited(self, name: str = "north", kind: str = "silo") -> PartyProgram:
        answer = self.admin.ok("POST", f"/{kind}s/invitations", {"name": name})
        return PartyProgram(self.anybody, Invitation.parse(answer["invitation"]))

    def enrolled(self, name: str = "north", kind: str = "silo") -> PartyProgram:
        program = self.invited(name, kind)
        program.enrol()
        return program

    def audit(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.admin.ok("GET", "/audit")["items"]
        return rows


def make_settings(state_dir: Path, database: Database, **changes: Any) -> Settings:
    return Settings(
        state_dir=state_dir,
        database_url=SecretStr(database.engine.url.render_as_string(hide_password=False)),
        public_url="https://trunkline.example",
        password_memory_kib=64,  # as cheap as argon2 goes: these tests are not about its cost
        password_passes=1,
        password_lanes=1,
        sign_in_failures_per_address=20,
        **changes,
    )


class SharedClient:
    """One application and client for all tests, each of which puts its server in: making one is slow."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._client: TestClient | None = None

    def with_server(self, server: Server) -> TestClient:
        if self._client is None:
            client = TestClient(create_app(server), raise_server_exceptions=False)
            self._client = self._stack.enter_context(client)
        application = self._client.app
        assert isinstance(application, FastAPI)
        application.state.server = server
        return self._client

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def shared_client() -> Iterator[SharedClient]:
    shared = SharedClient()
    yield shared
    shared.close()


def open_world(settings: Settings, clock: Clock, shared: SharedClient) -> World:
    server, first = start(settings, clock=clock)
    assert first is not None
    anybody = Api(shared.with_server(server))
    body = {"name": first.name, "password": first.password}
    admin = anybody.as_(anybody.ok("POST", "/sign-in", body)["token"])
    return World(server, clock, anybody, admin, first)


def open_like_others(settings: Settings, clock: Clock, shared: SharedClient, seeds: Seeds) -> World:
    """As :func:`open_world`, but what the first start and a sign-in wrote is put in if it was kept."""
    database = Database(settings.resolved_database_url)
    known = seeds.put("world", settings, database, now=clock())
    database.dispose()
    if known is not None:
        first, token = known
        server, again = start(settings, clock=clock)
        assert again is None
        anybody = Api(shared.with_server(server))
        world = World(server, clock, anybody, anybody.as_(token), first)
        world.kept_as("world")
        return world
    world = open_world(settings, clock, shared)
    told = (world.first, world.admin.token)
    if seeds.keep("world", settings, world.server.database, told, now=clock()):
        world.kept_as("world")
    return world


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Seeds:
    return Seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path, database: Database) -> Settings:
    return make_settings(tmp_path / "state", database)


@pytest.fixture
def world(settings: Settings, clock: Clock, shared_client: SharedClient, seeds: Seeds) -> Iterator[World]:
    world = open_like_others(settings, clock, shared_client, seeds)
    yield world
    world.server.database.dispose()


@pytest.fixture
def offline_world(
    tmp_path: Path, database: Database, clock: Clock, shared_client: SharedClient
) -> Iterator[tuple[World, FederationRoot]]:
    root = FederationRoot.generate()
    settings = make_settings(tmp_path / "state", database, root_public_key=root.public_key.raw.hex())
    world = open_world(settings, clock, shared_client)
    yield world, root
    world.server.database.dispose()
