"""Sessions in which a silo generates with what a job trained."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "generations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("silo_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.String(length=32), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "waiting",
                "hosted",
                "ended",
                name="generationstate",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("reason_code", sa.String(length=32), nullable=False),
        sa.Column("reason_who", sa.String(length=64), nullable=False),
        sa.Column("reason_what", sa.String(length=1024), nullable=False),
        sa.Column("reason_next", sa.String(length=1024), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("worker_epoch", BIG, nullable=False),
        sa.Column("gateway_url", sa.String(length=255), nullable=True),
        sa.Column("hosted_at", MOMENT, nullable=True),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("dispatched_at", MOMENT, nullable=True),
        sa.Column("renewed_at", MOMENT, nullable=True),
        sa.Column("released_at", MOMENT, nullable=True),
        sa.Column("asked_at", MOMENT, nullable=True),
        sa.Column("num_tokens", BIG, nullable=False),
        sa.Column("correlation_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("heard_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "(state = 'ended') = (ended_at IS NOT NULL)", name=op.f("ck_generations_ended_has_moment")
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_generations_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["silo_id"], ["silos.id"], name=op.f("fk_generations_silo_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_generations_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        sa.UniqueConstraint("silo_id", "attempt", name=op.f("uq_generations_silo_id_attempt")),
    )
    for columns in _INDEXED:
        op.create_index(_index(columns), "generations", columns, unique=False)


def downgrade() -> None:
    """Remove it."""
    for columns in reversed(_INDEXED):
        op.drop_index(_index(columns), table_name="generations")
    op.drop_table("generations")


_INDEXED = (["job_id", "created_at", "id"], ["state", "created_at"], ["worker_id", "released_at"])


def _index(columns: list[str]) -> str:
    return str(op.f(f"ix_generations_{'_'.join(columns)}"))
