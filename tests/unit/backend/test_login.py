"""Log-in of agents and workers: nonces, sessions, and two processes with one identity."""

import secrets
from typing import Any

import pytest
from sqlalchemy import select

from backend.db.models import UsedNonce
from splitlearn.identity import CertificateKind, SigningKey
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World


class TestLogin:
    @pytest.mark.parametrize("kind", ["silo", "worker"])
    def test_gives_a_session(self, world: World, kind: str) -> None:
        answer = world.enrolled("north", kind).log_in()
        session = world.anybody.as_(answer["token"]).ok("POST", "/session/heartbeat")
        assert (session["kind"], session["name"], session["epoch"]) == (kind, "north", 1)

    def test_waits_for_nobody_who_forgets_the_same_nonces(self, world: World) -> None:
        north, south = world.enrolled("north"), world.enrolled("south")
        north.log_in()
        world.clock.advance(seconds=2 * world.server.settings.login_nonce_seconds)
        database = world.server.database
        if database.engine.dialect.name != "postgresql":
            pytest.skip("SQLite has one writer at a time")
        with database.write() as other:
            other.execute(select(UsedNonce).with_for_update()).all()
            assert south.log_in()["epoch"] == 1

    def test_session_expires(self, world: World) -> None:
        session = world.anybody.as_(world.enrolled().log_in()["token"])
        world.clock.advance(seconds=world.server.settings.party_session_seconds)
        assert session.refused("POST", "/session/heartbeat") == (401, "session_ended")

    def test_log_out_ends_the_session(self, world: World) -> None:
        session = world.anybody.as_(world.enrolled().log_in()["token"])
        session.ok("DELETE", "/session")
        assert session.refused("POST", "/session/heartbeat") == (401, "session_ended")

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize(
        "changes",
        [
            {"audience": "https://other.example"},
            {"name": "south"},
            {"kind": CertificateKind.WORKER},
        ],
    )
    def test_statement_about_something_else_is_refused(self, world: World, changes: dict[str, Any]) -> None:
        body = world.enrolled().login(**changes)
        assert world.anybody.refused("POST", "/login", body) == (401, "login_refused")

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize("field", ["boot_id", "previous_boot_id"])
    def test_boot_ids_are_signed(self, world: World, field: str) -> None:
        body = {**world.enrolled().login(), field: secrets.token_hex(16)}
        assert world.anybody.refused("POST", "/login", body) == (401, "login_refused")

    def test_unknown_name_and_wrong_key_look_the_same(self, world: World) -> None:
        program = world.enrolled()
        unknown = program.login(name="south")
        program.key = SigningKey.generate()
        wrong = program.login()
        answers = [world.anybody("POST", "/login", body).json() for body in (unknown, wrong)]
        assert answers[0]["code"] == answers[1]["code"] == "login_refused"
        assert answers[0]["message"].replace("south", "north") == answers[1]["message"]

    def test_expired_certificate_is_refused(self, world: World) -> None:
        program = world.enrolled()
        world.clock.advance(days=world.server.settings.certificate_days + 1)
        program.log_in()  # 48 hours of tolerance for wrong clocks
        world.clock.advance(days=2)
        assert world.anybody.refused("POST", "/login", program.login()) == (403, "certificate_expired")


class TestNonce:
    def test_is_used_once(self, world: World) -> None:
        body = world.enrolled().login()
        world.anybody.ok("POST", "/login", body)
        assert world.anybody.refused("POST", "/login", body) == (401, "nonce_refused")

    def test_grows_old(self, world: World) -> None:
        body = world.enrolled().login()
        world.clock.advance(seconds=world.server.settings.login_nonce_seconds + 1)
        assert world.anybody.refused("POST", "/login", body) == (401, "nonce_refused")

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize("nonce", ["x", "A" * 75, "ü", "A" * 76])
    def test_of_nobody_is_refused(self, world: World, nonce: str) -> None:
        body = world.enrolled().login(nonce=nonce)
        assert world.anybody.refused("POST", "/login", body) == (401, "nonce_refused")

    def test_is_spent_only_by_a_right_signature(self, world: World) -> None:
        body = world.enrolled().login()
        wrong = {**body, "boot_id": secrets.token_hex(16)}
        world.anybody.refused("POST", "/login", wrong)
        world.anybody.ok("POST", "/login", body)


