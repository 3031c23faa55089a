"""Jobs whose schedule was chosen for them: what was asked for, and why it became what it is."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; of jobs of before nothing was chosen."""
    op.add_column("jobs", sa.Column("schedule_asked", sa.String(length=32), nullable=True))
    op.add_column("jobs", sa.Column("schedule_reason", sa.String(length=1024), nullable=True))


def downgrade() -> None:
    """Remove them."""
    op.drop_column("jobs", "schedule_reason")
    op.drop_column("jobs", "schedule_asked")
