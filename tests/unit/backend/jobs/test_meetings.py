"""Several gateways: both parties of a conversation are told the same one, and a silent one is passed over."""

import threading
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from backend.settings import Settings
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World
from tests.unit.backend.jobs.conftest import OTHER_ATTEMPT, Federation

TOKEN = "t" * 32
GATEWAYS = ("ws://one.example/relay", "ws://two.example/relay", "ws://three.example/relay")


@pytest.fixture
def world(world: World) -> World:
    """With three gateways."""
    several = {"gateway_url": ",".join(GATEWAYS), "standings_token": SecretStr(TOKEN)}
    object.__setattr__(world.server, "settings", world.server.settings.model_copy(update=several))
    return world


def told(federation: Federation, party: str, job_id: str, **changes: Any) -> str:
    body = {"job": job_id, "replica": 0, "epoch": 1, "silo": "north", **changes}
    url = federation.parties[party].ok("POST", "/tickets", body)["gateway_url"]
    assert url in GATEWAYS
    return str(url)


def sign(federation: Federation, *urls: str) -> None:
    for url in urls:
        federation.world.anybody.as_(TOKEN).ok("POST", "/standings", {"seats": [], "gateway": url})


def pass_over(federation: Federation, url: str) -> None:
    """All have named themselves; then this one is silent for too long."""
    sign(federation, *GATEWAYS)
    federation.clock.advance(seconds=federation.world.server.settings.gateway_silence_seconds + 1)
    sign(federation, *(each for each in GATEWAYS if each != url))


class TestMeeting:
    def test_both_parties_are_told_the_same_gateway(self, federation: Federation) -> None:
        job_id = federation.running()
        assert told(federation, "north", job_id) == told(federation, "worker", job_id)

    def test_stays_where_it_is_as_long_as_that_gateway_is_there(self, federation: Federation) -> None:
        job_id = federation.running()
        before = told(federation, "north", job_id)
        pass_over(federation, next(url for url in GATEWAYS if url != before))
        assert told(federation, "worker", job_id) == before

    def test_moves_for_both_when_its_gateway_is_silent(self, federation: Federation) -> None:
        job_id = federation.running()
        dead = told(federation, "north", job_id)
        pass_over(federation, dead)
        after = told(federation, "worker", job_id)
        assert after != dead
        assert told(federation, "north", job_id) == after

    def test_does_not_go_back_when_that_gateway_returns_between_two_tickets(
        self, federation: Federation
    ) -> None:
        job_id = federation.running()
        dead = told(federation, "north", job_id)
        pass_over(federation, dead)
        after = told(federation, "worker", job_id)
        sign(federation, *GATEWAYS)
        assert told(federation, "north", job_id) == after

    def test_when_all_are_silent_nothing_moves(self, federation: Federation) -> None:
        job_id = federation.running()
        before = told(federation, "north", job_id)
        sign(federation, *GATEWAYS)
        federation.clock.advance(seconds=60)
        assert told(federation, "worker", job_id) == before

    def test_is_arranged_anew_for_a_new_epoch(self, federation: Federation) -> None:
        job_id = federation.running()
        told(federation, "north", job_id)
        federation.attach(job_id, "north", OTHER_ATTEMPT)
        after = told(federation, "north", job_id, epoch=2)
        assert told(federation, "worker", job_id, epoch=2) == after

    def test_asked_for_at_once_is_the_same(self, federation: Federation) -> None:
        job_id = federation.running()
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda party=party: answers.append(told(federation, party, job_id)))
            for party in ("north", "worker") * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 8
        assert len(set(answers)) == 1

    @ON_SQLITE_ALONE
    def test_a_gateway_that_nobody_is_told_of_is_not_written_down(self, federation: Federation) -> None:
        job_id = federation.running()
        before = told(federation, "north", job_id)
        sign(federation, "ws://four.example/relay")
        assert told(federation, "worker", job_id) == before


class TestSetting:
    def test_takes_several(self) -> None:
        settings = Settings(gateway_url="ws://one/relay, wss://two/relay")
        assert settings.gateway_urls == ("ws://one/relay", "wss://two/relay")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("", "is not ws"),
            ("ws://one/relay,", "is not ws"),
            ("http://one/relay", "is not ws"),
            ("ws://one/relay,ws://one/relay", "twice"),
            (f"ws://{'x' * 255}/relay", "at most 255"),
        ],
    )
    def test_refuses_what_is_no_list_of_gateways(self, value: str, reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            Settings(gateway_url=value)