class TestTwoProcesses:
    def test_copy_without_the_state_folder_is_refused_named_and_audited(self, world: World) -> None:
        program = world.enrolled()
        session = world.anybody.as_(program.log_in()["token"])
        copy = program.copied()
        answer = world.anybody("POST", "/login", copy.login())
        assert (answer.status_code, answer.json()["code"]) == (409, "identity_in_use")
        assert program.boot_id[:8] in answer.json()["message"]
        row = world.audit()[0]
        assert (row["action"], row["outcome"], row["subject_name"]) == ("log_in", "refused", "north")
        assert (row["details"]["boot"], row["details"]["boot_before"]) == (
            copy.boot_id[:8],
            program.boot_id[:8],
        )
        assert program.boot_id not in str(world.audit()) + answer.text
        session.ok("POST", "/session/heartbeat")

    def test_restarted_process_takes_over_at_once(self, world: World) -> None:
        program = world.enrolled()
        first = program.log_in()
        old_session = world.anybody.as_(first["token"])
        second = program.restarted().log_in()
        assert second["epoch"] == first["epoch"] + 1
        answer = old_session("POST", "/session/heartbeat")
        assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
        assert "superseded" in answer.json()["message"]
        world.anybody.as_(second["token"]).ok("POST", "/session/heartbeat")

    def test_superseded_process_does_not_get_back(self, world: World) -> None:
        program = world.enrolled()
        program.log_in()
        program.restarted().log_in()
        assert world.anybody.refused("POST", "/login", program.login()) == (409, "identity_in_use")

    def test_same_process_renews_in_its_epoch_without_an_audit_row(self, world: World) -> None:
        program = world.enrolled()
        first = program.log_in()
        rows = len(world.audit())
        assert program.log_in()["epoch"] == first["epoch"]
        assert len(world.audit()) == rows
        world.anybody.as_(first["token"]).ok("POST", "/session/heartbeat")

    def test_silent_process_is_replaced(self, world: World) -> None:
        program = world.enrolled()
        first = program.log_in()
        world.clock.advance(seconds=world.server.settings.party_silence_seconds)
        assert program.copied().log_in()["epoch"] == first["epoch"] + 1
        old_session = world.anybody.as_(first["token"])
        assert old_session.refused("POST", "/session/heartbeat") == (401, "session_ended")

    def test_heartbeat_keeps_others_out(self, world: World) -> None:
        program = world.enrolled()
        session = world.anybody.as_(program.log_in()["token"])
        for _ in range(4):
            world.clock.advance(seconds=world.server.settings.party_silence_seconds - 1)
            session.ok("POST", "/session/heartbeat")
        assert world.anybody.refused("POST", "/login", program.copied().login()) == (409, "identity_in_use")

    def test_logged_out_process_does_not_keep_others_out(self, world: World) -> None:
        program = world.enrolled()
        world.anybody.as_(program.log_in()["token"]).ok("DELETE", "/session")
        program.copied().log_in()

    def test_late_words_of_the_one_before_change_nothing(self, world: World) -> None:
        """A proxy may deliver them after the next process has logged in (vantage6 #107)."""
        program = world.enrolled()
        before = world.anybody.as_(program.log_in()["token"])
        after = world.anybody.as_(program.restarted().log_in()["token"])
        for method, path in (("DELETE", "/session"), ("POST", "/session/heartbeat")):
            assert before.refused(method, path) == (401, "session_ended")
        assert after.ok("POST", "/session/heartbeat")["epoch"] == 2
        assert world.anybody.refused("POST", "/login", program.copied().login()) == (409, "identity_in_use")
