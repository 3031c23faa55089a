"""Tickets for the gateway, and which seats it learns to close."""

import secrets
from typing import Any

import pytest
from pydantic import SecretStr

from backend.app_prefix import API_PREFIX
from backend.federation.service import federation_of
from backend.federation.signer import ticket_key
from backend.gateway import KeyVerifier, Role, Standing
from backend.gateway.standings import Standings
from backend.gateway.tickets import Ticket
from splitlearn.link import CloseReason
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World
from tests.unit.backend.jobs.conftest import OTHER_ATTEMPT, Federation

GATEWAYS = "t" * 32


@pytest.fixture
def world(world: World) -> World:
    """With a token for the gateway."""
    settings = world.server.settings.model_copy(update={"standings_token": SecretStr(GATEWAYS)})
    object.__setattr__(world.server, "settings", settings)
    return world


def ask_for_ticket(federation: Federation, party: str, job_id: str, **changes: Any) -> Any:
    body = {"job": job_id, "replica": 0, "epoch": 1, "silo": "north", **changes}
    return federation.parties[party]("POST", "/tickets", body)


def ticket(federation: Federation, party: str, job_id: str, **changes: Any) -> Ticket:
    """A ticket as the gateway reads it."""
    answer = ask_for_ticket(federation, party, job_id, **changes)
    assert answer.is_success, answer.text
    with federation.world.server.database.read() as session:
        verifier = KeyVerifier(ticket_key(federation_of(session)).public_key)
    return verifier.verify(answer.json()["ticket"], now=federation.clock())


def standing(federation: Federation, given: Ticket) -> Standing | None:
    """What the gateway is answered about one seat."""
    seat = given.seat
    asked = {
        "job": seat.job,
        "replica": seat.replica,
        "role": seat.role.name.lower(),
        "party": seat.party,
    }
    answer = federation.world.anybody.as_(GATEWAYS).ok("POST", "/standings", {"seats": [asked]})
    if not answer["standings"]:
        return None
    [told] = answer["standings"]
    assert {name: told[name] for name in asked} == asked
    return Standing(seat, told["epoch"], is_revoked=told["revoked"])


def objection(federation: Federation, given: Ticket) -> CloseReason | None:
    """Why the gateway closes the connection that was opened by a ticket, or None."""
    known = Standings()
    known.learn_from(given)
    told = standing(federation, given)
    if told is not None:
        known.learn(told)
    return known.objection(given)


