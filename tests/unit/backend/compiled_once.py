"""Statements are compiled, and migrations read, once for all tests, not once in each test.

SQLAlchemy keeps what it compiled with an engine and its dialect, and a test opens engines of its own, on its
own database; a server looks at its start which migration is the newest. A program does either once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from backend.db import database, schema


@contextmanager
def compiled_once() -> Iterator[None]:
    """Have engines on one server share what they compiled, and those on SQLite files likewise."""
    make = database._make_engine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_make_engine", _Sharing(make))
        patch.setattr(schema, "ScriptDirectory", _ReadOnce())
        yield


class _Sharing:
    def __init__(self, make: Callable[..., Engine]) -> None:
        self._make = make
        self._first: dict[Any, Engine] = {}

    def __call__(self, url: str, **how: Any) -> Engine:
        engine = self._make(url, **how)
        server = engine.url.set(database=None)
        first = self._first.setdefault(server, engine)
        if first.dialect.server_version_info is None:  # it never reached its server: it knows nothing yet
            self._first[server] = engine
        else:
            engine.dialect = engine.pool._dialect = first.dialect
            engine._compiled_cache = first._compiled_cache
        return engine


class _ReadOnce:
    """Alembic's folder of migrations, as far as the version of a database is judged by it."""

    def __init__(self) -> None:
        self._read: dict[str | None, ScriptDirectory] = {}

    def from_config(self, config: Config) -> ScriptDirectory:
        folder = config.get_main_option("script_location")
        if folder not in self._read:
            self._read[folder] = ScriptDirectory.from_config(config)
        return self._read[folder]
