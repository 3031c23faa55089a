"""Signing in: right, wrong, too often."""

from typing import Any

import pytest
from argon2 import extract_parameters

from backend.auth.passwords import Passwords, generate_password
from backend.auth.repository import find_user
from backend.auth.throttle import wait_seconds
from backend.errors import UnavailableError
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World


class TestSignIn:
    def test_gives_a_token_that_works(self, world: World) -> None:
        me = world.admin.ok("GET", "/me")
        assert (me["name"], me["organization"], me["role"]) == ("admin", "default", "admin")

    def test_wrong_password_and_unknown_name_look_the_same(self, world: World) -> None:
        wrong = world.anybody("POST", "/sign-in", {"name": "admin", "password": "guess"})
        unknown = world.anybody("POST", "/sign-in", {"name": "nobody", "password": "guess"})
        assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())
        assert wrong.json()["code"] == "wrong_credentials"
        assert wrong.headers["WWW-Authenticate"] == "Bearer"

    def test_expires(self, world: World) -> None:
        world.clock.advance(hours=world.server.settings.session_hours)
        assert world.admin.refused("GET", "/me") == (401, "not_signed_in")

    def test_sign_out_ends_the_token(self, world: World) -> None:
        world.admin.ok("POST", "/sign-out")
        assert world.admin.refused("GET", "/me") == (401, "not_signed_in")

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize("token", ["", "x", "tks_" + "x" * 43, "tkp_" + "x" * 43, "x" * 1000])
    def test_no_other_token_passes(self, world: World, token: str) -> None:
        assert world.anybody.as_(token).refused("GET", "/me") == (401, "not_signed_in")

    def test_failure_is_audited_without_the_typed_name(self, world: World) -> None:
        world.anybody("POST", "/sign-in", {"name": "my-secret-password", "password": "x"})
        world.anybody("POST", "/sign-in", {"name": "admin", "password": "x"})
        rows = world.audit()
        refused = [row for row in rows if row["outcome"] == "refused"]
        assert [(row["action"], row["subject_name"]) for row in refused] == [("sign_in", "admin")]
        assert "my-secret-password" not in str(rows)


