"""What is revoked ends within five seconds, also an answer that is under way."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from backend.app_prefix import API_PREFIX
from backend.artifacts import admission
from backend.artifacts.admission import Admission
from backend.auth.callers import find_caller
from backend.errors import NotSignedInError
from tests.unit.backend.auth.test_second_factor import add_factor
from tests.unit.backend.cli.conftest import Listening
from tests.unit.backend.conftest import Api, World

LIMIT_SECONDS = 5.0


def disable(world: World, _rosa: Api) -> None:
    world.admin.ok("PATCH", "/users/rosa", {"disabled": True})


def sign_out(_world: World, rosa: Api) -> None:
    rosa.ok("POST", "/sign-out")


def reset_password(world: World, _rosa: Api) -> None:
    world.admin.ok("POST", "/users/rosa/password")


def expire(world: World, _rosa: Api) -> None:
    world.clock.advance(days=400)


def demand_a_factor(world: World, _rosa: Api) -> None:
    add_factor(world, world.admin, world.first.password)
    world.admin.ok("PATCH", "/organization", {"second_factor": "everybody"})


@pytest.fixture
def streams(world: World, listening: Listening) -> Iterator[World]:
    listening.serve(world.server)
    yield world
    world.server.bus.close()


class TestStreams:
    @pytest.mark.parametrize("shut_out", [disable, sign_out, reset_password, expire, demand_a_factor])
    def test_end_and_show_no_more(
        self, streams: World, listening: Listening, shut_out: Callable[[World, Api], None]
    ) -> None:
        rosa = streams.user("rosa", "researcher")
        begun = threading.Event()
        seen: list[str] = []
        ended_at: list[float] = []

        def read() -> None:
            headers = {"Authorization": f"Bearer {rosa.token}"}
            url = f"{listening.url}{API_PREFIX}/events"
            with httpx2.stream("GET", url, headers=headers, timeout=30, trust_env=False) as response:
                for line in response.iter_lines():
                    seen.append(line)
                    begun.set()
            ended_at.append(time.monotonic())

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(10)
        shut_out(streams, rosa)
        shut_out_at = time.monotonic()
        reader.join(timeout=20)
        assert ended_at, "the stream outlived its reader's token"
        assert ended_at[0] - shut_out_at < LIMIT_SECONDS
        assert not [line for line in seen if line.startswith("data")]


class TestOfApiTokens:
    def test_streams_end_and_the_owners_own_go_on(self, streams: World, listening: Listening) -> None:
        rosa = streams.user("rosa", "researcher")
        made = rosa.ok("POST", "/tokens", {"name": "script"})
        url = f"{listening.url}{API_PREFIX}/events"
        begun, ended = threading.Event(), threading.Event()

        def read() -> None:
            headers = {"Authorization": f"Bearer {made['token']}"}
            with httpx2.stream("GET", url, headers=headers, timeout=30, trust_env=False) as response:
                for _ in response.iter_lines():
                    begun.set()
            ended.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(10)
        rosa.ok("DELETE", f"/tokens/{made['id']}")
        assert ended.wait(LIMIT_SECONDS)
        reader.join()
        rosa.ok("GET", "/me")


class TestTransfers:
    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admission, "_LOOK_SECONDS", 0.0)

    def guarded(self, world: World, api: Api) -> Iterator[bytes]:
        credentials: Any = type("Credentials", (), {"credentials": api.token})()
        request: Any = type("Request", (), {"client": None})()
        caller = find_caller(request, world.server, credentials)
        return Admission(world.server, caller).guard(iter([b"first", b"second"]))

    def test_of_users_break_off(self, world: World) -> None:
        rosa = world.user("rosa", "researcher")
        chunks = self.guarded(world, rosa)
        assert next(chunks) == b"first"
        disable(world, rosa)
        with pytest.raises(NotSignedInError):
            next(chunks)

    @pytest.mark.parametrize("kind", ["silo", "worker"])
    def test_of_parties_break_off(self, world: World, kind: str) -> None:
        party = world.anybody.as_(world.enrolled("north", kind).log_in()["token"])
        chunks = self.guarded(world, party)
        assert next(chunks) == b"first"
        world.admin.ok("POST", f"/{kind}s/north/revoke")
        with pytest.raises(NotSignedInError):
            next(chunks)

    def test_of_a_party_whose_token_was_renewed_go_on(self, world: World) -> None:
        program = world.enrolled("north")
        chunks = self.guarded(world, world.anybody.as_(program.log_in()["token"]))
        world.clock.advance(seconds=world.server.settings.party_session_seconds - 1)
        program.log_in()
        world.clock.advance(seconds=2)
        assert list(chunks) == [b"first", b"second"]


class TestAtOnce:
    def test_a_silos_session_ends_with_its_revocation_and_no_other(self, world: World) -> None:
        north, south = (
            world.anybody.as_(world.enrolled(name).log_in()["token"]) for name in ("north", "south")
        )
        world.admin.ok("POST", "/silos/north/revoke")
        assert north.refused("POST", "/session/heartbeat")[0] == 401
        south.ok("POST", "/session/heartbeat")

    def test_a_project_role_counts_from_the_next_request_on(self, world: World) -> None:
        otto = world.user("otto", "auditor")
        world.admin.ok("PUT", "/projects/default/members/otto", {"role": "admin"})
        body = {"name": "another", "source": "hub:owner/name"}
        otto.ok("POST", "/models", body)
        world.admin.ok("DELETE", "/projects/default/members/otto")
        assert otto.refused("DELETE", "/models/another") == (403, "forbidden")
