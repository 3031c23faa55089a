"""Leases of a worker by when they were released: of all that it ever had, the newest are looked for."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index; the old one is its beginning."""
    op.create_index(
        op.f("ix_leases_worker_id_released_at"), "leases", ["worker_id", "released_at"], unique=False
    )
    op.drop_index(op.f("ix_leases_worker_id"), table_name="leases")


def downgrade() -> None:
    """Put the old one back."""
    op.create_index(op.f("ix_leases_worker_id"), "leases", ["worker_id"], unique=False)
    op.drop_index(op.f("ix_leases_worker_id_released_at"), table_name="leases")
