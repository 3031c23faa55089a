"""One time for all processes on a database, whatever their machines say."""

import threading
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import OperationalError

from backend.clock import system_clock
from backend.db import Database
from backend.db.clock import DatabaseClock, shared_clock

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Counter:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Asked:
    """A database that tells moments, or is away; notes who asked."""

    def __init__(self, *answers: datetime | None) -> None:
        self._answers = list(answers)
        self.was_asked = threading.Semaphore(0)

    def __call__(self) -> datetime:
        answer = self._answers.pop(0)
        self.was_asked.release()
        if answer is None:
            raise OperationalError("SELECT", {}, Exception("away"))
        return answer


def until(clock: DatabaseClock, moment: datetime) -> None:
    for _ in range(1000):
        if clock() == moment:
            return
        threading.Event().wait(0.005)
    assert clock() == moment


class TestDatabaseClock:
    def test_goes_on_from_what_the_database_told(self) -> None:
        steady = Counter()
        clock = DatabaseClock(Asked(NOON), steady=steady)
        steady.seconds += 20
        assert clock() == NOON + timedelta(seconds=20)

    def test_is_set_again_after_a_while(self) -> None:
        steady, later = Counter(), NOON + timedelta(days=1)
        clock = DatabaseClock(Asked(NOON, later), steady=steady)
        steady.seconds += 31
        assert clock() == NOON + timedelta(seconds=31)  # nobody waits for the answer
        until(clock, later)

    def test_outlasts_a_database_that_is_away(self) -> None:
        steady, asked = Counter(), Asked(NOON, None, NOON + timedelta(hours=1))
        clock = DatabaseClock(asked, steady=steady)
        steady.seconds += 31
        clock()
        assert [asked.was_asked.acquire(timeout=10) for _ in range(2)] == [True, True]
        assert clock() == NOON + timedelta(seconds=31)
        while clock._is_asking:
            threading.Event().wait(0.005)
        steady.seconds += 31
        clock()
        until(clock, NOON + timedelta(hours=1))


class TestSharedClock:
    def test_of_a_file_is_this_machines(self) -> None:
        assert shared_clock(Database("sqlite://")) is system_clock

    def test_of_a_server_is_its_own(self, empty_postgresql_url: str) -> None:
        database = Database(empty_postgresql_url)
        told = shared_clock(database)()
        database.dispose()
        assert told.tzinfo is UTC
        assert abs((told - system_clock()).total_seconds()) < 5  # the same machine here
