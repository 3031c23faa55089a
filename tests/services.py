"""PostgreSQL and Redis for tests: found where they usually are, required where the environment says so."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

REDIS_URL = "redis://127.0.0.1:6379/13"


def find_postgresql() -> URL:
    """Return the PostgreSQL server where databases may be made: the socket, or the loopback."""
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
    return absent(
        f"no PostgreSQL server at {' or '.join(urls)}; start one, or set TRUNKLINE_TEST_DATABASE_URL"
    )


@contextmanager
def new_postgresql_database(server: URL) -> Iterator[str]:
    """Make an empty database, yield its URL, and drop it."""
    name = f"trunkline_test_{secrets.token_hex(6)}"
    _run(server, f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        _run(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def emptied_redis() -> Iterator[str]:
    """Yield the URL of a Redis database that nothing else uses, empty before and after."""
    with Redis.from_url(REDIS_URL) as server:
        try:
            server.ping()
        except RedisConnectionError as error:
            absent(f"no Redis server at {REDIS_URL}: {error}")
        server.flushdb()
        yield REDIS_URL
        server.flushdb()


def absent(message: str) -> NoReturn:
    if os.environ.get("TRUNKLINE_REQUIRE_SERVICES") == "1":  # noqa: TID251 - see above
        pytest.fail(message)
    pytest.skip(message)


def _run(server: URL, statement: str) -> None:
    engine = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
