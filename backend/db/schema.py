"""The schema's version: upgrade, downgrade, and the refusal to work on another one."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from backend.db.database import Database
from splitlearn.errors import StorageError

_BACKEND = Path(__file__).resolve().parents[1]


class SchemaVersionError(StorageError):
    """The database is behind or ahead of this code."""

    code = "schema_version"


def upgrade(database: Database, *, revision: str = "head") -> None:
    """Bring the database to a revision, by default this code's newest, in one transaction.

    Raises:
        SchemaVersionError: It is ahead of this code.
        StorageError: It cannot be reached.
    """
    found = current_revision(database)
    if found is not None:
        _refuse_unknown(found)
    _run(database, lambda config: command.upgrade(config, revision))


def downgrade(database: Database, *, revision: str) -> None:
    """Take the database back to a revision; ``base`` removes every table and all data."""
    _run(database, lambda config: command.downgrade(config, revision))


def check_models(database: Database) -> None:
    """Refuse models that differ from the migrated tables.

    Raises:
        alembic.util.CommandError: Names the differences; write a migration.
    """
    _run(database, command.check)


def check_schema(database: Database) -> None:
    """Refuse a database that this code was not written for.

    Raises:
        SchemaVersionError: Behind or ahead; the message says what to do.
        StorageError: The database cannot be reached.
    """
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
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
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


def _run(database: Database, action: Callable[[Config], None]) -> None:
    config = _config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        action(config)
