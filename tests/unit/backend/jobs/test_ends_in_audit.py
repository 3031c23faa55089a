"""However a job ends, the audit says so: what became of it, and by whose doing."""

from typing import Any

from tests.unit.backend.jobs.conftest import Federation


def ends(federation: Federation, job_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (row["actor_kind"], row["outcome"], row["details"])
        for row in reversed(federation.world.audit())
        if row["action"] == "end_job" and row["subject_name"] == job_id
    ]


def test_a_failure_with_who_failed(federation: Federation) -> None:
    job_id = federation.running()
    assert ends(federation, job_id) == []
    federation.release(job_id, "failed")
    told = {"name": "job", "state": "failed", "code": "failed", "who": "worker"}
    assert ends(federation, job_id) == [("server", "done", told)]


def test_a_completion(federation: Federation) -> None:
    job_id = federation.running()
    federation.release(job_id, "completed", result=federation.upload(b"trunk"))
    federation.finish(job_id)
    federation.look()
    [(_, _, told)] = ends(federation, job_id)
    assert told["state"] == "completed"


def test_a_cancellation_beside_who_asked_for_it(federation: Federation) -> None:
    job_id = federation.submit()
    federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
    federation.look()
    [(_, _, told)] = ends(federation, job_id)
    assert (told["state"], told["code"]) == ("cancelled", "cancelled")
    [asked] = [row for row in federation.world.audit() if row["action"] == "cancel_job"]
    assert (asked["actor_kind"], asked["actor_name"]) == ("user", "admin")


def test_every_end_of_a_job_that_is_retried(federation: Federation) -> None:
    job_id = federation.running()
    federation.release(job_id, "failed")
    federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
    federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
    federation.look()
    assert [told["state"] for _, _, told in ends(federation, job_id)] == ["failed", "cancelled"]
