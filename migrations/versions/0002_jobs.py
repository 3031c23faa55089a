"""What jobs, leases and registered models need to run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns; a job's newest metric number counts what was received, in order."""
    for table, columns in _columns().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.add_column(column)
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("last_metric_number", BIG, nullable=False, server_default="0"))
        batch.create_foreign_key("fk_jobs_result_id", "artifacts", ["result_id"], ["id"])
    op.create_index("ix_metrics_job_id_number", "metrics", ["job_id", "number"], unique=False)


def downgrade() -> None:
    """Remove them."""
    op.drop_index("ix_metrics_job_id_number", table_name="metrics")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_constraint("fk_jobs_result_id", type_="foreignkey")
        batch.drop_column("last_metric_number")
    for table, columns in reversed(_columns().items()):
        with op.batch_alter_table(table) as batch:
            for column in reversed(columns):
                batch.drop_column(column.name)


def _columns() -> dict[str, list[sa.Column[object]]]:
    return {
        "federation": [
            sa.Column("ticket_key", sa.LargeBinary(length=32), nullable=True),
            sa.Column("signer_key", sa.LargeBinary(length=32), nullable=True),
            sa.Column("signer_certificate", sa.LargeBinary(), nullable=True),
        ],
        "workers": [
            sa.Column("capabilities", sa.JSON(), nullable=True),
            sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        ],
        "models": [
            sa.Column("state", sa.String(length=32), nullable=False, server_default="ready"),
            sa.Column("state_reason", sa.String(length=1024), nullable=False, server_default=""),
        ],
        "jobs": [
            sa.Column("reason_code", sa.String(length=32), nullable=False, server_default="submitted"),
            sa.Column("state_since", sa.DateTime(timezone=True), nullable=True),
            sa.Column("max_resume_round", BIG, nullable=True),
            sa.Column("result_id", sa.Uuid(), nullable=True),
        ],
        "job_silos": [
            sa.Column("approval_code", sa.String(length=32), nullable=False, server_default=""),
            sa.Column("attempt", sa.String(length=32), nullable=True),
            sa.Column("attached_epoch", BIG, nullable=True),
            sa.Column("finish_outcome", sa.String(length=32), nullable=True),
            sa.Column("finish_code", sa.String(length=32), nullable=False, server_default=""),
            sa.Column("finish_message", sa.String(length=2000), nullable=False, server_default=""),
            sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        ],
        "leases": [
            sa.Column("worker_epoch", BIG, nullable=False, server_default="0"),
            sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
            sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=True),
            sa.Column("round", BIG, nullable=False, server_default="0"),
            sa.Column("step", BIG, nullable=False, server_default="0"),
        ],
        "metrics": [
            sa.Column("number", BIG, nullable=False, server_default="0"),
        ],
    }
