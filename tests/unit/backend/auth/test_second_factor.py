"""Second factors: got, asked for, used up, lost; and nothing that tells a guesser anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyotp import TOTP
from sqlalchemy import event

from backend.auth.codes import (
    enrolment_uri,
    matching_step,
    new_recovery_codes,
    plain_code,
    recovery_digest,
    secret_text,
)
from backend.auth.passwords import Passwords
from backend.db import Database
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Api, World

RFC_6238 = ((59, "94287082"), (1111111109, "07081804"), (1234567890, "89005924"), (20000000000, "65353130"))
"""Appendix B, SHA-1; a code of six digits is the end of one of eight."""
RFC_SECRET = b"12345678901234567890"


@dataclass
class Device:
    """Shows codes, as a telephone does."""

    secret: str
    world: World

    def code(self, *, steps: int = 0) -> str:
        return TOTP(self.secret).at(self.world.clock() + timedelta(seconds=30 * steps))


@dataclass
class Rosa:
    """A user with a second factor."""

    world: World
    password: str
    device: Device
    recovery_codes: list[str]
    api: Api

    def body(self, code: str | None, **changes: Any) -> dict[str, Any]:
        return {"name": "rosa", "password": self.password, "code": code, **changes}

    def sign_in(self, code: str | None) -> Api:
        token = self.world.anybody.ok("POST", "/sign-in", self.body(code))["token"]
        return self.world.anybody.as_(token)

    def refused(self, code: str | None, **changes: Any) -> tuple[int, str]:
        return self.world.anybody.refused("POST", "/sign-in", self.body(code, **changes))


def add_factor(world: World, api: Api, password: str) -> tuple[Device, list[str]]:
    begun = api.ok("POST", "/me/second-factor", {"password": password})
    device = Device(begun["secret"], world)
    answer = api.ok("POST", "/me/second-factor/confirm", {"code": device.code()})
    world.clock.advance(seconds=60)
    return device, answer["recovery_codes"]


@pytest.fixture
def rosa(world: World) -> Rosa:
    password = world.admin.ok("POST", "/users", {"name": "rosa", "role": "researcher"})["password"]
    api = world.sign_in("rosa", password)
    device, codes = add_factor(world, api, password)
    return Rosa(world, password, device, codes, api)


class TestCodes:
    @pytest.mark.parametrize(("seconds", "code"), RFC_6238)
    def test_are_those_of_the_standard(self, seconds: int, code: str) -> None:
        now = datetime.fromtimestamp(seconds, tz=UTC)
        assert matching_step(RFC_SECRET, code[-6:], after=0, now=now) == seconds // 30

    @pytest.mark.parametrize(
        ("steps", "is_taken"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
    )
    def test_are_taken_one_step_around_the_clock(self, steps: int, is_taken: bool) -> None:  # noqa: FBT001
        code = TOTP(secret_text(RFC_SECRET)).at(1000 + 30 * steps)
        now = datetime.fromtimestamp(1000, tz=UTC)
        assert (matching_step(RFC_SECRET, code, after=0, now=now) is not None) is is_taken

    def test_are_read_as_people_type_them(self) -> None:
        assert plain_code(" 123 456\n") == "123456"
        assert recovery_digest("ABCDE fghjk-mnpqr") == recovery_digest("abcde-fghjk-mnpqr")

    def test_for_recovery_differ(self) -> None:
        codes = {code for _ in range(20) for code in new_recovery_codes()}
        assert len(codes) == 200
        assert all(len(code) == 17 for code in codes)

    def test_secret_is_shown_as_devices_read_it(self) -> None:
        uri = enrolment_uri(RFC_SECRET, user="rosa", issuer="Trunkline")
        assert uri.startswith("otpauth://totp/Trunkline:rosa?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")


class TestSignIn:
    def test_needs_a_code_from_the_confirmation_on(self, rosa: Rosa) -> None:
        assert rosa.refused(None) == (401, "wrong_credentials")
        assert rosa.sign_in(rosa.device.code()).ok("GET", "/me")["second_factor"] == "on"

    def test_needs_none_while_the_factor_is_only_begun(self, world: World) -> None:
        world.admin.ok("POST", "/me/second-factor", {"password": world.first.password})
        assert world.sign_in("admin", world.first.password).ok("GET", "/me")["second_factor"] == "off"

    def test_takes_no_code_twice_nor_an_older_one(self, rosa: Rosa) -> None:
        code, older = rosa.device.code(), rosa.device.code(steps=-1)
        rosa.sign_in(code)
        assert rosa.refused(code) == rosa.refused(older) == (401, "wrong_credentials")
        rosa.sign_in(rosa.device.code(steps=1))

    def test_with_a_wrong_password_uses_no_code_up(self, rosa: Rosa) -> None:
        code = rosa.device.code()
        assert rosa.refused(code, password="wrong") == (401, "wrong_credentials")
        assert rosa.refused(rosa.recovery_codes[0], password="wrong") == (401, "wrong_credentials")
        rosa.sign_in(code)
        rosa.sign_in(rosa.recovery_codes[0])

    def test_takes_a_recovery_code_once(self, rosa: Rosa) -> None:
        code = rosa.recovery_codes[3]
        rosa.sign_in(code.upper())
        assert rosa.refused(code) == (401, "wrong_credentials")
        rosa.sign_in(rosa.recovery_codes[4])

    def test_takes_nobody_elses_recovery_code(self, rosa: Rosa) -> None:
        _, codes = add_factor(rosa.world, rosa.world.admin, rosa.world.first.password)
        assert rosa.refused(codes[0]) == (401, "wrong_credentials")

    @ON_SQLITE_ALONE
    def test_codes_are_stored_as_digests_only(self, rosa: Rosa) -> None:
        with rosa.world.server.database.read() as session:
            stored = bytes(session.connection().connection.serialize())
        for code in rosa.recovery_codes:
            assert code.encode() not in stored
            assert plain_code(code).encode() not in stored

    @ON_SQLITE_ALONE
    def test_wrong_codes_are_throttled_like_passwords(self, rosa: Rosa) -> None:
        limit = rosa.world.server.settings.sign_in_failures_per_name
        codes = [rosa.refused("000000")[1] for _ in range(limit + 1)]
        assert codes == ["wrong_credentials"] * limit + ["sign_in_throttled"]
        assert rosa.refused(rosa.device.code()) == (429, "sign_in_throttled")

    def test_is_audited_with_what_was_shown(self, rosa: Rosa) -> None:
        rosa.sign_in(rosa.device.code())
        rosa.sign_in(rosa.recovery_codes[0])
        rosa.refused("000000")
        rows = [row for row in rosa.world.audit() if row["action"] == "sign_in"][:3]
        assert [(row["outcome"], row["details"].get("second_factor")) for row in rows] == [
            ("refused", None),
            ("done", "recovery_code"),
            ("done", "code"),
        ]


class TestOracle:
    """A wrong password, a wrong code, a lacking code and an unknown name cannot be told from each other."""

    GUESSES = (
        {"name": "rosa", "password": "wrong", "code": "000000"},
        {"name": "rosa", "password": "wrong", "code": None},
        {"name": "rosa", "password": "{right}", "code": "000000"},
        {"name": "rosa", "password": "{right}", "code": None},
        {"name": "nobody", "password": "wrong", "code": "000000"},
        {"name": "admin", "password": "wrong", "code": "000000"},
    )

    def answers(self, rosa: Rosa) -> Iterator[dict[str, Any]]:
        for guess in self.GUESSES:
            password = str(guess["password"]).replace("{right}", rosa.password)
            yield {**guess, "password": password}

    def test_by_its_text(self, rosa: Rosa) -> None:
        found = set()
        for body in self.answers(rosa):
            answer = rosa.world.anybody("POST", "/sign-in", body)
            headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
            found.add((answer.status_code, answer.text, str(sorted(headers.items()))))
        assert len(found) == 1

    @ON_SQLITE_ALONE
    def test_by_its_time(self, rosa: Rosa, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same work is done for each: as many hashes, and the same questions to the database."""
        verified: list[str | None] = []
        verify = Passwords.verify

        def counted(self: Passwords, password: str, stored: str | None) -> bool:
            verified.append(stored)
            return verify(self, password, stored)

        monkeypatch.setattr(Passwords, "verify", counted)
        asked = []
        for body in self.answers(rosa):
            verified.clear()
            rosa.world.clock.advance(seconds=1)  # each row has a moment of its own
            with statements_of(rosa.world.server.database) as statements:
                rosa.world.anybody("POST", "/sign-in", body)
            assert len(verified) == 1
            asked.append([text for text in statements if "sign_in_attempts" not in text])
        for statements in asked[1:]:
            assert statements == asked[0]
        assert any("second_factors" in text for text in asked[0])


