"""The control plane of the unit tests, on SQLite: the contract does not depend on the database."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.db import Database
from tests.unit.backend.conftest import clock as clock
from tests.unit.backend.conftest import seeds as seeds
from tests.unit.backend.conftest import settings as settings
from tests.unit.backend.conftest import shared_client as shared_client
from tests.unit.backend.conftest import sqlite_template as sqlite_template
from tests.unit.backend.conftest import world as world
from tests.unit.packaging.conftest import agent_wheel as agent_wheel
from tests.unit.packaging.conftest import platform_wheel as platform_wheel
from tests.unit.packaging.conftest import tree as tree


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "trunkline.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()
