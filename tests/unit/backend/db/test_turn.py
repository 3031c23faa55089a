"""One process at a time: its end, its connection's end, and its silence give the turn to another."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from backend.db import Database
from backend.db.turn import Lock, Turn, turn_lock

_HOLD = """
import sys, time, pathlib
from backend.db import Database
from backend.db.turn import turn_lock
lock = turn_lock(Database(sys.argv[1]), "work", folder=pathlib.Path(sys.argv[2]))
print(lock.hold(), flush=True)
time.sleep(600)
"""


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Two:
    """Two processes' locks on one database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.first: Lock = turn_lock(database, "work", folder=folder)
        self.second: Lock = turn_lock(database, "work", folder=folder)
        self.other_work: Lock = turn_lock(database, "other", folder=folder)


@pytest.fixture
def two(database: Database, tmp_path: Path) -> Iterator[Two]:
    two = Two(database, tmp_path)
    yield two
    for lock in (two.first, two.second, two.other_work):
        lock.release()


class TestLock:
    def test_one_holds_it_at_a_time(self, two: Two) -> None:
        assert [two.first.hold(), two.second.hold(), two.first.hold()] == [True, False, True]
        two.first.release()
        assert [two.second.hold(), two.first.hold()] == [True, False]

    def test_other_work_has_its_own(self, two: Two) -> None:
        assert [two.first.hold(), two.other_work.hold()] == [True, True]

    def test_of_a_killed_process_is_free(self, two: Two, tmp_path: Path) -> None:
        url = two.database.engine.url.render_as_string(hide_password=False)
        holder = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            [sys.executable, "-c", _HOLD, url, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "True\n"
            assert not two.first.hold()
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
        assert any(two.first.hold() for _ in range(200))

    @pytest.mark.parametrize("database", ["postgresql"], indirect=True)
    def test_is_lost_with_its_connection(self, two: Two) -> None:
        assert two.first.hold()
        with two.database.write() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks "
                    "WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database "
                    "WHERE datname = current_database())"
                )
            )
        assert two.second.hold()
        turn = Turn(two.first, on_taken=lambda: None)
        turn.look()
        turn.look()
        assert not turn.is_mine

    @pytest.mark.parametrize("database", ["postgresql"], indirect=True)
    def test_the_server_ends_a_holder_that_hangs(self, two: Two) -> None:
        """Asked of the connection's settings; to wait for it takes ten seconds."""
        assert two.first.hold()
        connection = two.first._connection  # type: ignore[attr-defined]
        assert connection.scalar(text("SHOW idle_session_timeout")) == "10s"

    @pytest.mark.slow
    @pytest.mark.parametrize("database", ["postgresql"], indirect=True)
    def test_of_a_process_that_hangs_is_free_after_some_seconds(self, two: Two, tmp_path: Path) -> None:
        url = two.database.engine.url.render_as_string(hide_password=False)
        holder = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            [sys.executable, "-c", _HOLD, url, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "True\n"
            os.kill(holder.pid, signal.SIGSTOP)
            until = time.monotonic() + 30
            while not (is_ours := two.first.hold()) and time.monotonic() < until:
                time.sleep(1)
            holder.kill()
        assert is_ours


class ScriptedLock:
    def __init__(self) -> None:
        self.answer: bool | Exception = True

    def hold(self) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def release(self) -> None:
        self.answer = False


class TestTurn:
    def test_is_told_once_when_taken(self) -> None:
        told: list[bool] = []
        lock = ScriptedLock()
        turn = Turn(lock, on_taken=lambda: told.append(True))
        for answer in (False, True, True, False, True):
            lock.answer = answer
            turn.look()
            assert turn.is_mine is answer
        assert told == [True, True]

    def test_is_lost_when_nothing_can_be_known(self) -> None:
        lock = ScriptedLock()
        turn = Turn(lock, on_taken=lambda: None)
        turn.look()
        lock.answer = OSError("gone")
        turn.look()
        assert not turn.is_mine

    def test_is_not_trusted_by_a_process_that_hung(self) -> None:
        clock = Clock()
        turn = Turn(ScriptedLock(), on_taken=lambda: None, clock=clock)
        turn.look()
        clock.seconds += 5
        assert not turn.is_mine
        turn.look()
        assert turn.is_mine
