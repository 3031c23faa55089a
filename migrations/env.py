"""How Alembic runs the migrations: on the connection that the caller opened."""

from alembic import context

from backend.db.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
