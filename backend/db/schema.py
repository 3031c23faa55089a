"""The schema's version: upgrade, downgrade, and the refusal to work on another one."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from backend.db.database import Database
from splitlearn.errors import StorageError

_BACKEND = Path(__file__).resolve().parents[1]
DEFAULT_LOCK_SECONDS = 10.0
_LOCKED = ("lock timeout", "database is locked")  # as PostgreSQL and SQLite say it


class SchemaVersionError(StorageError):
    """The database is behind or ahead of this code."""

    code = "schema_version"


class SchemaLockedError(StorageError):
    """Another program held a lock for too long; nothing was changed."""

    code = "schema_locked"


def upgrade(
    database: Database, *, revision: str = "head", lock_seconds: float = DEFAULT_LOCK_SECONDS
) -> None:
    """Bring the database to a revision, by default this code's newest, in one transaction.

    Two at once exclude each other; the later one finds nothing left to do.

    Args:
        database: What is brought there.
        revision: Where to.
        lock_seconds: How long PostgreSQL may wait for one lock. While it waits for a table, every other
            program waits behind it. SQLite has one lock, and ``Database`` says how long to wait for it.

    Raises:
        SchemaVersionError: It is ahead of this code.
        SchemaLockedError: A lock was not to be had in that time; nothing has changed.
        StorageError: It cannot be reached.
    """
    found = current_revision(database)
    if found is not None:
        _refuse_unknown(found)
    _run(database, lambda config: command.upgrade(config, revision), lock_seconds=lock_seconds)


def downgrade(database: Database, *, revision: str, lock_seconds: float = DEFAULT_LOCK_SECONDS) -> None:
    """Take the database back to a revision; ``base`` removes every table and all data.

    Raises:
        SchemaLockedError: As of :func:`upgrade`.
    """
    _run(database, lambda config: command.downgrade(config, revision), lock_seconds=lock_seconds)


def check_models(database: Database) -> None:
    """Refuse models that differ from the migrated tables.

    Raises:
        alembic.util.CommandError: Names the differences; write a migration.
    """
    _run(database, command.check, lock_seconds=DEFAULT_LOCK_SECONDS)


def check_schema(database: Database) -> None:
    """Refuse a database that this code was not written for.

    Raises:
        SchemaVersionError: Behind, ahead, or a file that nobody has made yet; the message says what to do.
        StorageError: The database cannot be reached.
    """
    _refuse_missing_file(database)
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    found = current_revision(database)
    if found == wanted:
        return
    if found is not None:
        _refuse_unknown(found)
    raise SchemaVersionError(
        f"the database is at revision {found or 'none'}, this version needs {wanted}; "
        "stop the server, make a backup, and run: trunkline db upgrade"
    )


def _refuse_missing_file(database: Database) -> None:
    url = database.engine.url
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        raise SchemaVersionError(f"there is no database {url.database} yet; make it by: trunkline db upgrade")


def _refuse_unknown(found: str) -> None:
    script = ScriptDirectory.from_config(_config())
    if found not in {revision.revision for revision in script.walk_revisions()}:
        raise SchemaVersionError(
            f"the database is at revision {found}, which this version does not know (it ends at "
            f"{script.get_current_head()}); it was upgraded by a newer version: install that version again"
        )


def current_revision(database: Database) -> str | None:
    """Return the revision that the database is at, or None for an empty one.

    Raises:
        StorageError: The database cannot be reached.
    """
    try:
        with database.read() as session:  # SQLite's one writer is not waited for
            return MigrationContext.configure(session.connection()).get_current_revision()
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise StorageError(
            f"the database {database.engine.url.render_as_string()} cannot be used: {reason}; "
            "check TRUNKLINE_DATABASE_URL, and that the server runs"
        ) from error


def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the package when installed, else beside it."""
    inside, beside = _BACKEND / "migrations", _BACKEND.parent / "migrations"
    return inside if inside.is_dir() else beside


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run(database: Database, action: Callable[[Config], None], *, lock_seconds: float) -> None:
    config = _config()
    config.attributes["lock_seconds"] = lock_seconds
    try:
        with _transaction(database) as connection:
            config.attributes["connection"] = connection
            action(config)
    except OperationalError as error:
        if not any(sign in str(error.orig) for sign in _LOCKED):
            raise
        raise SchemaLockedError(
            "another program keeps the database locked, and nothing was changed; stop the API, end what else "
            "works on the database (PostgreSQL: SELECT pid, query FROM pg_stat_activity), and try again"
        ) from error


@contextmanager
def _transaction(database: Database) -> Iterator[Connection]:
    """One transaction; in SQLite references are checked at its end, for a table is changed by making it anew.

    That is what SQLite itself asks for (lang_altertable, section 7): while it watches references, dropping
    the old table would first delete its rows, and with them or instead of them those that refer to it.
    """
    with database.engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            with connection.begin():
                yield connection
            return
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.execute("PRAGMA foreign_keys=OFF")  # has no effect inside a transaction
        try:
            with connection.begin():
                yield connection
                _refuse_dangling(connection)
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _refuse_dangling(connection: Connection) -> None:
    found = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if found is not None:
        raise StorageError(
            f"after this migration a row of {found[0]} would refer to one of {found[2]} that is not there; "
            "nothing was changed; restore a backup, or report it"
        )
