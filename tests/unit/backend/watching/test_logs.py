"""What parties tell of a job, and who reads it."""

from typing import Any

import pytest

from backend.watching import logs
from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import Federation


def line(second: int, event: str = "step", **fields: Any) -> dict[str, Any]:
    return {"at": f"2026-03-01T12:00:{second:02d}.5Z", "level": "info", "event": event, **fields}


def send(federation: Federation, party: str, job_id: str, *lines: dict[str, Any]) -> None:
    federation.parties[party].ok("POST", "/logs", {"job": job_id, "lines": list(lines)})


def read(federation: Federation, job_id: str, query: str = "") -> list[tuple[Any, ...]]:
    rows = federation.world.admin.ok("GET", f"/jobs/{job_id}/logs{query}")["items"]
    return [(row["party"], row["event"], row["code"], row["step"]) for row in rows]


class TestLogs:
    def test_are_read_by_party_in_the_order_of_their_coming(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation, "north", job_id, line(9, "attached", epoch=1), line(3, step=4, round=1, seconds=0.5))
        send(federation, "worker", job_id, line(1, "attempt_failed", level="warning", code="link"))
        north = [("silo:north", "attached", "", None), ("silo:north", "step", "", 4)]
        assert read(federation, job_id) == [*north, ("worker:worker", "attempt_failed", "link", None)]
        assert read(federation, job_id, "?party=silo:north") == north

    def test_a_batch_that_comes_twice_is_kept_once(self, federation: Federation) -> None:
        job_id = federation.running()
        for _ in range(2):
            send(federation, "north", job_id, line(1), line(2))
        assert len(read(federation, job_id)) == 2

    def test_of_each_party_the_newest_are_kept(
        self, federation: Federation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "LINES_KEPT", 3)
        job_id = federation.running()
        send(federation, "south", job_id, line(0, "attached"))
        for second in range(5):
            send(federation, "north", job_id, line(second, step=second))
        assert [row[3] for row in read(federation, job_id, "?party=silo:north")] == [2, 3, 4]
        assert read(federation, job_id, "?party=silo:south") == [("silo:south", "attached", "", None)]

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize(
        "fields",
        [{"message": "row 3"}, {"event": "A sentence."}, {"code": "/home/x"}, {"at": "2026-03-01T12:00:00"}],
    )
    def test_have_no_place_for_a_text(self, federation: Federation, fields: dict[str, str]) -> None:
        job_id = federation.running()
        body = {"job": job_id, "lines": [{**line(1), **fields}]}
        assert federation.parties["north"].refused("POST", "/logs", body) == (422, "invalid_request")

    @ON_SQLITE_ALONE
    def test_are_not_shown_to_another_organisation(self, federation: Federation) -> None:
        job_id = federation.running()
        assert federation.foreign_admin().refused("GET", f"/jobs/{job_id}/logs")[0] == 404
