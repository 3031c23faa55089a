"""The API as it is, but that it writes down its statements, and how PostgreSQL would answer them.

``python -m bench.api_recording PLANS.json``; the file is written when it ends.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, event

from backend.cli.operator import api
from backend.db import Database
from backend.settings import Settings

_EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
_VALUES = re.compile(r"%\(\w+\)s(?:::[\w ]+)?(?:, %\(\w+\)s(?:::[\w ]+)?)*")
_ROWS = re.compile(r"\(%\)(?:, \(%\))+")
_SIZES = "SELECT relname, reltuples FROM pg_class WHERE relkind = 'r'"
_EACH_FORM = 3
"""Lists of values differ in length: so many lengths of a statement are enough."""


class Recording:
    """Keeps statements with the parameters that they were first asked with."""

    def __init__(self) -> None:
        self._asked: dict[str, Any] = {}
        self._forms: dict[str, int] = {}

    def begin(self) -> None:
        """Listen to every engine of this process."""
        event.listen(Engine, "before_cursor_execute", self._note)

    def _note(
        self,
        _connection: object,
        _cursor: object,
        statement: str,
        parameters: Any,
        _context: object,
        executemany: bool,  # noqa: FBT001 - SQLAlchemy's signature
    ) -> None:
        if statement in self._asked or not statement.lstrip().startswith(_EXPLAINED):
            return
        form = _ROWS.sub("(%)", _VALUES.sub("%", statement))
        self._forms[form] = self._forms.get(form, 0) + 1
        if self._forms[form] <= _EACH_FORM:
            self._asked[statement] = (
                parameters[0] if executemany and isinstance(parameters, Sequence) else parameters
            )

    def explain(self, database_url: str) -> dict[str, Any]:
        """Return how each would be answered, without carrying it out, and how many rows tables have."""
        asked = dict(self._asked)
        database = Database(database_url)  # for its connections, on which the control plane asks
        with database.engine.connect() as held:
            connection = held.connection.driver_connection
            assert isinstance(connection, psycopg.Connection)
            sizes = connection.execute(_SIZES).fetchall()
            plans = [
                {"statement": statement, "plan": _plan(connection, statement, parameters)}
                for statement, parameters in asked.items()
            ]
        database.dispose()
        return {"rows": {name: int(rows) for name, rows in sizes}, "plans": plans}


def _plan(connection: psycopg.Connection[Any], statement: str, parameters: Any) -> Any:
    row = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters).fetchone()
    assert row is not None
    return row[0][0]["Plan"]


if __name__ == "__main__":
    recording = Recording()
    recording.begin()
    api()
    plans = recording.explain(Settings().resolved_database_url)
    Path(sys.argv[1]).write_text(json.dumps(plans), encoding="utf-8")
