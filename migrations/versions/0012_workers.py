"""Workers that are drained, and when a project's jobs last gave a worker back."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; nobody is drained, and every project's turn comes."""
    op.add_column("workers", sa.Column("drained_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("projects", sa.Column("served_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Remove them."""
    op.drop_column("projects", "served_at")
    op.drop_column("workers", "drained_at")
