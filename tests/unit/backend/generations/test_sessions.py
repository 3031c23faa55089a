"""Sessions of generation over the API: who may open one, who hosts it, and what ends it."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from backend.db.models import Artifact, Event, Generation, Job, JobSilo, Silo
from backend.generations.service import MAX_OPEN
from backend.jobs.lost_silos import LOST
from backend.jobs.reconciler import give_time
from backend.retention import forget_some
from splitlearn.link import CloseReason
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World
from tests.unit.backend.generations.conftest import Generating, complete
from tests.unit.backend.jobs.conftest import Federation
from tests.unit.backend.jobs.test_tickets import GATEWAYS, ask_for_ticket, objection, ticket


@pytest.fixture
def world(world: World) -> World:
    """With a token for the gateway."""
    settings = world.server.settings.model_copy(update={"standings_token": SecretStr(GATEWAYS)})
    object.__setattr__(world.server, "settings", settings)
    return world


class TestOpening:
    def test_gives_what_the_silo_verifies_and_a_worker(self, generating: Generating) -> None:
        opened = generating.open()
        assert (opened["state"], opened["round"], opened["name"]) == ("waiting", 3, "job")
        generating.look()
        standing = generating.ask(opened["id"])
        assert (standing["state"], standing["worker"], standing["epoch"]) == ("hosted", "worker", 1)
        [(worker, task)] = generating.federation.dispatcher.generations
        assert (worker, task.generation, task.epoch) == ("worker", opened["id"], 1)
        lease = generating.take(opened["id"])
        assert (lease["silo"], lease["round"], lease["spec"]) == ("north", 3, opened["spec"])
        assert lease["signature"] == opened["signature"]
        assert lease["result"]["num_bytes"] == len(f"trunk of {generating.job_id}")

    def test_by_the_same_attempt_again_opens_no_other(self, generating: Generating) -> None:
        assert generating.open()["id"] == generating.open()["id"]
        assert generating.open(attempt="ab" * 16)["id"] != generating.open()["id"]

    @ON_SQLITE_ALONE
    def test_is_for_silos_of_the_roster(self, generating: Generating) -> None:
        federation = generating.federation
        stranger = federation.world.enrolled("west").log_in()["token"]
        federation.parties["west"] = federation.world.anybody.as_(stranger)
        assert generating.refused("west") == (404, "not_found")

    @ON_SQLITE_ALONE
    def test_needs_a_result(self, federation: Federation) -> None:
        running = Generating(federation, federation.running())
        assert running.refused() == (409, "no_result")
        federation.release(running.job_id, "failed")
        assert running.refused() == (409, "no_result")

    @ON_SQLITE_ALONE
    def test_is_refused_once_the_result_has_expired(self, generating: Generating) -> None:
        with generating.federation.world.server.database.write() as session:
            session.execute(update(Job).values(result_id=None))
        assert generating.refused() == (409, "no_result")

    @ON_SQLITE_ALONE
    def test_is_refused_where_the_job_went_on_without_the_silo(self, generating: Generating) -> None:
        with generating.federation.world.server.database.write() as session:
            session.execute(_lost("north"))
        assert generating.refused() == (409, "no_result")
        assert generating.open("south")["state"] == "waiting"

    @ON_SQLITE_ALONE
    def test_is_refused_where_the_model_was_removed(self, generating: Generating) -> None:
        with generating.federation.world.server.database.write() as session:
            session.execute(update(Job).values(model_id=None))
        assert generating.refused() == (409, "no_result")

    @ON_SQLITE_ALONE
    def test_has_a_limit_for_each_silo(self, generating: Generating) -> None:
        sessions = [generating.open(attempt=f"{number:032x}")["id"] for number in range(MAX_OPEN)]
        assert generating.refused() == (409, "too_many_generations")
        generating.open("south")
        generating.end(sessions[0])
        generating.open()

    @ON_SQLITE_ALONE
    def test_is_signed_by_the_key_of_now(self, generating: Generating) -> None:
        before = generating.open()["signature"]
        generating.federation.world.admin.ok("POST", "/federation/spec-signer/rotation")
        assert generating.open(attempt="ab" * 16)["signature"] != before

    @ON_SQLITE_ALONE
    def test_is_signed_anew_where_the_key_is_rotated_meanwhile(self, generating: Generating) -> None:
        session = generating.hosted()
        before = generating.open()["signature"]
        generating.federation.world.admin.ok("POST", "/federation/spec-signer/rotation")
        assert generating.take(session)["signature"] != before

    def test_and_end_stand_in_events_and_audit(self, generating: Generating) -> None:
        session = generating.taken()
        generating.release(session, "finished", num_tokens=41)
        with generating.federation.world.server.database.read() as reading:
            told = {event.kind: event.body for event in reading.scalars(select(Event))}
        opened = {"generation": session, "silo": "north"}
        assert told["generation_opened"] == opened
        assert told["generation_ended"] == {**opened, "code": "finished", "num_tokens": 41}
        rows = {row["action"]: row for row in generating.federation.world.audit()}
        assert rows["open_generation"]["actor_name"] == "north"
        assert rows["end_generation"]["details"]["num_tokens"] == 41


class TestAsking:
    @ON_SQLITE_ALONE
    def test_is_for_the_silo_that_opened_it(self, generating: Generating) -> None:
        path = f"/silo/jobs/{generating.job_id}/generations/{generating.open()['id']}"
        south = generating.federation.parties["south"]
        assert south.refused("GET", path) == (404, "not_found")
        assert south.refused("DELETE", path) == (404, "not_found")

    def test_keeps_a_session_open(self, generating: Generating) -> None:
        session = generating.taken()
        generating.wait(120, hearing=session)
        assert generating.standing(session)[0] == "hosted"

    def test_no_more_ends_it(self, generating: Generating) -> None:
        session = generating.taken()
        generating.wait(50)
        assert generating.standing(session)[0] != "ended"
        generating.wait(15)
        assert generating.standing(session) == ("ended", "silo_silent")
        assert generating.renew_refused(session) == (409, "lease_lost")

    @ON_SQLITE_ALONE
    def test_after_the_end_says_why_it_ended(self, generating: Generating) -> None:
        session = generating.taken()
        generating.release(session, "idle")
        assert (generating.ask(session)["state"], generating.ask(session)["reason_code"]) == ("ended", "idle")
        generating.end(session)
        assert generating.ask(session)["reason_code"] == "idle"


class TestHosting:
    def test_takes_the_worker_from_nobody(self, generating: Generating) -> None:
        first = generating.hosted()
        second = generating.hosted("south")
        assert generating.ask(second, "south")["reason_code"] == "busy"
        generating.take(first)
        generating.release(first, "finished")
        generating.look()
        assert generating.ask(second, "south")["state"] == "hosted"

    @ON_SQLITE_ALONE
    def test_makes_its_worker_busy_for_training(self, generating: Generating) -> None:
        generating.taken()
        job_id = generating.federation.placed()
        assert generating.federation.state(job_id) == ("queued", "busy")

    @ON_SQLITE_ALONE
    def test_comes_after_training_that_waits(self, generating: Generating) -> None:
        federation = generating.federation
        federation.world.admin.ok("POST", "/workers/worker/drain")
        session, job_id = generating.hosted(), federation.placed()
        federation.world.admin.ok("POST", "/workers/worker/undrain")
        federation.look()
        assert federation.state(job_id)[0] == "preparing"
        assert generating.ask(session)["reason_code"] == "busy"

    def test_gives_way_to_training_when_idle(self, generating: Generating) -> None:
        session = generating.taken()
        job_id = generating.federation.placed()
        generating.renew(session, idle_seconds=0)
        generating.look()
        assert generating.ask(session)["state"] == "hosted"
        generating.federation.clock.advance(seconds=3)
        generating.renew(session, idle_seconds=2.5)
        generating.look()
        assert generating.standing(session) == ("ended", "needed_elsewhere")
        assert generating.federation.state(job_id)[0] == "preparing"

    @ON_SQLITE_ALONE
    def test_has_a_longest_time(self, generating: Generating) -> None:
        session = generating.taken()
        generating.wait(generating.federation.world.server.settings.generation_seconds, hearing=session)
        assert generating.standing(session)[0] == "hosted"
        generating.federation.clock.advance(seconds=1)
        generating.look()
        assert generating.standing(session) == ("ended", "too_long")

    def test_by_a_dead_worker_goes_to_the_next_one(self, generating: Generating) -> None:
        federation = generating.federation
        session = generating.taken()
        federation.another_worker("gpu-2")
        federation.restart_worker()
        generating.look()
        standing = generating.ask(session)
        assert (standing["state"], standing["epoch"]) == ("hosted", 2)
        assert generating.renew_refused(session) == (409, "lease_lost")

    def test_by_a_silent_worker_goes_to_another_one(self, generating: Generating) -> None:
        federation = generating.federation
        session = generating.taken()
        second = federation.another_worker("gpu-2")
        federation.clock.advance(seconds=federation.world.server.settings.lease_seconds + 1)
        second.ok("POST", "/session/heartbeat")
        generating.look()
        standing = generating.ask(session)
        assert (standing["state"], standing["worker"], standing["epoch"]) == ("hosted", "gpu-2", 2)

    @ON_SQLITE_ALONE
    def test_by_the_only_worker_that_fell_silent_waits_until_it_is_heard_of(
        self, generating: Generating
    ) -> None:
        session = generating.taken()
        federation = generating.federation
        federation.clock.advance(seconds=federation.world.server.settings.lease_seconds + 1)
        generating.look()
        assert generating.standing(session) == ("waiting", "no_worker")
        federation.parties["worker"].ok("POST", "/session/heartbeat")
        generating.look()
        assert generating.ask(session)["epoch"] == 2

    @ON_SQLITE_ALONE
    def test_is_given_back_by_a_drained_worker(self, generating: Generating) -> None:
        session = generating.taken()
        admin = generating.federation.world.admin
        assert generating.renew(session)["drain"] is False
        admin.ok("POST", "/workers/worker/drain")
        assert generating.renew(session)["drain"] is True
        generating.release(session, "drained", num_tokens=3)
        generating.look()
        assert generating.standing(session) == ("waiting", "workers_drained")
        admin.ok("POST", "/workers/worker/undrain")
        generating.look()
        generating.take(session, epoch=2)
        generating.release(session, "finished", epoch=2, num_tokens=4)
        [shown] = admin.ok("GET", f"/jobs/{generating.job_id}/generations")["items"]
        assert (shown["num_tokens"], shown["worker"], shown["epoch"]) == (7, "worker", 2)

    @ON_SQLITE_ALONE
    def test_is_refused_to_other_workers_and_epochs(self, generating: Generating) -> None:
        session = generating.hosted()
        federation = generating.federation
        federation.parties["gpu-2"] = federation.another_worker("gpu-2")
        worker, other = federation.parties["worker"], federation.parties["gpu-2"]
        path = f"/worker/generations/{session}?epoch="
        assert other.refused("GET", f"{path}1") == (409, "lease_lost")
        assert worker.refused("GET", f"{path}2") == (409, "lease_lost")
        generating.take(session)
        assert generating.renew_refused(session, epoch=2) == (409, "lease_lost")
        assert generating.renew_refused(session, worker="gpu-2") == (409, "lease_lost")

    @ON_SQLITE_ALONE
    def test_is_sent_again_where_the_broker_was_away(self, generating: Generating) -> None:
        dispatcher = generating.federation.dispatcher
        dispatcher.is_broken = True
        session = generating.hosted()
        assert generating.standing(session) == ("hosted", "broker")
        dispatcher.is_broken = False
        generating.look()
        assert [task.generation for _, task in dispatcher.generations] == [session]

    @ON_SQLITE_ALONE
    def test_outlasts_an_absence_of_the_control_plane(self, generating: Generating) -> None:
        session = generating.taken()
        federation = generating.federation
        federation.clock.advance(seconds=120)
        give_time(federation.world.server)
        federation.parties["worker"].ok("POST", "/session/heartbeat")
        generating.look()
        assert generating.standing(session) == ("hosted", "leased")


class TestPeople:
    @ON_SQLITE_ALONE
    def test_see_sessions_and_admins_end_them(self, generating: Generating) -> None:
        session = generating.taken()
        world = generating.federation.world
        path = f"/jobs/{generating.job_id}/generations"
        auditor, researcher = world.user("otto", "auditor"), world.user("rosa", "researcher")
        for reader in (auditor, researcher):
            assert [item["id"] for item in reader.ok("GET", path)["items"]] == [session]
            assert reader.refused("POST", f"{path}/{session}/end") == (403, "forbidden")
        world.admin.ok("POST", f"{path}/{session}/end")
        assert generating.standing(session) == ("ended", "ended_by_admin")
        assert generating.renew_refused(session) == (409, "lease_lost")

    @ON_SQLITE_ALONE
    def test_end_sessions_of_this_job_alone(self, generating: Generating) -> None:
        session = generating.open()["id"]
        other = generating.federation.submit()
        path = f"/jobs/{other}/generations/{session}/end"
        assert generating.federation.world.admin.refused("POST", path) == (404, "not_found")

    @ON_SQLITE_ALONE
    def test_get_the_newest_first_in_pages(self, generating: Generating) -> None:
        world = generating.federation.world
        settings = world.server.settings.model_copy(update={"max_page": 2})
        object.__setattr__(world.server, "settings", settings)
        opened = []
        for number in range(3):
            opened.append(generating.open(attempt=f"{number:032x}")["id"])
            generating.federation.clock.advance(seconds=1)
        path = f"/jobs/{generating.job_id}/generations"
        page = world.admin.ok("GET", path)
        rest = world.admin.ok("GET", f"{path}?after={page['next'].replace('+', '%2B')}")
        assert [item["id"] for item in (*page["items"], *rest["items"])] == opened[::-1]
        assert rest["next"] is None


class TestConversation:
    def test_is_between_its_silo_and_its_worker(self, generating: Generating) -> None:
        session = generating.taken()
        federation = generating.federation
        silos, workers = ticket(federation, "north", session), ticket(federation, "worker", session)
        assert silos.conversation == workers.conversation
        assert (silos.conversation.job, silos.conversation.silo) == (session, "north")
        assert [objection(federation, given) for given in (silos, workers)] == [None, None]
        federation.parties["other"] = federation.another_worker("gpu-2")
        for party, changes, expected in (
            ("south", {}, (404, "not_found")),
            ("south", {"silo": "south"}, (404, "not_found")),
            ("other", {}, (404, "not_found")),
            ("north", {"replica": 1}, (404, "not_found")),
            ("north", {"epoch": 2}, (409, "lease_lost")),
        ):
            answer = ask_for_ticket(federation, party, session, **changes)
            assert (answer.status_code, answer.json()["code"]) == expected, (party, changes)

    @ON_SQLITE_ALONE
    def test_is_over_with_the_session(self, generating: Generating) -> None:
        session = generating.taken()
        federation = generating.federation
        given = [ticket(federation, party, session) for party in ("north", "worker")]
        generating.end(session)
        assert [objection(federation, each) for each in given] == [CloseReason.REVOKED] * 2
        answer = ask_for_ticket(federation, "north", session)
        assert (answer.status_code, answer.json()["code"]) == (409, "lease_lost")

    @ON_SQLITE_ALONE
    def test_of_a_lease_that_was_given_back_is_superseded(self, generating: Generating) -> None:
        session = generating.taken()
        federation = generating.federation
        given = [ticket(federation, party, session) for party in ("north", "worker")]
        federation.world.admin.ok("POST", "/workers/worker/drain")
        generating.release(session, "drained")
        assert [objection(federation, each) for each in given] == [CloseReason.SUPERSEDED] * 2

    def test_of_a_revoked_silo_is_closed_and_the_session_ends(self, generating: Generating) -> None:
        session = generating.taken()
        federation = generating.federation
        given = ticket(federation, "north", session)
        federation.world.admin.ok("POST", "/silos/north/revoke")
        assert objection(federation, given) is CloseReason.REVOKED
        generating.look()
        assert generating.standing(session) == ("ended", "silo_revoked")

    @ON_SQLITE_ALONE
    def test_of_a_revoked_worker_is_closed_and_another_one_goes_on(self, generating: Generating) -> None:
        session = generating.taken()
        federation = generating.federation
        given = ticket(federation, "worker", session)
        federation.another_worker("gpu-2")
        federation.world.admin.ok("POST", "/workers/worker/revoke")
        assert objection(federation, given) is CloseReason.REVOKED
        generating.look()
        assert generating.ask(session)["worker"] == "gpu-2"

    @ON_SQLITE_ALONE
    def test_meets_at_one_of_several_gateways(self, generating: Generating) -> None:
        session = generating.taken()
        federation = generating.federation
        both = "ws://a.example/relay,ws://b.example/relay"
        settings = federation.world.server.settings.model_copy(update={"gateway_url": both})
        object.__setattr__(federation.world.server, "settings", settings)
        urls = {
            ask_for_ticket(federation, party, session).json()["gateway_url"]
            for party in ("north", "worker", "north")
        }
        assert len(urls) == 1
        assert urls < set(both.split(","))


class TestForgetting:
    def test_removes_what_ended_long_ago(self, generating: Generating) -> None:
        ended, still = generating.taken(), generating.open(attempt="ab" * 16)["id"]
        generating.release(ended, "finished")
        server = generating.federation.world.server
        long_after = generating.federation.clock() + timedelta(days=server.settings.event_days + 1)
        while forget_some(server.database, server.settings, now=long_after):
            pass
        with server.database.read() as session:
            assert [str(row.id) for row in session.query(Generation)] == [still]


def test_another_job_s_result_is_not_named(federation: Federation) -> None:
    """The lease names one blob: the result of the session's own job."""
    jobs = [Generating(federation, complete(federation, name=name)) for name in ("one", "two")]
    session = jobs[1].taken()
    with federation.world.server.database.read() as reading:
        result = reading.get_one(Job, uuid.UUID(jobs[1].job_id)).result_id
        artifact = reading.get_one(Artifact, result)
    assert jobs[1].take(session)["result"]["digest"] == artifact.digest.hex()


def _lost(silo: str) -> Any:
    which = select(Silo.id).where(Silo.name == silo).scalar_subquery()
    return update(JobSilo).where(JobSilo.silo_id == which).values(finish_outcome=LOST)
