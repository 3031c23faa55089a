"""How much of a job's numbers and log lines is still kept."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the marks; of every job all is there."""
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("metrics_kept", sa.String(32), nullable=False, server_default="whole"))
        batch.add_column(sa.Column("logs_kept", sa.String(32), nullable=False, server_default="whole"))
    op.create_index(op.f("ix_jobs_metrics_kept_state_since"), "jobs", ["metrics_kept", "state_since"])
    op.create_index(op.f("ix_jobs_logs_kept_state_since"), "jobs", ["logs_kept", "state_since"])


def downgrade() -> None:
    """Remove them; what was removed of numbers and lines stays so."""
    op.drop_index(op.f("ix_jobs_logs_kept_state_since"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_metrics_kept_state_since"), table_name="jobs")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("logs_kept")
        batch.drop_column("metrics_kept")
