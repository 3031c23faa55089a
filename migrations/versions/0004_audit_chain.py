"""The audit becomes a hash chain, and the database refuses to change or remove a row of it.

The chain of the rows that are there is made here, as ``backend.audit.chain`` defined it at this revision.
"""

import hashlib
import json
import secrets
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ROWS = sa.table(
    "audit_rows",
    sa.column("id", BIG),
    sa.column("organization_id", sa.Uuid()),
    sa.column("happened_at", sa.DateTime(timezone=True)),
    *(
        sa.column(name, sa.String())
        for name in (
            *("actor_kind", "actor_name", "address", "action"),
            *("subject_kind", "subject_name", "outcome"),
        )
    ),
    sa.column("details", sa.JSON()),
    sa.column("salt", sa.LargeBinary()),
    sa.column("digest", sa.LargeBinary()),
)
FEDERATION = sa.table("federation", sa.column("root_public_key", sa.LargeBinary()))
_BATCH = 1000


def upgrade() -> None:
    """Add salt and digest to every row, the head, and the triggers."""
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", BIG, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("signature", sa.LargeBinary(length=64), nullable=True),
        sa.Column("certificate", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    for name, length in (("salt", 16), ("digest", 32)):
        op.add_column("audit_rows", sa.Column(name, sa.LargeBinary(length=length), nullable=True))
    connection = op.get_bind()
    root_public_key = connection.scalar(sa.select(FEDERATION.c.root_public_key))
    if root_public_key is not None:  # a database that never served has no row, either
        number, digest = _chain(connection, root_public_key)
        connection.execute(sa.insert(head).values(id=1, number=number, digest=digest))
    with op.batch_alter_table("audit_rows") as table:
        for name, length in (("salt", 16), ("digest", 32)):
            table.alter_column(name, existing_type=sa.LargeBinary(length=length), nullable=False)
    _refuse_changes(connection)


def downgrade() -> None:
    """Keep the rows, drop the chain."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_rows_stay ON audit_rows")
        op.execute("DROP FUNCTION refuse_audit_change()")
    else:
        for action in ("UPDATE", "DELETE"):
            op.execute(f"DROP TRIGGER audit_rows_no_{action.lower()}")
    with op.batch_alter_table("audit_rows") as table:
        table.drop_column("digest")
        table.drop_column("salt")
    op.drop_table("audit_head")
    if connection.dialect.name == "postgresql":  # the numbers were given by us, not by the sequence
        op.execute(
            "SELECT setval(pg_get_serial_sequence('audit_rows', 'id'), "
            "COALESCE((SELECT max(id) FROM audit_rows), 0) + 1, false)"
        )


def _chain(connection: sa.Connection, root_public_key: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha256(b"trunkline/audit-genesis/v1\0" + bytes(root_public_key)).digest()
    number, seen = 0, 0
    while True:
        query = sa.select(ROWS).where(ROWS.c.id > seen).order_by(ROWS.c.id).limit(_BATCH)
        rows = connection.execute(query).all()
        if not rows:
            return number, digest
        for row in rows:
            number, seen, salt = number + 1, row.id, secrets.token_bytes(16)
            content = hashlib.sha256(b"trunkline/audit-row/v1\0" + _content(row, salt)).digest()
            joined = b"trunkline/audit-link/v1\0" + digest + number.to_bytes(8, "big") + content
            digest = hashlib.sha256(joined).digest()
            # Numbers of transactions that were rolled back left gaps, so no new number is taken yet.
            connection.execute(
                sa.update(ROWS).where(ROWS.c.id == row.id).values(id=number, salt=salt, digest=digest)
            )


def _content(row: sa.Row[tuple[object, ...]], salt: bytes) -> bytes:
    at: datetime = row.happened_at
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    content = {
        "action": row.action,
        "actor_kind": row.actor_kind,
        "actor_name": row.actor_name,
        "address": row.address,
        "at": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "details": row.details,
        "organization": str(row.organization_id) if row.organization_id else None,
        "outcome": row.outcome,
        "salt": salt.hex(),
        "subject_kind": row.subject_kind,
        "subject_name": row.subject_name,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")


def _refuse_changes(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'rows of the audit are only ever added'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON audit_rows "
            "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()"
        )
        return
    for action in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_rows_no_{action.lower()} BEFORE {action} ON audit_rows "
            "BEGIN SELECT RAISE(ABORT, 'rows of the audit are only ever added'); END"
        )
