"""The database: typed tables, one engine, transactions, and the schema's version."""

from backend.db.database import Database, wake_listeners
from backend.db.schema import SchemaVersionError, check_schema, downgrade, upgrade

__all__ = ["Database", "SchemaVersionError", "check_schema", "downgrade", "upgrade", "wake_listeners"]