class TestThrottle:
    def test_waits_after_too_many_failures_and_forgives_after_the_wait(self, world: World) -> None:
        wrong = {"name": "admin", "password": "guess"}
        limit = world.server.settings.sign_in_failures_per_name
        codes = [world.anybody.refused("POST", "/sign-in", wrong)[1] for _ in range(limit)]
        assert codes == ["wrong_credentials"] * limit
        right = {"name": "admin", "password": world.first.password}
        blocked = world.anybody("POST", "/sign-in", right)
        assert (blocked.status_code, blocked.json()["code"]) == (429, "sign_in_throttled")
        assert int(blocked.headers["Retry-After"]) > 0
        world.clock.advance(seconds=int(blocked.headers["Retry-After"]))
        world.anybody.ok("POST", "/sign-in", right)

    def test_an_unknown_name_waits_as_well(self, world: World) -> None:
        wrong = {"name": "nobody", "password": "guess"}
        for _ in range(world.server.settings.sign_in_failures_per_name):
            world.anybody.refused("POST", "/sign-in", wrong)
        assert world.anybody.refused("POST", "/sign-in", wrong) == (429, "sign_in_throttled")

    def test_the_audit_is_told_once_of_each_time_of_waiting(self, world: World) -> None:
        wrong = {"name": "admin", "password": "guess"}

        def throttled() -> list[dict[str, Any]]:
            return [row for row in world.audit() if row["action"] == "sign_in_throttled"]

        for _ in range(world.server.settings.sign_in_failures_per_name):
            world.anybody.refused("POST", "/sign-in", wrong)
        assert throttled() == []
        for _ in range(3):
            assert world.anybody.refused("POST", "/sign-in", wrong)[0] == 429
        [row] = throttled()
        assert (row["subject_name"], row["outcome"], row["details"]) == (
            "admin",
            "refused",
            {"wait_seconds": 31},
        )
        world.clock.advance(seconds=31)
        assert world.anybody.refused("POST", "/sign-in", wrong)[0] == 401
        assert world.anybody.refused("POST", "/sign-in", wrong)[0] == 429
        assert len(throttled()) == 2

    @ON_SQLITE_ALONE
    def test_an_address_that_tries_many_names_waits(self, world: World) -> None:
        for number in range(world.server.settings.sign_in_failures_per_address):
            world.anybody.refused("POST", "/sign-in", {"name": f"name-{number}", "password": "x"})
        assert world.anybody.refused("POST", "/sign-in", {"name": "other", "password": "x"})[0] == 429

    @ON_SQLITE_ALONE
    def test_a_right_password_forgets_earlier_failures(self, world: World) -> None:
        wrong = {"name": "admin", "password": "guess"}
        limit = world.server.settings.sign_in_failures_per_name
        for _ in range(3):
            for _ in range(limit - 1):
                world.anybody.refused("POST", "/sign-in", wrong)
            world.sign_in("admin", world.first.password)

    @ON_SQLITE_ALONE
    def test_changing_the_password_is_throttled_too(self, world: World) -> None:
        body = {"current": "guess", "new": "a-new-password"}
        limit = world.server.settings.sign_in_failures_per_name
        codes = [world.admin.refused("POST", "/me/password", body)[1] for _ in range(limit + 1)]
        assert codes == ["wrong_credentials"] * limit + ["sign_in_throttled"]

    @pytest.mark.parametrize(("failures", "seconds"), [(4, 0), (5, 30), (6, 60), (7, 120), (50, 900)])
    def test_wait_doubles_up_to_the_window(self, failures: int, seconds: int) -> None:
        assert wait_seconds(failures, limit=5, window_seconds=900) == seconds


class TestPassword:
    def test_change_ends_all_sign_ins(self, world: World) -> None:
        other = world.sign_in("admin", world.first.password)
        body = {"current": world.first.password, "new": "a-much-better-password"}
        world.admin.ok("POST", "/me/password", body)
        assert other.refused("GET", "/me")[0] == world.admin.refused("GET", "/me")[0] == 401
        world.sign_in("admin", "a-much-better-password")

    @ON_SQLITE_ALONE
    def test_short_ones_are_refused(self, world: World) -> None:
        body = {"current": world.first.password, "new": "short"}
        assert world.admin.refused("POST", "/me/password", body) == (422, "invalid_request")

    def test_is_stored_as_argon2id_only(self, world: World) -> None:
        with world.server.database.read() as session:
            user = find_user(session, "admin")
        assert user is not None
        assert user.password_hash.startswith("$argon2id$")
        assert world.first.password not in user.password_hash


class TestPasswords:
    def test_hashes_for_nobody_at_the_same_cost(self) -> None:
        # While the only slot is taken, an answer that came without hashing would not have to wait.
        passwords = Passwords(memory_kib=64, passes=1, lanes=1, concurrency=1, patience_seconds=0.01)
        stored = passwords.hash("right")
        assert extract_parameters(passwords._nobody) == extract_parameters(stored)
        with passwords._slot():
            for candidate in (stored, None):
                with pytest.raises(UnavailableError):
                    passwords.verify("right", candidate)

    def test_tells_right_from_wrong_and_from_nobody(self) -> None:
        passwords = Passwords(memory_kib=64, passes=1, lanes=1, concurrency=1)
        stored = passwords.hash("right")
        answers = [passwords.verify("right", stored), passwords.verify("wrong", stored)]
        assert answers == [True, False]
        assert not passwords.verify("right", None)

    def test_generated_ones_differ_and_can_be_read_out(self) -> None:
        generated = {generate_password() for _ in range(100)}
        assert len(generated) == 100
        assert all(len(text) == 29 and not set(text) & set("01ilo") for text in generated)
