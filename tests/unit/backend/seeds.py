"""What most tests begin with is made once, and put into each test's own database and state folder.

A first start, a sign-in and the enrolment of three parties take longer than most tests that begin with them.
What is put in is what they wrote, byte for byte: tests share no row and no file, only keys, ids and secrets
are the same.
"""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from backend.db import Database
from backend.db.models import Base
from backend.settings import Settings

_MAX_SETTINGS = 8
"""Beyond so many, settings are those of one test each, and nobody comes back for what was kept."""

_NOWHERE = {"state_dir": Path(), "database_url": SecretStr("")}


@dataclass(frozen=True)
class _Seed:
    settings: Settings
    moment: datetime
    fill: Callable[[Database], None]
    state: Path
    told: Any


class Seeds:
    """What was kept in this session, by the name of how far it goes.

    Args:
        folder: For the state folders.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, count()
        self._kept: dict[tuple[str, str], list[_Seed]] = {}

    def put(self, name: str, settings: Settings, database: Database, *, now: datetime) -> Any:
        """Put what was kept under these settings at this moment in the place of all that is there.

        Returns:
            What :meth:`keep` was told; None if nothing was kept, and nothing was changed.
        """
        for seed in self._kept.get((name, database.engine.dialect.name), ()):
            if seed.moment == now and seed.settings == settings.model_copy(update=_NOWHERE):
                seed.fill(database)
                shutil.copytree(seed.state, settings.state_dir, dirs_exist_ok=True)
                return seed.told
        return None

    def keep(self, name: str, settings: Settings, database: Database, told: Any, *, now: datetime) -> bool:
        """Keep rows and state folder, and what a test has to be told of them; tell whether there was room."""
        seeds = self._kept.setdefault((name, database.engine.dialect.name), [])
        if len(seeds) == _MAX_SETTINGS:
            return False
        state = self._folder / str(next(self._number))
        shutil.copytree(settings.state_dir, state)
        keep_rows = _keep_file if database.engine.dialect.name == "sqlite" else _keep_tables
        seeds.append(_Seed(settings.model_copy(update=_NOWHERE), now, keep_rows(database), state, told))
        return True


def empty_tables(database: Database) -> None:
    """Delete every row of a PostgreSQL database, in one statement; its audit too, which it would keep."""
    _alone_with_tables(database, lambda _: None)


def _keep_file(database: Database) -> Callable[[Database], None]:
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    _with_driver(database, lambda driver: driver.backup(copy))
    return lambda other: _with_driver(other, copy.backup)


def _keep_tables(database: Database) -> Callable[[Database], None]:
    """Rows as PostgreSQL itself writes and reads them; its sequences have gone past their numbers."""
    tables: dict[str, bytes] = {}

    def copy(driver: Any) -> None:
        for table in Base.metadata.sorted_tables:
            with driver.cursor().copy(f"COPY {table.name} TO STDOUT") as rows:
                tables[table.name] = b"".join(rows)

    def fill(driver: Any) -> None:
        for name, content in tables.items():
            if content:
                with driver.cursor().copy(f"COPY {name} FROM STDIN") as rows:
                    rows.write(content)

    _with_driver(database, copy)
    return lambda other: _alone_with_tables(other, fill)


def _alone_with_tables(database: Database, fill: Callable[[Any], None]) -> None:
    """Empty the tables, then fill them; no trigger writes or refuses, and no reference is looked after."""
    emptied = "; ".join(f"DELETE FROM {table.name}" for table in Base.metadata.sorted_tables)  # noqa: S608

    def change(driver: Any) -> None:
        driver.execute(f"SET LOCAL session_replication_role = replica; {emptied}")
        fill(driver)
        driver.commit()

    _with_driver(database, change)


def _with_driver(database: Database, use: Callable[[Any], None]) -> None:
    connection = database.engine.raw_connection()
    try:
        use(connection.driver_connection)
    finally:
        connection.close()
