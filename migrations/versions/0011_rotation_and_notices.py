"""Keys that are rotated, revocations that wait for the root, warnings of expiry, and notices."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PARTIES = ("silos", "workers")


def upgrade() -> None:
    """Add them; no key is being rotated, and nothing waits."""
    for table in PARTIES:
        op.add_column(table, sa.Column("next_public_key", sa.LargeBinary(length=32), nullable=True))
        op.add_column(table, sa.Column("next_certificate", sa.LargeBinary(), nullable=True))
    op.add_column("federation", sa.Column("next_signer_key", sa.LargeBinary(length=32), nullable=True))
    op.create_table(
        "pending_revocations",
        sa.Column("serial", sa.String(length=20), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_pending_revocations")),
    )
    op.create_table(
        "certificate_warnings",
        sa.Column("serial", sa.String(length=20), nullable=False),
        sa.Column("days", BIG, autoincrement=False, nullable=False),
        sa.Column("warned_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("serial", "days", name=op.f("pk_certificate_warnings")),
    )
    _add_notices()


def _add_notices() -> None:
    op.create_table(
        "notice_channels",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=1024), nullable=False),
        sa.Column("topics", sa.String(length=255), nullable=False),
        sa.Column("secret", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_notice_channels_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice_channels")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_notice_channels_organization_id_name")),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("topic", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", BIG, nullable=False, server_default="0"),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(length=1024), nullable=False, server_default=""),
        sa.ForeignKeyConstraint(
            ["channel_id"], ["notice_channels.id"], name=op.f("fk_notices_channel_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sa.UniqueConstraint("channel_id", "key", name=op.f("uq_notices_channel_id_key")),
    )
    op.create_index(op.f("ix_notices_due_at"), "notices", ["due_at"], unique=False)
    op.create_index(op.f("ix_notices_created_at"), "notices", ["created_at"], unique=False)
    op.create_index(
        op.f("ix_notices_channel_id_created_at_id"),
        "notices",
        ["channel_id", "created_at", "id"],
        unique=False,
    )


def downgrade() -> None:
    """Remove them; a rotation that is under way begins anew."""
    for name in ("ix_notices_channel_id_created_at_id", "ix_notices_created_at", "ix_notices_due_at"):
        op.drop_index(op.f(name), table_name="notices")
    op.drop_table("notices")
    op.drop_table("notice_channels")
    op.drop_table("certificate_warnings")
    op.drop_table("pending_revocations")
    with op.batch_alter_table("federation") as batch:
        batch.drop_column("next_signer_key")
    for table in PARTIES:
        with op.batch_alter_table(table) as batch:
            batch.drop_column("next_certificate")
            batch.drop_column("next_public_key")
