"""Which statements read a table from end to end, out of how PostgreSQL would answer them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGE_ROWS = 900
"""A table of fewer is read whole where that is the fastest way."""

PARTIAL = frozenset({"ix_leases_open"})
"""Indexes of a few rows of their table, all of which are wanted."""
_WALKS = frozenset({"Index Scan", "Index Only Scan"})


@dataclass(frozen=True, slots=True)
class Expected:
    """A statement that reads a large table from end to end, because every row is asked for.

    Attributes:
        beginning, ending: Of the statement, in one line.
        table: The table.
        reason: Why that is right.
    """

    beginning: str
    table: str
    reason: str
    ending: str = ""


_COUNTED = "Prometheus counts all of them, at most every 5 s"
EXPECTED: tuple[Expected, ...] = (
    Expected("SELECT jobs.state, count(*)", "jobs", _COUNTED),
    Expected("SELECT count(*) AS count_1 FROM silos", "silos", _COUNTED),
    Expected(
        "SELECT jobs.id FROM jobs WHERE jobs.model_id", "jobs", "a model is removed: its jobs are locked"
    ),
    Expected("UPDATE jobs SET model_id", "jobs", "a model is removed: its jobs are told"),
    Expected("SELECT silos.id, silos.status, silos.epoch", "silos", "all silos' agents wait at this process"),
    Expected("SELECT job_silos.job_id, job_silos.approval", "silos", "active jobs have as many silos"),
    Expected(
        "SELECT silos.certificate, silos.organization_id",
        "silos",
        "every certificate is looked at for its end, now and then",
        ending="FROM silos WHERE silos.status = %(status_1)s",
    ),
)


@dataclass(frozen=True, slots=True)
class Scan:
    """A statement that reads a large table from end to end.

    Attributes:
        statement: In one line.
        node: PostgreSQL's word for how.
        table: The table.
        rows: Of the table.
    """

    statement: str
    node: str
    table: str
    rows: int

    @property
    def reason(self) -> str | None:
        """Why it is right, or None."""
        for expected in EXPECTED:
            is_meant = self.statement.startswith(expected.beginning)
            if self.table == expected.table and is_meant and self.statement.endswith(expected.ending):
                return expected.reason
        return None


@dataclass(frozen=True, slots=True)
class Plans:
    """What was found.

    Attributes:
        statements: How many were asked for.
        scans: Those that read a table from end to end.
    """

    statements: int
    scans: tuple[Scan, ...]


def read_plans(path: Path) -> Plans:
    """Read what ``bench.api_recording`` has written into a file."""
    found = json.loads(path.read_text(encoding="utf-8"))
    rows: dict[str, int] = found["rows"]
    scans = [
        Scan(" ".join(entry["statement"].split()), node["Node Type"], table, rows.get(table, 0))
        for entry in found["plans"]
        for node in _read_whole(entry["plan"], is_limited=False)
        if rows.get(table := node["Relation Name"], 0) >= LARGE_ROWS
    ]
    return Plans(len(found["plans"]), tuple(dict.fromkeys(scans)))


def _read_whole(node: dict[str, Any], *, is_limited: bool) -> Iterator[dict[str, Any]]:
    """Yield the nodes that read every row: without an index, or by one in which nothing is looked up.

    An index that is walked in its order until a page is full reads that page alone.
    """
    kind = node["Node Type"]
    is_walk = kind in _WALKS and "Index Cond" not in node and not is_limited
    if node.get("Index Name") in PARTIAL:
        is_walk = False
    if "Seq Scan" in kind or is_walk:
        yield node
    is_limited = kind == "Limit" or (is_limited and kind not in {"Sort", "Aggregate", "Hash"})
    for child in node.get("Plans", ()):
        yield from _read_whole(child, is_limited=is_limited)