class TestTicket:
    def test_is_for_ones_own_side(self, federation: Federation) -> None:
        job_id = federation.running()
        silos, workers = ticket(federation, "north", job_id), ticket(federation, "worker", job_id)
        assert (silos.role, workers.role) == (Role.SILO, Role.WORKER)
        assert silos.conversation == workers.conversation
        assert (silos.conversation.job, silos.conversation.worker) == (job_id, "worker")

    @ON_SQLITE_ALONE
    def test_is_good_for_a_minute(self, federation: Federation) -> None:
        given = ticket(federation, "north", federation.running())
        seconds = (given.expires_at - federation.clock()).total_seconds()
        assert seconds == federation.world.server.settings.ticket_seconds

    @ON_SQLITE_ALONE
    def test_is_refused_with_a_reason(self, federation: Federation) -> None:
        job_id = federation.running()
        unknown = "00000000-0000-0000-0000-000000000000"
        federation.parties["other"] = federation.another_worker("gpu-2")
        for party, changes, expected in (
            ("south", {}, (404, "not_found")),  # another silo's conversation
            ("other", {}, (404, "not_found")),  # another worker's
            ("north", {"job": unknown}, (404, "not_found")),
            ("north", {"replica": 1}, (404, "not_found")),
            ("worker", {"silo": "west"}, (404, "not_found")),
            ("north", {"epoch": 2}, (409, "lease_lost")),
            ("north", {"epoch": 0}, (422, "invalid_request")),
            ("north", {"job": "x"}, (422, "invalid_request")),
        ):
            answer = ask_for_ticket(federation, party, job_id, **changes)
            assert (answer.status_code, answer.json()["code"]) == expected, (party, changes)

    @ON_SQLITE_ALONE
    def test_is_not_for_a_job_that_is_over(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        for party in ("north", "worker"):
            answer = ask_for_ticket(federation, party, job_id)
            assert (answer.status_code, answer.json()["code"]) == (409, "lease_lost")

    @ON_SQLITE_ALONE
    def test_is_not_for_the_next_process_of_a_worker(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.restart_worker()
        answer = ask_for_ticket(federation, "worker", job_id)
        assert (answer.status_code, answer.json()["code"]) == (409, "lease_lost")


class TestStandings:
    def test_of_the_current_epoch_stay(self, federation: Federation) -> None:
        job_id = federation.running()
        for party in ("north", "worker"):
            assert objection(federation, ticket(federation, party, job_id)) is None

    def test_of_an_epoch_that_a_silo_raised_are_superseded(self, federation: Federation) -> None:
        job_id = federation.running()
        old = [ticket(federation, party, job_id) for party in ("north", "worker")]
        federation.attach(job_id, "north", OTHER_ATTEMPT)
        assert [objection(federation, given) for given in old] == [CloseReason.SUPERSEDED] * 2
        assert objection(federation, ticket(federation, "north", job_id, epoch=2)) is None

    @ON_SQLITE_ALONE
    def test_of_a_job_that_waits_for_a_worker_again_are_superseded(self, federation: Federation) -> None:
        job_id, name = federation.running(), "worker"
        old = [ticket(federation, party, job_id) for party in ("north", "worker")]
        federation.world.admin.ok("POST", f"/workers/{name}/drain")
        federation.release(job_id, "drained")
        federation.look()
        assert federation.state(job_id)[0] == "queued"
        assert [objection(federation, given) for given in old] == [CloseReason.SUPERSEDED] * 2
        federation.world.admin.ok("POST", f"/workers/{name}/undrain")
        federation.look()
        federation.lease(job_id, epoch=2)
        assert objection(federation, ticket(federation, "worker", job_id, epoch=2)) is None

    def test_of_a_revoked_silo_are_closed(self, federation: Federation) -> None:
        job_id = federation.running()
        given = ticket(federation, "north", job_id)
        federation.world.admin.ok("POST", "/silos/north/revoke")
        assert objection(federation, given) is CloseReason.REVOKED

    @ON_SQLITE_ALONE
    def test_of_a_revoked_worker_are_closed(self, federation: Federation) -> None:
        job_id = federation.running()
        given = ticket(federation, "worker", job_id)
        federation.world.admin.ok("POST", "/workers/worker/revoke")
        assert objection(federation, given) is CloseReason.REVOKED

    @ON_SQLITE_ALONE
    def test_of_a_worker_that_lost_the_trunk_to_another_are_closed(self, federation: Federation) -> None:
        job_id = federation.running()
        given = ticket(federation, "worker", job_id)
        federation.another_worker("gpu-2")
        federation.parties["worker"].ok("DELETE", "/session")
        federation.clock.advance(seconds=federation.world.server.settings.lease_seconds + 1)
        federation.look()
        assert objection(federation, given) in {CloseReason.REVOKED, CloseReason.SUPERSEDED}

    @ON_SQLITE_ALONE
    def test_of_a_job_that_was_cancelled_are_closed(self, federation: Federation) -> None:
        job_id = federation.running()
        given = ticket(federation, "north", job_id)
        federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
        federation.look()
        assert objection(federation, given) is CloseReason.REVOKED

    @ON_SQLITE_ALONE
    def test_of_an_unknown_job_are_not_told(self, federation: Federation) -> None:
        seats = [
            {"job": job, "replica": 0, "role": "silo", "party": "north"}
            for job in ("x", "00000000-0000-0000-0000-000000000000")
        ]
        answer = federation.world.anybody.as_(GATEWAYS).ok("POST", "/standings", {"seats": seats})
        assert answer["standings"] == []

    @ON_SQLITE_ALONE
    def test_are_told_to_gateways_alone(self, federation: Federation) -> None:
        federation.running()
        for token in (None, "wrong", GATEWAYS[:-1], "ü" * 32, federation.world.admin.token):
            headers = {b"Authorization": f"Bearer {token}".encode()} if token else {}
            path = f"{API_PREFIX}/standings"
            answer = federation.world.anybody.client.post(path, json={"seats": []}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "not_signed_in"), token

    @ON_SQLITE_ALONE
    def test_are_asked_for_a_thousand_seats_at_most(self, world: World) -> None:
        seat = {"job": "x", "replica": 0, "role": "silo", "party": "north"}
        gateway = world.anybody.as_(GATEWAYS)
        assert gateway.ok("POST", "/standings", {"seats": [seat] * 1000})["standings"] == []
        assert gateway.refused("POST", "/standings", {"seats": [seat] * 1001}) == (422, "invalid_request")

    @ON_SQLITE_ALONE
    def test_without_a_token_set_nobody_may_ask(self, world: World) -> None:
        settings = world.server.settings.model_copy(update={"standings_token": None})
        object.__setattr__(world.server, "settings", settings)
        gateway = world.anybody.as_(secrets.token_hex(16))
        assert gateway.refused("POST", "/standings", {"seats": []}) == (401, "not_signed_in")
