"""Migrating with people's data in the tables, with others at work, and twice at once; on both databases."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, select, text
from sqlalchemy.exc import OperationalError

from backend.db import Database, check_schema, downgrade, schema, upgrade
from backend.db.schema import SchemaLockedError, current_revision
from tests.unit.backend.jobs.conftest import Federation
from tests.unit.backend.jobs.conftest import federation as federation  # noqa: PLC0414 - handed on

ROOT = Path(__file__).parents[4]
SHORT_SECONDS = 0.3
FIRST, *LATER = [
    script.revision
    for script in reversed(list(ScriptDirectory(str(schema.migrations_folder())).walk_revisions()))
]
Columns = dict[str, set[str]]


@pytest.fixture
def database(fresh_database: Database) -> Database:
    """One whose tables may be changed: the others share theirs."""
    return fresh_database


@pytest.fixture
def used_database(federation: Federation) -> Database:
    """One with people, parties, invitations, audit rows, and jobs that run and that have ended."""
    federation.running()
    federation.world.invited("west")
    federation.world.user("rosa", "researcher")
    ended = federation.submit(name="ended")
    federation.world.admin.ok("POST", f"/jobs/{ended}/cancel")
    return federation.world.server.database


class TestWithData:
    def test_every_step_down_and_up_again_keeps_what_both_ends_know(self, used_database: Database) -> None:
        newest, before = columns_of(used_database), contents_of(used_database)
        kept = dict(newest)
        for revision in reversed([FIRST, *LATER[:-1]]):
            downgrade(used_database, revision=revision)
            there = columns_of(used_database)
            kept = {name: kept[name] & there[name] for name in kept.keys() & there.keys()}
        assert current_revision(used_database) == FIRST
        assert kept.keys() >= {"audit_rows", "federation", "memberships", "organizations", "users"}
        for revision in LATER:
            upgrade(used_database, revision=revision)
        check_schema(used_database)
        assert columns_of(used_database) == newest
        after = contents_of(used_database)
        for name, columns in kept.items():
            assert only(columns, after[name]) == only(columns, before[name]), name
        assert sum(len(after[name]) for name in kept) > 20

    def test_base_removes_everything(self, used_database: Database) -> None:
        downgrade(used_database, revision="base")
        assert columns_of(used_database) == {}


class TestLocks:
    def test_a_program_that_holds_one_is_not_waited_for_long(self, database: Database) -> None:
        downgrade(database, revision=FIRST)
        impatient = Database(
            database.engine.url.render_as_string(hide_password=False), busy_timeout_seconds=SHORT_SECONDS
        )
        begin = time.monotonic()
        with someone_at_work(database), pytest.raises(SchemaLockedError, match="nothing was changed; stop"):
            upgrade(impatient, lock_seconds=SHORT_SECONDS)
        assert time.monotonic() - begin < 10
        assert current_revision(database) == FIRST
        upgrade(impatient, lock_seconds=SHORT_SECONDS)
        check_schema(database)
        impatient.dispose()

    def test_another_failure_is_not_called_a_lock(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OperationalError("SELECT", {}, Exception("disk full"))

        monkeypatch.setattr("alembic.command.upgrade", fail)
        with pytest.raises(OperationalError, match="disk full"):
            upgrade(database)

    def test_two_at_once_both_find_it_done(self, empty_database: Database, tmp_path: Path) -> None:
        url = empty_database.engine.url.set(drivername=empty_database.engine.url.get_backend_name())
        environment = {
            "PATH": os.defpath,
            "TRUNKLINE_STATE_DIR": str(tmp_path),
            "TRUNKLINE_DATABASE_URL": url.render_as_string(hide_password=False),
        }
        command = [sys.executable, "-m", "backend.cli", "db", "upgrade"]
        both = [
            subprocess.Popen(command, env=environment, cwd=ROOT, stdout=PIPE, stderr=PIPE)  # noqa: S603 - ours
            for _ in range(2)
        ]
        ended = [(process.communicate(timeout=60)[1], process.returncode) for process in both]
        assert [code for _, code in ended] == [0, 0], ended
        check_schema(empty_database)


class TestHistory:
    def test_files_are_numbered_in_the_order_that_they_run(self) -> None:
        assert [FIRST, *LATER] == [f"{number:04d}" for number in range(1, len(LATER) + 2)]
        names = sorted(path.name for path in (schema.migrations_folder() / "versions").glob("*.py"))
        assert [name.partition("_")[0] for name in names] == [FIRST, *LATER]


@contextmanager
def someone_at_work(database: Database) -> Iterator[None]:
    """A transaction of another program that has read a table (PostgreSQL), or that writes (SQLite)."""
    with database.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE"))
        yield


def columns_of(database: Database) -> Columns:
    return {table.name: {column.name for column in table.columns} for table in reflected(database)}


def contents_of(database: Database) -> dict[str, list[dict[str, str]]]:
    with database.engine.connect() as connection:
        return {
            table.name: [
                {name: repr(value) for name, value in row._mapping.items()}
                for row in connection.execute(select(table))
            ]
            for table in reflected(database)
        }


def only(columns: set[str], rows: list[dict[str, str]]) -> list[list[tuple[str, str]]]:
    return sorted(sorted((name, row[name]) for name in columns) for row in rows)


def reflected(database: Database) -> list[Table]:
    """The tables as they are, but for Alembic's own."""
    metadata = MetaData()
    with database.engine.connect() as connection:
        metadata.reflect(connection)
    return [table for name, table in metadata.tables.items() if name != "alembic_version"]
