"""The API's benchmark in a small form: what statements read, and how that is judged."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.api import look
from bench.api_fill import Size, fill, new_secret
from bench.api_plans import EXPECTED, read_plans
from bench.api_process import make_settings
from bench.stage.servers import ServerAbsentError, own_postgresql
from tests import services


@pytest.mark.slow
def test_every_statement_of_the_api_finds_its_rows_by_an_index(tmp_path: Path) -> None:
    """At a size at which reading whole tables would cost PostgreSQL more."""
    try:
        with own_postgresql() as database:
            settings = make_settings(tmp_path, database.url)
            size = Size(jobs=4000, silos=1000, metric_rows=100_000)
            filled = fill(settings, size, secret=new_secret())
            plans = look(settings, tmp_path, filled, seconds=3)
    except ServerAbsentError as error:
        services.absent(str(error))
    assert plans.statements > 100
    assert [(scan.table, scan.statement) for scan in plans.scans if scan.reason is None] == []


def plan(kind: str, *below: dict[str, Any], **fields: str) -> dict[str, Any]:
    names = {name.replace("_", " ").title(): value for name, value in fields.items()}
    return {"Node Type": kind, **names, **({"Plans": list(below)} if below else {})}


def scans_of(tmp_path: Path, found: dict[str, Any], statement: str = "SELECT 1") -> list[tuple[str, str]]:
    path = tmp_path / "plans.json"
    rows = {"jobs": 1000, "users": 3}
    path.write_text(json.dumps({"rows": rows, "plans": [{"statement": statement, "plan": found}]}))
    plans = read_plans(path)
    assert plans.statements == 1
    return [(scan.node, scan.table) for scan in plans.scans if scan.reason is None]


class TestReadPlans:
    def test_finds_a_scan_wherever_it_is(self, tmp_path: Path) -> None:
        inner = plan("Nested Loop", plan("Seq Scan", relation_name="jobs"))
        assert scans_of(tmp_path, plan("Sort", inner)) == [("Seq Scan", "jobs")]

    def test_lets_small_tables_be_read(self, tmp_path: Path) -> None:
        assert scans_of(tmp_path, plan("Seq Scan", relation_name="users")) == []

    def test_lets_what_is_looked_up_pass(self, tmp_path: Path) -> None:
        found = plan("Index Scan", relation_name="jobs", index_cond="(id = 1)")
        assert scans_of(tmp_path, found) == []

    @pytest.mark.parametrize("kind", ["Index Scan", "Index Only Scan"])
    def test_finds_an_index_that_is_walked_from_end_to_end(self, tmp_path: Path, kind: str) -> None:
        walk = plan(kind, relation_name="jobs")
        assert scans_of(tmp_path, walk) == [(kind, "jobs")]
        assert scans_of(tmp_path, plan("Limit", plan("Sort", walk))) == [(kind, "jobs")]

    def test_lets_an_index_be_walked_until_a_page_is_full(self, tmp_path: Path) -> None:
        assert scans_of(tmp_path, plan("Limit", plan("Index Scan", relation_name="jobs"))) == []

    def test_lets_the_index_of_a_few_rows_be_walked(self, tmp_path: Path) -> None:
        assert scans_of(tmp_path, plan("Index Scan", relation_name="jobs", index_name="ix_leases_open")) == []

    def test_lets_pass_what_has_a_reason_for_this_table_alone(self, tmp_path: Path) -> None:
        [expected] = [one for one in EXPECTED if one.beginning.startswith("SELECT jobs.state")]
        scan = plan("Seq Scan", relation_name="jobs")
        assert scans_of(tmp_path, scan, expected.beginning + " AS n FROM jobs") == []
        assert scans_of(tmp_path, scan, "SELECT jobs.name FROM jobs") == [("Seq Scan", "jobs")]
