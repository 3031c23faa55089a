"""What people and programs get wrong: each ends as a sentence with the remedy, and changes nothing."""

import errno
import json
import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from httpx2 import Response

from backend.app_prefix import API_PREFIX
from splitlearn.identity import FederationRoot
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Api, World
from tests.unit.backend.jobs.conftest import Federation
from tests.unit.backend.jobs.conftest import federation as federation  # noqa: PLC0414 - a fixture is passed on


def told(answer: Response) -> tuple[int, str]:
    """Status and code of a refusal, which has a sentence and a remedy."""
    body = answer.json()
    assert len(body["message"].split()) > 2, body
    assert len((body["remedy"] or "").split()) > 2, body
    assert "Traceback" not in answer.text
    return answer.status_code, body["code"]


def used(world: World) -> Response:
    program = world.invited()
    program.enrol()
    program.key = type(program.key).generate()
    return world.anybody("POST", "/enrolment", program.enrolment())


def expired(world: World) -> Response:
    program = world.invited()
    world.clock.advance(hours=world.server.settings.invitation_hours + 1)
    world.admin = world.sign_in(world.first.name, world.first.password)
    return world.anybody("POST", "/enrolment", program.enrolment())


def foreign(world: World) -> Response:
    return world.anybody("POST", "/enrolment", world.invited().enrolment(secret=secrets.token_bytes(32)))


def withdrawn(world: World) -> Response:
    program = world.invited()
    [row] = world.admin.ok("GET", "/silos/invitations")["items"]
    world.admin.ok("DELETE", f"/silos/invitations/{row['id']}")
    return world.anybody("POST", "/enrolment", program.enrolment())


def wrong_root(world: World) -> Response:
    body = world.invited().enrolment(fingerprint=FederationRoot.generate().fingerprint)
    return world.anybody("POST", "/enrolment", body)


def mistyped_root(world: World) -> Response:
    return world.anybody("POST", "/enrolment", {**world.invited().enrolment(), "fingerprint": "0000"})


def second_agent(world: World) -> Response:
    program = world.enrolled()
    program.log_in()
    return world.anybody("POST", "/login", program.copied().login())


def revoked_agent(world: World) -> Response:
    program = world.enrolled()
    world.admin.ok("POST", "/silos/north/revoke")
    return world.anybody("POST", "/login", program.login())


def old_nonce(world: World) -> Response:
    body = world.enrolled().login()
    world.clock.advance(seconds=world.server.settings.login_nonce_seconds + 1)
    return world.anybody("POST", "/login", body)


REFUSALS: list[tuple[Callable[[World], Response], int, str, str | None]] = [
    # what, status, code, and the action whose refusal is in the audit
    (used, 409, "invitation_used", "enrol"),
    (expired, 410, "invitation_expired", "enrol"),
    (foreign, 404, "invitation_unknown", None),  # nobody's invitation: there is no organisation to tell
    (withdrawn, 410, "invitation_withdrawn", "enrol"),
    (wrong_root, 409, "wrong_root", "enrol"),
    (mistyped_root, 422, "fingerprint", None),
    (second_agent, 409, "identity_in_use", "log_in"),
    (revoked_agent, 403, "party_revoked", None),
    (old_nonce, 401, "nonce_refused", None),
]


@ON_SQLITE_ALONE
class TestAdmission:
    @pytest.mark.parametrize(("act", "status", "code", "action"), REFUSALS)
    def test_is_refused_with_a_remedy_and_audited(
        self, world: World, act: Callable[[World], Response], status: int, code: str, action: str | None
    ) -> None:
        assert told(act(world)) == (status, code)
        refused = [row for row in world.audit() if row["outcome"] == "refused"]
        if action is not None:
            assert [row["action"] for row in refused] == [action]
            assert refused[0]["subject_name"] == "north"

    def test_leaves_the_agent_that_was_there_alone(self, world: World) -> None:
        program = world.enrolled()
        agent = world.anybody.as_(program.log_in()["token"])
        assert told(world.anybody("POST", "/login", program.copied().login()))[1] == "identity_in_use"
        agent.ok("POST", "/session/heartbeat")


