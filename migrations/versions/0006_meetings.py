"""Gateways' signs of life, and which of them conversations meet at."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "gateway_signs",
        sa.Column("url", sa.String(length=255), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("url", name=op.f("pk_gateway_signs")),
    )
    op.create_table(
        "meetings",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("replica", BIG, autoincrement=False, nullable=False),
        sa.Column("silo_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("gateway_url", sa.String(length=255), nullable=False),
        sa.Column("chosen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_meetings_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["silo_id"], ["silos.id"], name=op.f("fk_meetings_silo_id")),
        sa.PrimaryKeyConstraint("job_id", "replica", "silo_id", name=op.f("pk_meetings")),
    )
    op.create_index(op.f("ix_meetings_silo_id"), "meetings", ["silo_id"], unique=False)


def downgrade() -> None:
    """Remove them."""
    op.drop_index(op.f("ix_meetings_silo_id"), table_name="meetings")
    op.drop_table("meetings")
    op.drop_table("gateway_signs")
