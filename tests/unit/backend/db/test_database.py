"""Transactions, on both databases."""

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.orm import Session

from backend.db import Database, wake_listeners
from backend.db.database import KeptError
from backend.db.models import Organization, Project
from splitlearn.errors import StorageError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def _names(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Organization.name).order_by(Organization.name)))


def _add(session: Session, name: str) -> None:
    session.add(Organization(name=name, created_at=NOW))
    session.flush()


def _add_and_raise(database: Database, error: Exception) -> None:
    with database.write() as session:
        _add(session, "north")
        raise error


class TestWrite:
    def test_commits_at_the_end(self, database: Database) -> None:
        with database.write() as session:
            _add(session, "north")
        assert _names(database) == ["north"]

    def test_rolls_back_after_an_error(self, database: Database) -> None:
        with pytest.raises(LookupError):
            _add_and_raise(database, LookupError())
        assert _names(database) == []

    def test_keeps_what_was_written_before_a_kept_error(self, database: Database) -> None:
        with pytest.raises(KeptError):
            _add_and_raise(database, KeptError())
        assert _names(database) == ["north"]

    def test_two_writers_lose_no_update(self, database: Database) -> None:
        with database.write() as session:
            organization = Organization(name="north", created_at=NOW)
            session.add(organization)
            session.flush()
            session.add(Project(organization_id=organization.id, name="p", created_at=NOW))

        def count_up() -> None:
            for _ in range(20):
                with database.write() as session:
                    project = session.scalars(select(Project).with_for_update()).one()
                    project.last_event_number += 1

        threads = [threading.Thread(target=count_up) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with database.read() as session:
            assert session.scalars(select(Project.last_event_number)).one() == 40

    def test_refuses_a_reference_to_nothing(self, database: Database) -> None:
        with pytest.raises(IntegrityError), database.write() as session:
            session.execute(
                text(
                    "INSERT INTO projects (id, organization_id, name, created_at) VALUES "
                    "('00000000000000000000000000000001', '00000000000000000000000000000002', 'p', "
                    "'2026-03-01 12:00:00')"
                )
            )


class TestListeners:
    def test_hears_of_what_was_written(self, database: Database) -> None:
        heard: list[str] = []
        database.on_commit(lambda: heard.append("written"))
        with database.write():
            pass
        assert heard == ["written"]

    def test_does_not_hear_of_what_nobody_waits_for(self, database: Database) -> None:
        heard: list[str] = []
        database.on_commit(lambda: heard.append("written"))
        with database.write(quietly=True):
            pass
        assert heard == []

    def test_hears_of_an_event_that_came_of_it_all_the_same(self, database: Database) -> None:
        heard: list[str] = []
        database.on_commit(lambda: heard.append("written"))
        with database.write(quietly=True) as session:
            wake_listeners(session)
        assert heard == ["written"]

    def test_does_not_hear_of_what_was_rolled_back(self, database: Database) -> None:
        heard: list[str] = []
        database.on_commit(lambda: heard.append("written"))
        with pytest.raises(ZeroDivisionError), database.write():
            raise ZeroDivisionError
        assert heard == []


class TestRead:
    def test_refuses_to_write(self, database: Database) -> None:
        with pytest.raises(DBAPIError, match=r"read.?only"), database.read() as session:
            _add(session, "north")

    def test_a_later_write_on_the_same_connection_is_allowed(self, database: Database) -> None:
        assert _names(database) == []
        with database.write() as session:
            _add(session, "north")
        assert _names(database) == ["north"]


class TestMoment:
    def test_comes_back_in_utc(self, database: Database) -> None:
        elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
        with database.write() as session:
            session.add(Organization(name="north", created_at=elsewhere))
        with database.read() as session:
            found = session.scalars(select(Organization.created_at)).one()
        assert (found, found.tzinfo) == (NOW, UTC)

    def test_without_a_zone_is_our_bug(self, database: Database) -> None:
        naive = NOW.replace(tzinfo=None)
        with (
            pytest.raises((AssertionError, StatementError), match="no time zone"),
            database.write() as session,
        ):
            session.add(Organization(name="north", created_at=naive))


class TestUrl:
    def test_of_another_kind_of_database_is_refused(self) -> None:
        with pytest.raises(StorageError, match=r"mysql.*sqlite"):
            Database("mysql://host/name")

    def test_that_is_none_is_refused_without_showing_it(self) -> None:
        with pytest.raises(StorageError) as caught:
            Database("secret")
        assert "secret" not in caught.value.message


class TestDispose:
    def test_closes_what_is_in_use_once_it_is_given_back(self, empty_postgresql_url: str) -> None:
        database = Database(empty_postgresql_url)
        with database.read() as session:
            used = session.connection().connection.dbapi_connection
            database.dispose()
        with database.read() as session:
            later = session.connection().connection.dbapi_connection
        assert (used.closed, later.closed) == (True, True)  # type: ignore[union-attr]
