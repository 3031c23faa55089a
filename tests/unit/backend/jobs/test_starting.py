"""A job that begins at an earlier one's result: what is checked at submission, and what parties are told."""

import uuid
from typing import Any

import pytest
from sqlalchemy import update

from backend.artifacts.retention import sweep
from backend.db.models import Artifact
from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import Federation

LORA = {"kind": "lora", "r": 4}


def completed(federation: Federation, **changes: Any) -> str:
    """A job with a result, of which both silos have theirs."""
    job_id = federation.running(rounds=1, adapter=LORA, **changes)
    federation.commit(job_id, 1)
    federation.release(job_id, "completed", result=federation.upload(b"the trained trunk"))
    federation.look()
    federation.finish(job_id)
    federation.look()
    assert federation.state(job_id)[0] == "completed"
    return job_id


def expire(federation: Federation, job_id: str) -> None:
    """Let all that a job has in the store have had its time."""
    with federation.world.server.database.write() as session:
        of_job = update(Artifact).where(Artifact.job_id == uuid.UUID(job_id))
        session.execute(of_job.values(expires_at=federation.clock()))


def refusal(federation: Federation, start: str, **changes: Any) -> str:
    """The sentence that refuses a job which begins there, submitted or planned."""
    body = {"spec": federation.spec(**{"adapter": LORA, "start_from": start, **changes})}
    answers = [federation.world.admin("POST", path, body) for path in ("/jobs", "/jobs/plan")]
    (message,) = {answer.json()["message"] for answer in answers}
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(422, "spec_refused")}
    return str(message)


class TestSubmit:
    def test_tells_worker_and_silos_where_to_begin(self, federation: Federation) -> None:
        first = completed(federation)
        later = federation.placed(adapter=LORA, start_from=first)
        assert federation.job(later)["spec"]["start_from"] == first
        told = federation.lease(later)["start"]
        (trained,) = (
            each
            for each in federation.world.admin.ok("GET", f"/jobs/{first}/artifacts")["items"]
            if each["kind"] == "result"
        )
        assert told == {"digest": trained["digest"], "num_bytes": trained["num_bytes"]}
        (job,) = federation.parties["north"].ok("GET", "/silo/jobs")["jobs"]
        assert (job["id"], job["has_start"]) == (later, True)

    @ON_SQLITE_ALONE
    def test_another_job_tells_of_none(self, federation: Federation) -> None:
        job_id = federation.placed()
        assert federation.lease(job_id)["start"] is None
        assert federation.parties["north"].ok("GET", "/silo/jobs")["jobs"][0]["has_start"] is False

    @ON_SQLITE_ALONE
    def test_a_silo_that_took_no_part_begins_at_the_model(self, federation: Federation) -> None:
        first = completed(federation)
        west = federation.world.anybody.as_(federation.world.enrolled("west", "silo").log_in()["token"])
        announced = {"name": "notes", "task": "causal-lm", "num_rows": 7, "schema_digest": "00" * 32}
        west.ok("PUT", "/silo/datasets", {"datasets": [announced]})
        silos = [{"name": name, "dataset": "notes"} for name in ("north", "south", "west")]
        later = federation.submit(adapter=LORA, start_from=first, silos=silos)
        assert west.ok("GET", "/silo/jobs")["jobs"][0]["has_start"] is False
        assert federation.job(later)["spec"]["silo_blocks"] == "frozen"  # as the first job's are

    def test_keeps_the_result_for_as_long_as_the_later_job_needs_it(self, federation: Federation) -> None:
        first = completed(federation)
        later = federation.submit(adapter=LORA, start_from=first)
        expire(federation, first)
        server = federation.world.server
        assert sweep(server.database, server.store, now=federation.clock()) == 1  # the checkpoint
        federation.approve(later)
        federation.look()
        start = federation.lease(later)["start"]
        assert server.store.has(bytes.fromhex(start["digest"]))

    @ON_SQLITE_ALONE
    def test_silo_blocks_that_are_left_open_are_the_earlier_jobs(self, federation: Federation) -> None:
        first = completed(federation, silo_blocks="local")
        job = federation.job(federation.submit(adapter=LORA, start_from=first))
        assert job["spec"]["silo_blocks"] == "local"


@ON_SQLITE_ALONE
class TestRefused:
    def test_is_a_job_that_is_not_there(self, federation: Federation) -> None:
        nobody = "0f3c0000-0000-4000-8000-000000000001"
        assert f"has no job {nobody}" in refusal(federation, nobody)

    def test_is_what_is_no_job(self, federation: Federation) -> None:
        body = {"spec": federation.spec(start_from="runs/demo")}
        answer = federation.world.admin("POST", "/jobs", body).json()
        assert (answer["code"], "start_from: 'runs/demo'" in answer["message"]) == ("unserved", True)

    def test_is_another_organisations_job(self, federation: Federation) -> None:
        first = completed(federation)
        foreign = federation.foreign_admin()
        answer = foreign("POST", "/jobs", {"spec": federation.spec(adapter=LORA, start_from=first)})
        assert f"has no job {first}" in answer.json()["message"]

    def test_is_one_that_has_not_ended(self, federation: Federation) -> None:
        assert "is running; begin at one that is completed" in refusal(federation, federation.running())

    def test_is_one_whose_result_is_no_longer_kept(self, federation: Federation) -> None:
        first = completed(federation)
        expire(federation, first)
        assert "no longer kept" in refusal(federation, first)
        server = federation.world.server
        sweep(server.database, server.store, now=federation.clock())
        assert "no longer kept" in refusal(federation, first)

    @pytest.mark.parametrize(
        ("changes", "parts"),
        [
            ({"adapter": {"kind": "full"}}, ("adapter {'kind': 'lora'", "this one {'kind': 'full'}")),
            ({"adapter": {**LORA, "r": 2}}, ("'r': 4", "'r': 2")),
            ({"adapter": {**LORA, "targets": ["q_proj"]}}, ("'targets': []", "'targets': ['q_proj']")),
            (
                {
                    "silos": [
                        {"name": name, "dataset": "notes", "cut": {"bottom_layers": 2}}
                        for name in ("north", "south")
                    ]
                },
                ("silos.cut {'bottom_layers': 1", "this one {'bottom_layers': 2"),
            ),
        ],
    )
    def test_is_one_of_another_shape(
        self, changes: dict[str, Any], parts: tuple[str, ...], federation: Federation
    ) -> None:
        message = refusal(federation, completed(federation), **changes)
        assert all(part in message for part in parts), message

    def test_is_one_whose_trained_adapters_would_be_left_out(self, federation: Federation) -> None:
        first = completed(federation, silo_blocks="local")
        assert "which 'frozen' blocks would lose" in refusal(federation, first, silo_blocks="frozen")

    def test_is_one_whose_blocks_differ_where_they_are_to_be_averaged(self, federation: Federation) -> None:
        first = completed(federation, silo_blocks="local")
        west = federation.world.anybody.as_(federation.world.enrolled("west", "silo").log_in()["token"])
        announced = {"name": "notes", "task": "causal-lm", "num_rows": 7, "schema_digest": "00" * 32}
        west.ok("PUT", "/silo/datasets", {"datasets": [announced]})
        silos = [{"name": name, "dataset": "notes"} for name in ("north", "south", "west")]
        message = refusal(federation, first, silo_blocks="averaged", silos=silos)
        assert f"job {first} has silo_blocks 'local', so the silos begin with blocks that differ" in message