@contextmanager
def statements_of(database: Database) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)


class TestChanging:
    def test_needs_the_password_and_a_right_code(self, world: World) -> None:
        route = "/me/second-factor"
        assert world.admin.refused("POST", route, {"password": "wrong"}) == (401, "wrong_credentials")
        assert world.admin.refused("POST", f"{route}/confirm", {"code": "1"}) == (409, "second_factor_off")
        begun = world.admin.ok("POST", route, {"password": world.first.password})
        assert world.admin.refused("POST", f"{route}/confirm", {"code": "1"}) == (401, "wrong_credentials")
        codes = world.admin.ok("POST", f"{route}/confirm", {"code": Device(begun["secret"], world).code()})
        assert len(codes["recovery_codes"]) == 10

    def test_is_not_begun_while_there_is_one(self, rosa: Rosa) -> None:
        body = {"password": rosa.password}
        assert rosa.api.refused("POST", "/me/second-factor", body) == (409, "second_factor_on")
        code = {"code": rosa.device.code()}
        assert rosa.api.refused("POST", "/me/second-factor/confirm", code) == (409, "second_factor_on")

    def test_removes_it_by_a_code(self, rosa: Rosa) -> None:
        route = "/me/second-factor/remove"
        assert rosa.api.refused("POST", route, {"code": "000000"}) == (401, "wrong_credentials")
        rosa.api.ok("POST", route, {"code": rosa.device.code()})
        assert rosa.sign_in(None).ok("GET", "/me")["second_factor"] == "off"
        assert rosa.api.refused("POST", route, {"code": rosa.device.code()}) == (409, "second_factor_off")

    def test_renews_recovery_codes(self, rosa: Rosa) -> None:
        answer = rosa.api.ok("POST", "/me/second-factor/recovery-codes", {"code": rosa.device.code()})
        assert rosa.refused(rosa.recovery_codes[0]) == (401, "wrong_credentials")
        rosa.sign_in(answer["recovery_codes"][0])

    @ON_SQLITE_ALONE
    def test_is_closed_to_api_tokens(self, world: World) -> None:
        token = world.anybody.as_(world.admin.ok("POST", "/tokens", {"name": "script"})["token"])
        route = "/me/second-factor"
        assert token.refused("POST", route, {"password": world.first.password}) == (403, "forbidden")
        for word in ("confirm", "recovery-codes", "remove"):
            assert token.refused("POST", f"{route}/{word}", {"code": "000000"}) == (403, "forbidden")

    @ON_SQLITE_ALONE
    def test_by_wrong_codes_is_throttled(self, rosa: Rosa) -> None:
        limit = rosa.world.server.settings.sign_in_failures_per_name
        route = "/me/second-factor/remove"
        codes = [rosa.api.refused("POST", route, {"code": "000000"})[1] for _ in range(limit + 1)]
        assert codes == ["wrong_credentials"] * limit + ["sign_in_throttled"]

    def test_by_an_admin_ends_sign_ins_and_is_audited(self, rosa: Rosa) -> None:
        admin = rosa.world.admin
        admin.ok("DELETE", "/users/rosa/second-factor")
        assert rosa.api.refused("GET", "/me") == (401, "not_signed_in")
        rosa.sign_in(None)
        assert admin.refused("DELETE", "/users/rosa/second-factor") == (404, "not_found")
        row = next(row for row in rosa.world.audit() if row["action"] == "reset_second_factor")
        assert (row["actor_name"], row["subject_name"]) == ("admin", "rosa")


