"""How Alembic runs the migrations: on the connection that the caller opened, one process at a time."""

from alembic import context
from sqlalchemy import text

from backend.db.models import Base

TURN = 0x74726B6C6D696772
"""PostgreSQL's advisory lock of whoever migrates; released with the transaction. SQLite has one writer."""

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    milliseconds = round(1000 * context.config.attributes["lock_seconds"])
    connection.execute(text(f"SET LOCAL lock_timeout = {milliseconds}"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": TURN})
context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
