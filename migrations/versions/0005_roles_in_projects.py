"""Roles in single projects, and scopes of tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROLE = sa.Enum(
    "admin", "researcher", "auditor", name="role", native_enum=False, create_constraint=True, length=32
)


def upgrade() -> None:
    """Add the table and the column; tokens that are there go on passing on all of their role."""
    op.create_table(
        "project_roles",
        sa.Column("membership_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("role", ROLE, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["membership_id"],
            ["memberships.id"],
            name=op.f("fk_project_roles_membership_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_roles_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("membership_id", "project_id", name=op.f("pk_project_roles")),
    )
    op.create_index(op.f("ix_project_roles_project_id"), "project_roles", ["project_id"], unique=False)
    op.add_column("api_tokens", sa.Column("scopes", sa.String(length=128), nullable=True))


def downgrade() -> None:
    """Remove both; tokens with scopes end, for nothing would limit them any more."""
    op.execute("DELETE FROM api_tokens WHERE scopes IS NOT NULL")
    with op.batch_alter_table("api_tokens") as table:
        table.drop_column("scopes")
    op.drop_index(op.f("ix_project_roles_project_id"), table_name="project_roles")
    op.drop_table("project_roles")
