"""``trunkline jobs generations``: who generated with a job's result, and the end of a session."""

from tests.unit.backend.cli.conftest import Terminal
from tests.unit.backend.generations.conftest import Generating, complete
from tests.unit.backend.jobs.conftest import Federation


class TestGenerations:
    def test_are_listed_with_who_and_why(self, admin: Terminal, federation: Federation) -> None:
        generating = Generating(federation, complete(federation))
        assert admin("jobs", "generations", generating.job_id, "--json").json == []
        session = generating.taken()
        [row] = admin("jobs", "generations", generating.job_id, "--json").json
        assert (row["id"], row["silo"], row["state"], row["worker"]) == (session, "north", "hosted", "worker")
        assert session in admin("jobs", "generations", generating.job_id).out

    def test_are_ended_by_their_id(self, admin: Terminal, federation: Federation) -> None:
        generating = Generating(federation, complete(federation))
        session = generating.taken()
        [row] = admin("jobs", "generations", generating.job_id, "--end", session, "--json").json
        assert (row["state"], row["reason_code"]) == ("ended", "ended_by_admin")

    def test_of_no_such_id_are_refused(self, admin: Terminal, federation: Federation) -> None:
        job_id = complete(federation)
        refused = admin("jobs", "generations", job_id, "--end", "notes")
        assert refused.exit_code == 2
        assert "'notes' is no id" in refused.err
        unknown = admin("jobs", "generations", job_id, "--end", job_id)
        assert unknown.exit_code != 0
        assert job_id in unknown.err
