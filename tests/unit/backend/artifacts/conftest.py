"""A worker that sends blobs, and another organisation that looks for them."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy.orm import Session

from backend.app_prefix import API_PREFIX
from backend.artifacts.service import Blob, attach
from backend.audit.service import OPERATOR
from backend.db.models import Artifact, ArtifactKind
from backend.organizations.repository import find_organization, find_project
from backend.organizations.service import FIRST_NAME, create_organization
from backend.users.service import NewUser
from splitlearn.identity import Invitation
from tests.unit.backend.conftest import Api, PartyProgram, World

PASSWORD = "a-password-for-the-test"


@dataclass
class Blobs:
    """Blobs as one caller sends and reads them."""

    api: Api

    def put(self, data: bytes, *, digest: bytes | None = None, chunks: list[bytes] | None = None) -> Response:
        return self._call("PUT", digest or sha256(data).digest(), content=(chunks and iter(chunks)) or data)

    def get(self, data: bytes, *, part: str | None = None, method: str = "GET") -> Response:
        return self._call(method, sha256(data).digest(), headers={"Range": part} if part else {})

    def _call(self, method: str, digest: bytes, **how: Any) -> Response:
        headers = {"Authorization": f"Bearer {self.api.token}", **how.pop("headers", {})}
        path = f"{API_PREFIX}/blobs/{digest.hex()}"
        return self.api.client.request(method, path, headers=headers, **how)


@pytest.fixture
def worker(world: World) -> Blobs:
    return Blobs(world.anybody.as_(world.enrolled("gpu", "worker").log_in()["token"]))


@pytest.fixture
def foreign_admin(world: World) -> Api:
    new = NewUser("fremd", world.server.passwords.hash(PASSWORD))
    with world.server.database.write() as session:
        create_organization(session, name="elsewhere", admin=new, actor=OPERATOR, now=world.clock())
    return world.sign_in("fremd", PASSWORD)


@pytest.fixture
def foreign_worker(world: World, foreign_admin: Api) -> Blobs:
    answer = foreign_admin.ok("POST", "/workers/invitations", {"name": "other-gpu"})
    program = PartyProgram(world.anybody, Invitation.parse(answer["invitation"]))
    program.enrol()
    return Blobs(world.anybody.as_(program.log_in()["token"]))


@dataclass
class Shelf:
    """Makes references as jobs do."""

    world: World

    def attach(self, data: bytes, *, organization: str = FIRST_NAME, **how: Any) -> Artifact:
        with self.world.server.database.write() as session:
            return self.attach_in(session, data, organization=organization, **how)

    def attach_in(
        self,
        session: Session,
        data: bytes,
        *,
        organization: str = FIRST_NAME,
        kind: ArtifactKind = ArtifactKind.CHECKPOINT,
        **how: Any,
    ) -> Artifact:
        server = self.world.server
        found = find_organization(session, organization)
        assert found is not None
        project = find_project(session, found.id, FIRST_NAME)
        assert project is not None
        blob = Blob(sha256(data).digest(), len(data))
        now = server.now()
        return attach(
            session, server.store, server.settings, blob,
            project_id=project.id, kind=kind, name="checkpoint", now=now, **how,
        )  # fmt: skip


@pytest.fixture
def shelf(world: World) -> Shelf:
    return Shelf(world)