@ON_SQLITE_ALONE
class TestFullDisk:
    """The disk fills in the middle of an upload."""

    def test_keeps_nothing_half_written_and_takes_it_later(
        self, federation: Federation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker, store = federation.parties["worker"], federation.world.server.store
        job_id = federation.running()
        left = _Space(64)
        monkeypatch.setattr(store, "writer", left.limiting(store.writer))
        content = bytes(100)
        answer = _put(worker, content)
        assert told(answer) == (507, "store_full")
        assert "No space left on device" in answer.json()["message"]
        assert store._files.find(store._root) == []
        reference = {"digest": sha256(content).hexdigest(), "num_bytes": len(content)}
        body = {"epoch": 1, "checkpoint": {"round": 1, "blob": reference}, "seconds": 1}
        path = f"/worker/leases/{job_id}/0/rounds"
        assert told(worker("POST", path, body)) == (404, "not_found")
        left.num_bytes = 1 << 20
        assert _put(worker, content).status_code == 204
        worker.ok("POST", path, body)
        assert federation.job(job_id)["rounds_committed"] == 1

    def test_while_names_are_written_leaves_nothing_either(
        self, federation: Federation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker, store = federation.parties["worker"], federation.world.server.store

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(store._files, "makedirs", refuse)
            assert told(_put(worker, b"layer")) == (507, "store_full")
        assert store._files.find(store._root) == []
        assert _put(worker, b"layer").status_code == 204


class _Space:
    """So many bytes are left on the disk."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes

    def limiting(self, make_writer: Callable[..., Any]) -> Callable[..., Any]:
        def make(*arguments: Any, **how: Any) -> Any:
            writer = make_writer(*arguments, **how)
            opened = writer.open

            def open_limited() -> None:
                opened()
                write = writer._file.write

                def write_limited(chunk: bytes) -> int:
                    fits = chunk[: self.num_bytes]
                    self.num_bytes -= len(fits)
                    written: int = write(fits)
                    if len(fits) < len(chunk):
                        raise OSError(errno.ENOSPC, "No space left on device")
                    return written

                writer._file.write = write_limited

            writer.open = open_limited
            return writer

        return make


def _put(worker: Api, content: bytes) -> Response:
    headers = {"Authorization": f"Bearer {worker.token}"}
    return worker.client.put(f"/api/v1/blobs/{sha256(content).hexdigest()}", content=content, headers=headers)


class TestCharactersThatNoDatabaseKeeps:
    """PostgreSQL keeps no NUL in a text. A silo's or worker's word counts all the same."""

    def test_do_not_silence_a_silo(self, federation: Federation) -> None:
        job_id = federation.submit()
        body = {"decision": "refused", "code": "columns", "reason": "row 3: \0 in it"}
        federation.parties["south"].ok("PUT", f"/silo/jobs/{job_id}/approval", body)
        federation.look()
        assert federation.state(job_id) == ("failed", "refused")
        assert federation.job(job_id)["silos"][1]["approval_reason"] == "row 3: � in it"

    def test_do_not_silence_a_worker(self, federation: Federation) -> None:
        job_id = federation.running()
        body = federation.release_body("failed")
        body["reason"]["what"] = "device said \0" + "x" * 1900
        federation.parties["worker"].ok("POST", f"/worker/leases/{job_id}/0/release", body)
        assert federation.job(job_id)["reason"]["what"].startswith("device said �xxx")

    def test_do_not_silence_a_silos_end(self, federation: Federation) -> None:
        job_id = federation.running()
        body = {"outcome": "failed", "code": "storage", "message": "\0" * 2000}
        federation.parties["north"].ok("POST", f"/silo/jobs/{job_id}/finish", body)
        assert federation.state(job_id) == ("failed", "storage")

    def test_in_names_are_refused_or_found_nowhere(self, federation: Federation) -> None:
        admin = federation.world.admin
        job_id = federation.submit()
        for answer in (
            admin("GET", "/silos/%00"),
            admin("GET", "/models/a%00"),
            admin("GET", "/models/tiny?project=%00"),
            admin("GET", "/silos?after=%00"),
            admin("GET", f"/jobs/{job_id}/metrics?party=%00"),
            admin("POST", "/jobs", {"spec": federation.spec(model="tiny\0")}),
            admin("POST", "/models", {"name": "x", "source": "hub:owner/na\0me"}),
            admin("POST", "/silos/%00/revoke"),
            federation.world.anybody("POST", "/sign-in", {"name": "admin\0", "password": "x"}),
        ):
            assert answer.status_code in {200, 401, 404, 422}, answer.text
            if not answer.is_success:
                told(answer)


@ON_SQLITE_ALONE
class TestCharactersThatNoSystemTakes:
    @pytest.mark.parametrize("password", ["\ud800", "a\0b", "line\nfeed"])
    def test_in_a_password_are_refused(self, world: World, password: str) -> None:
        # As JSON they are sound: Python's own writer escapes them.
        body = json.dumps({"name": "admin", "password": password})
        answer = world.anybody.client.post(
            f"{API_PREFIX}/sign-in", content=body, headers={"Content-Type": "application/json"}
        )
        assert told(answer) == (422, "invalid_request")

    def test_in_a_models_source_are_refused(self, world: World) -> None:
        answer = world.admin("POST", "/models", {"name": "tiny", "source": "folder:/srv/\0"})
        assert told(answer) == (422, "invalid_request")