class TestDemand:
    def test_counts_from_the_next_request_on_until_there_is_one(self, world: World) -> None:
        password = world.admin.ok("POST", "/users", {"name": "rosa", "role": "admin"})["password"]
        rosa, otto = world.sign_in("rosa", password), world.user("otto", "researcher")
        add_factor(world, world.admin, world.first.password)
        world.admin.ok("PATCH", "/organization", {"second_factor": "admins"})
        assert rosa.refused("GET", "/users") == (403, "second_factor_demanded")
        assert rosa.ok("GET", "/me")["second_factor"] == "demanded"
        assert rosa.ok("GET", "/me")["permissions"] == []
        otto.ok("GET", "/users")
        add_factor(world, rosa, password)
        rosa.ok("GET", "/users")

    def test_is_told_at_the_sign_in(self, world: World) -> None:
        add_factor(world, world.admin, world.first.password)
        world.admin.ok("PATCH", "/organization", {"second_factor": "everybody"})
        password = world.admin.ok("POST", "/users", {"name": "rosa", "role": "auditor"})["password"]
        answer = world.anybody.ok("POST", "/sign-in", {"name": "rosa", "password": password})
        assert answer["second_factor"] == "demanded"
        assert world.anybody.as_(answer["token"]).refused("GET", "/audit")[1] == "second_factor_demanded"

    def test_shuts_nobody_out_by_their_own_word(self, world: World) -> None:
        body = {"second_factor": "admins"}
        assert world.admin.refused("PATCH", "/organization", body) == (409, "second_factor_off")
        world.admin.ok("PATCH", "/organization", {"second_factor": "optional"})
        row = world.audit()[0]
        assert (row["action"], row["details"]) == ("demand_second_factor", {"of": "optional"})
