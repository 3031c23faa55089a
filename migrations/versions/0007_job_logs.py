"""The id that ties a job's log lines together, and what parties tell of their part in it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add both; jobs that are there have no id and no line."""
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("last_log_number", BIG, nullable=False, server_default="0"))
        batch.add_column(sa.Column("correlation_id", sa.String(64), nullable=False, server_default=""))
    op.create_table(
        "job_log_lines",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("party", sa.String(80), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("number", BIG, nullable=False),
        sa.Column("level", sa.String(32), nullable=False),
        sa.Column("code", sa.String(64), nullable=False, server_default=""),
        sa.Column("round", BIG, nullable=True),
        sa.Column("step", BIG, nullable=True),
        sa.Column("epoch", BIG, nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_job_log_lines_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "party", "at", "event", name=op.f("pk_job_log_lines")),
    )
    op.create_index(
        "ix_job_log_lines_job_id_party_number", "job_log_lines", ["job_id", "party", "number"], unique=False
    )


def downgrade() -> None:
    """Remove both."""
    op.drop_index("ix_job_log_lines_job_id_party_number", table_name="job_log_lines")
    op.drop_table("job_log_lines")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("correlation_id")
        batch.drop_column("last_log_number")
