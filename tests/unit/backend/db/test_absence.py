"""Which errors of a database mean: ask again in a moment."""

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from backend.db import Database
from backend.db.absence import is_away
from splitlearn.processes import free_port
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World


@contextmanager
def raised() -> Iterator[list[SQLAlchemyError]]:
    found: list[SQLAlchemyError] = []
    with pytest.raises(SQLAlchemyError) as caught:
        yield found
    found.append(caught.value)


class TestIsAway:
    def test_nobody_listens_at_the_port(self) -> None:
        database = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
        with raised() as found, database.read() as session:
            session.execute(text("SELECT 1"))
        assert is_away(found[0])

    def test_server_ended_under_a_transaction(self, empty_postgresql_url: str) -> None:
        database = Database(empty_postgresql_url)
        with raised() as found, database.write() as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            with psycopg.connect(empty_postgresql_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [pid])
            session.execute(text("SELECT 1"))
        database.dispose()
        assert is_away(found[0])

    def test_sqlite_that_another_one_keeps_locked(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path / 'locked.db'}", busy_timeout_seconds=0.05)
        with database.write() as first:
            first.execute(text("SELECT 1"))  # begins the transaction
            with raised() as found, database.write() as second:
                second.execute(text("SELECT 1"))
        database.dispose()
        assert is_away(found[0])

    def test_two_transactions_wait_for_each_other(self, empty_postgresql_url: str) -> None:
        database = Database(empty_postgresql_url)
        with database.write() as session:
            session.execute(text("CREATE TABLE pair AS SELECT * FROM (VALUES (1), (2)) AS rows (number)"))
        lock = "SELECT number FROM pair WHERE number = {} FOR UPDATE"
        with raised() as found, database.write() as session:
            session.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
            session.execute(text(lock.format(1)))
            with psycopg.connect(empty_postgresql_url) as other, ThreadPoolExecutor(1) as thread:
                other.execute("SET deadlock_timeout = '1h'")  # it is the first that is told
                other.execute(lock.format(2))
                waiting = thread.submit(other.execute, lock.format(1))
                try:
                    while not session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                        time.sleep(0.01)
                    session.execute(text(lock.format(2)))
                finally:
                    session.rollback()
                    waiting.result()
        database.dispose()
        assert is_away(found[0])

    def test_no_connection_is_left_in_the_pool(self) -> None:
        assert is_away(PoolTimeoutError())

    @pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
    def test_a_statement_of_ours_that_is_wrong_is_a_bug(self, empty_database: Database) -> None:
        with raised() as found, empty_database.read() as session:
            session.execute(text("SELECT * FROM gone"))
        assert isinstance(found[0], DBAPIError)
        assert not is_away(found[0])

    def test_a_broken_rule_of_the_table_is_none(self) -> None:
        error = IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed"))
        assert not is_away(error)
        assert not is_away(ValueError())


class _Absent:
    """An engine's place taken by one that cannot connect."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __enter__(self) -> None:
        database = self._world.server.database
        self._engine = database.engine
        database.engine = create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none")

    def __exit__(self, *_: object) -> None:
        database = self._world.server.database
        database.engine.dispose()
        database.engine = self._engine


class TestRequest:
    @ON_SQLITE_ALONE
    def test_is_asked_to_come_again_while_the_database_is_away(self, world: World) -> None:
        with _Absent(world):
            answer = world.admin("GET", "/jobs")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "1"
        assert "database" in answer.json()["message"]
        assert "127.0.0.1" not in answer.text
        assert world.admin("GET", "/jobs").status_code == 200
