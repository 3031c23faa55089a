"""Fixtures that every test folder may use."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy.engine import URL

from tests import services

# One thread: results are compared bit for bit, and several test runs may share the cores.
torch.set_num_threads(1)

# Started in the background by a shell, this process ignores Ctrl-C, and so would every program of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of public data sets and models.

    Skips where it is absent, unless ``TRUNKLINE_REQUIRE_TEST_DATA=1`` says that it must not be.
    """
    folder = Path(os.environ.get("TRUNKLINE_TEST_DATA", "../shared"))  # noqa: TID251 - the tests' one setting
    if not (folder / "models").is_dir():
        message = f"no public test data at {folder}; set TRUNKLINE_TEST_DATA to its folder"
        if os.environ.get("TRUNKLINE_REQUIRE_TEST_DATA") == "1":  # noqa: TID251 - see above
            pytest.fail(message)
        pytest.skip(message)
    return folder.resolve()


@pytest.fixture(scope="session")
def postgresql_server() -> URL:
    """A PostgreSQL server where databases may be made."""
    return services.find_postgresql()


@pytest.fixture
def empty_postgresql_url(postgresql_server: URL) -> Iterator[str]:
    """The URL of an empty database, which the test may fill."""
    with services.new_postgresql_database(postgresql_server) as url:
        yield url


@pytest.fixture
def redis_url() -> Iterator[str]:
    """The URL of a Redis database that nothing else uses."""
    with services.emptied_redis() as url:
        yield url
