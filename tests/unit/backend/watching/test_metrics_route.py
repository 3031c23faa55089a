"""What Prometheus reads at the API."""

import pytest
from sqlalchemy import event

from backend.watching import standing
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World
from tests.unit.backend.jobs.conftest import Federation
from tests.unit.backend.watching.conftest import samples, value


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept from one reading to the next."""
    monkeypatch.setattr(standing, "KEPT_SECONDS", 0.0)


class TestAccess:
    @ON_SQLITE_ALONE
    def test_is_refused_without_the_token(self, world: World) -> None:
        answer = world.anybody.client.get("/metrics")
        assert (answer.status_code, answer.json()["code"]) == (401, "metrics_refused")

    @ON_SQLITE_ALONE
    def test_no_user_s_token_opens_it(self, world: World) -> None:
        headers = {"Authorization": f"Bearer {world.admin.token}"}
        assert world.anybody.client.get("/metrics", headers=headers).status_code == 401


class TestStanding:
    def test_counts_jobs_by_state_and_the_queue(self, federation: Federation) -> None:
        federation.running()
        waiting = federation.submit(name="second")
        federation.approve(waiting)
        federation.look()
        federation.submit(name="third")
        federation.clock.advance(seconds=7)
        found = samples(federation.world)
        assert value(found, "trunkline_jobs", state="running") == 1
        assert value(found, "trunkline_jobs", state="queued") == 1
        assert value(found, "trunkline_jobs", state="awaiting_approval") == 1
        assert value(found, "trunkline_jobs", state="failed") == 0
        assert value(found, "trunkline_queue_depth") == 1
        assert value(found, "trunkline_queue_oldest_seconds") == 7

    def test_tells_the_age_of_a_lease_since_its_worker_s_last_word(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.clock.advance(seconds=3)
        assert value(samples(federation.world), "trunkline_lease_age_seconds", worker="worker") == 3
        federation.renew(job_id, round_number=1)
        assert value(samples(federation.world), "trunkline_lease_age_seconds", worker="worker") == 0

    def test_tells_who_is_online(self, federation: Federation) -> None:
        found = samples(federation.world)
        assert value(found, "trunkline_parties", kind="silo", state="online") == 2
        assert value(found, "trunkline_parties", kind="worker", state="online") == 1
        federation.clock.advance(seconds=federation.world.server.settings.party_silence_seconds + 1)
        assert value(samples(federation.world), "trunkline_parties", kind="silo", state="away") == 2

    @ON_SQLITE_ALONE
    def test_a_database_that_fails_costs_its_own_numbers_alone(self, world: World) -> None:
        with world.server.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE workers RENAME TO gone")
        found = samples(world)
        assert value(found, "trunkline_database_readable") == 0
        assert ("trunkline_queue_depth", frozenset()) not in found
        assert ("trunkline_silo_steps_total", frozenset()) in found

    @ON_SQLITE_ALONE
    def test_many_readings_cost_the_database_one(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(standing, "KEPT_SECONDS", 60.0)
        samples(world)
        asked: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            asked.append(statement)

        engine = world.server.database.engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            for _ in range(5):
                samples(world)
        finally:
            event.remove(engine, "before_cursor_execute", note)
        assert asked == []


class TestRequests:
    @ON_SQLITE_ALONE
    def test_are_counted_by_template_not_by_path(self, federation: Federation) -> None:
        labels = {"method": "GET", "route": "/api/v1/jobs/{job_id}", "status": "200"}
        before = value(samples(federation.world), "trunkline_api_request_seconds_count", **labels)
        for _ in range(2):
            federation.job(federation.submit())
        found = samples(federation.world)
        assert value(found, "trunkline_api_request_seconds_count", **labels) == before + 2

    @ON_SQLITE_ALONE
    def test_invented_paths_and_methods_make_no_series(self, world: World) -> None:
        client = world.anybody.client
        client.get("/invented/1")
        client.request("INVENT", "/invented/2")
        routes = {
            (dict(labels)["method"], dict(labels)["route"])
            for name, labels in samples(world)
            if name == "trunkline_api_request_seconds_count"
        }
        assert ("GET", "other") in routes
        assert ("other", "other") in routes
        assert not any("invent" in (method + route).lower() for method, route in routes)
