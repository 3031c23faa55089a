"""Numbers of parties: kept once each, read in the order in which they came."""

import json
from typing import Any

from splitlearn.control_plane.schemas import MAX_METRICS
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Api
from tests.unit.backend.jobs.conftest import Federation


def point(step: int = 0, *, value: float = 1.0, name: str = "loss", number: int = 1) -> dict[str, Any]:
    return {"name": name, "round": number, "step": step, "value": value}


def send(party: Api, job_id: str, *points: dict[str, Any]) -> None:
    party.ok("POST", "/metrics", {"job": job_id, "metrics": list(points)})


def page(federation: Federation, job_id: str, query: str = "") -> tuple[list[tuple[Any, ...]], str | None]:
    answer = federation.world.admin.ok("GET", f"/jobs/{job_id}/metrics{query}")
    rows = [(row["party"], row["name"], row["step"], row["value"]) for row in answer["items"]]
    return rows, answer["next"]


class TestSend:
    def test_is_read_with_its_sender(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation.parties["north"], job_id, point(0), point(1, value=0.5))
        send(federation.parties["worker"], job_id, point(-1, name="seconds", value=2.5))
        assert page(federation, job_id)[0] == [
            ("silo:north", "loss", 0, 1.0),
            ("silo:north", "loss", 1, 0.5),
            ("worker:worker", "seconds", -1, 2.5),
        ]

    def test_the_same_batch_twice_changes_nothing(self, federation: Federation) -> None:
        job_id = federation.running()
        batch = [point(0), point(1)]
        send(federation.parties["north"], job_id, *batch)
        before = federation.world.admin.ok("GET", f"/jobs/{job_id}/metrics")
        federation.clock.advance(seconds=5)
        send(federation.parties["north"], job_id, *batch)
        assert federation.world.admin.ok("GET", f"/jobs/{job_id}/metrics") == before
        assert page(federation, job_id, f"?after={before['next']}") == ([], None)

    def test_another_value_replaces_and_is_told_again(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation.parties["north"], job_id, point(0), point(1))
        _, seen = page(federation, job_id)
        send(federation.parties["north"], job_id, point(0, value=9.0), point(1))
        assert page(federation, job_id, f"?after={seen}")[0] == [("silo:north", "loss", 0, 9.0)]
        assert len(page(federation, job_id)[0]) == 2

    @ON_SQLITE_ALONE
    def test_of_two_in_one_batch_the_later_counts(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation.parties["north"], job_id, point(0, value=1.0), point(0, value=2.0))
        assert page(federation, job_id)[0] == [("silo:north", "loss", 0, 2.0)]

    @ON_SQLITE_ALONE
    def test_is_taken_after_the_end_too(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        send(federation.parties["worker"], job_id, point())
        assert len(page(federation, job_id)[0]) == 1


WRONG_FIELDS: list[dict[str, Any]] = [
    {"value": "NaN"},
    {"value": None},
    {"step": -2},
    {"step": 1 << 31},
    {"round": -1},
    {"name": "Loss!"},
    {"name": "l" * 65},
    {"party": "silo:south"},
]


@ON_SQLITE_ALONE
class TestRefused:
    def test_a_wrong_field(self, federation: Federation) -> None:
        job_id = federation.submit()
        for wrong in WRONG_FIELDS:
            body = {"job": job_id, "metrics": [{**point(), **wrong}]}
            answer = federation.parties["north"].refused("POST", "/metrics", body)
            assert answer == (422, "invalid_request"), wrong

    def test_a_number_that_is_none(self, federation: Federation) -> None:
        north, job_id = federation.parties["north"], federation.submit()
        headers = {"Authorization": f"Bearer {north.token}", "Content-Type": "application/json"}
        right = json.dumps({"job": job_id, "metrics": [point(value=1.0)]})
        for number in ("NaN", "Infinity", "-Infinity", "1e999"):
            content = right.replace("1.0", number)
            answer = north.client.post("/api/v1/metrics", content=content, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), number

    def test_too_many_in_one_request(self, federation: Federation) -> None:
        body = {"job": federation.submit(), "metrics": [point(step) for step in range(MAX_METRICS + 1)]}
        answer = federation.parties["north"]("POST", "/metrics", body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert "at most 1000" in answer.json()["message"]

    def test_as_many_as_are_allowed_pass(self, federation: Federation) -> None:
        job_id = federation.submit()
        send(federation.parties["north"], job_id, *[point(step) for step in range(MAX_METRICS)])
        assert len(page(federation, job_id)[0]) == MAX_METRICS

    def test_none_at_all(self, federation: Federation) -> None:
        body = {"job": federation.submit(), "metrics": []}
        assert federation.parties["north"].refused("POST", "/metrics", body) == (422, "invalid_request")

    def test_of_a_job_that_is_not_ones_own(self, federation: Federation) -> None:
        job_id = federation.submit(silos=[{"name": "north", "dataset": "notes"}])
        for party in ("south", "worker"):  # the worker was never given it
            body = {"job": job_id, "metrics": [point()]}
            assert federation.parties[party].refused("POST", "/metrics", body) == (404, "not_found")


class TestRead:
    def test_goes_on_with_the_cursor(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation.parties["north"], job_id, *[point(step) for step in range(5)])
        steps: list[int] = []
        query = "?limit=2"
        while True:
            rows, after = page(federation, job_id, query)
            steps += [row[2] for row in rows]
            if after is None:
                break
            query = f"?limit=2&after={after}"
            if steps == [0, 1]:
                send(federation.parties["south"], job_id, point(9))  # comes meanwhile: nothing shifts
        assert steps == [0, 1, 2, 3, 4, 9]

    @ON_SQLITE_ALONE
    def test_may_be_of_one_party_or_name(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation.parties["north"], job_id, point(0), point(0, name="tokens"))
        send(federation.parties["south"], job_id, point(0))
        assert page(federation, job_id, "?party=silo:south")[0] == [("silo:south", "loss", 0, 1.0)]
        assert page(federation, job_id, "?name=tokens")[0] == [("silo:north", "tokens", 0, 1.0)]

    @ON_SQLITE_ALONE
    def test_refuses_what_is_no_page(self, federation: Federation) -> None:
        job_id = federation.submit()
        for query in ("limit=0", "limit=1001", "after=-1", f"after={1 << 63}", "after=x"):
            answer = federation.world.admin.refused("GET", f"/jobs/{job_id}/metrics?{query}")
            assert answer == (422, "invalid_request"), query

    @ON_SQLITE_ALONE
    def test_is_not_for_another_organisation(self, federation: Federation) -> None:
        job_id = federation.submit()
        assert federation.foreign_admin().refused("GET", f"/jobs/{job_id}/metrics") == (404, "not_found")
