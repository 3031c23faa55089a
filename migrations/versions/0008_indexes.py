"""Indexes that every question finds its rows by, so that none reads a table of many jobs from end to end.

On PostgreSQL the index over ten million numbers takes some ten seconds, in which none is written.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_OPEN = sa.text("released_at IS NULL")
_ADDED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("artifacts", ("job_id", "created_at", "id")),
    ("artifacts", ("project_id", "digest", "num_bytes")),
    ("job_log_lines", ("job_id", "number")),
    ("jobs", ("model_id",)),
    ("jobs", ("project_id", "created_at", "id")),
    ("jobs", ("project_id", "name", "created_at", "id")),
    ("jobs", ("project_id", "state", "created_at", "id")),
    ("jobs", ("result_id",)),
    ("jobs", ("state", "created_at")),
    ("metrics", ("job_id", "name", "number")),
    ("rounds", ("checkpoint_id",)),
    ("sign_in_attempts", ("blocked_until",)),
    ("silos", ("organization_id", "name")),
    ("workers", ("organization_id", "name")),
)
_REPLACED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("artifacts", ("job_id",)),
    ("artifacts", ("project_id",)),
    ("jobs", ("project_id", "created_at")),
    ("jobs", ("project_id", "state")),
    ("silos", ("organization_id",)),
    ("workers", ("organization_id",)),
)


def upgrade() -> None:
    """Add them, and remove those that are the beginning of another one now."""
    for table, columns in _ADDED:
        op.create_index(_name(table, columns), table, list(columns), unique=False)
    for table, columns in _REPLACED:
        op.drop_index(_name(table, columns), table_name=table)
    op.create_index(
        "ix_leases_open", "leases", ["worker_id"], unique=False, postgresql_where=_OPEN, sqlite_where=_OPEN
    )


def downgrade() -> None:
    """Put the old ones back."""
    op.drop_index("ix_leases_open", table_name="leases", postgresql_where=_OPEN, sqlite_where=_OPEN)
    for table, columns in _REPLACED:
        op.create_index(_name(table, columns), table, list(columns), unique=False)
    for table, columns in _ADDED:
        op.drop_index(_name(table, columns), table_name=table)


def _name(table: str, columns: tuple[str, ...]) -> str:
    return op.f(f"ix_{table}_{'_'.join(columns)}")
