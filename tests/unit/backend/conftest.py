"""Both databases, built by the migrations; PostgreSQL's are thrown away after each test."""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

from backend.db import Database, upgrade

DATABASES = ("sqlite", "postgresql")


def _server_url() -> URL:
    """The PostgreSQL server where throw-away databases may be made: the socket, or the loopback."""
    given = os.environ.get("TRUNKLINE_TEST_DATABASE_URL")  # noqa: TID251 - the tests' own setting
    urls = [given] if given else ["postgresql:///postgres", "postgresql://postgres@127.0.0.1:5432/postgres"]
    for url in map(make_url, urls):
        engine = create_engine(url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": 3})
        try:
            engine.connect().close()
        except OperationalError:
            continue
        finally:
            engine.dispose()
        return url
    message = f"no PostgreSQL server at {' or '.join(urls)}; start one, or set TRUNKLINE_TEST_DATABASE_URL"
    if os.environ.get("TRUNKLINE_REQUIRE_SERVICES") == "1":  # noqa: TID251 - see above
        pytest.fail(message)
    pytest.skip(message)


def _run(server: URL, statement: str) -> None:
    engine = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def postgresql_server() -> URL:
    return _server_url()


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: URL) -> Iterator[str]:
    name = f"trunkline_test_{secrets.token_hex(6)}"
    _run(postgresql_server, f"CREATE DATABASE {name}")
    database = Database(postgresql_server.set(database=name).render_as_string(hide_password=False))
    upgrade(database)
    database.dispose()
    yield name
    _run(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "trunkline.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.dispose()
    return path


@pytest.fixture
def empty_postgresql_url(postgresql_server: URL) -> Iterator[str]:
    name = f"trunkline_test_{secrets.token_hex(6)}"
    _run(postgresql_server, f"CREATE DATABASE {name}")
    yield postgresql_server.set(database=name).render_as_string(hide_password=False)
    _run(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def migrated_postgresql_url(postgresql_server: URL, postgresql_template: str) -> Iterator[str]:
    name = f"trunkline_test_{secrets.token_hex(6)}"
    _run(postgresql_server, f"CREATE DATABASE {name} TEMPLATE {postgresql_template}")
    yield postgresql_server.set(database=name).render_as_string(hide_password=False)
    _run(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=DATABASES)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'trunkline.db'}"
    else:
        url = request.getfixturevalue("empty_postgresql_url")
    database = Database(url)
    yield database
    database.dispose()


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        path = tmp_path / "trunkline.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        url = f"sqlite:///{path}"
    else:
        url = request.getfixturevalue("migrated_postgresql_url")
    database = Database(url)
    yield database
    database.dispose()
