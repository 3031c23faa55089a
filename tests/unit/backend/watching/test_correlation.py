"""One id from the request that submits a job to everybody who works on it."""

import pytest

from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import Federation

GIVEN = "proxy-4711-abcdef"


def submitted(federation: Federation, request_id: str) -> tuple[str, str]:
    """Submit a job with an id; return the job and the id that the answer has."""
    world = federation.world
    headers = {"Authorization": f"Bearer {world.admin.token}", "X-Request-Id": request_id}
    answer = world.anybody.client.post("/api/v1/jobs", json={"spec": federation.spec()}, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["correlation_id"] == answer.headers["X-Request-Id"]
    return answer.json()["id"], answer.headers["X-Request-Id"]


class TestCorrelation:
    def test_goes_with_the_dispatch_and_with_the_job_to_its_silos(self, federation: Federation) -> None:
        job_id, found = submitted(federation, GIVEN)
        assert found == GIVEN
        federation.approve(job_id)
        federation.look()
        [(_, body)] = federation.dispatcher.sent
        assert body.correlation_id == GIVEN
        [job] = federation.parties["north"].ok("GET", "/silo/jobs")["jobs"]
        assert job["correlation_id"] == GIVEN
        assert federation.job(job_id)["correlation_id"] == GIVEN

    @ON_SQLITE_ALONE
    def test_stands_in_the_log_of_the_request(
        self, federation: Federation, capfd: pytest.CaptureFixture[str]
    ) -> None:
        job_id, _ = submitted(federation, GIVEN)
        lines = [text for text in capfd.readouterr().err.splitlines() if GIVEN in text]
        assert any("job_submitted" in text and job_id in text for text in lines)
        assert any("path=/api/v1/jobs " in text for text in lines)

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize("invented", ["short", "with space", "line\tbreak", "x" * 65, "ümlaut-and-more"])
    def test_takes_over_no_id_that_could_forge_a_line(self, federation: Federation, invented: str) -> None:
        world = federation.world
        answer = world.anybody.client.get("/healthz", headers=[(b"X-Request-Id", invented.encode())])
        assert answer.headers["X-Request-Id"] != invented
        assert len(answer.headers["X-Request-Id"]) == 16
