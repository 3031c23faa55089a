"""The audit of a database from before the chain is hung on it, and survives the way back."""

from datetime import UTC, datetime

import sqlalchemy as sa

from backend.audit import chain
from backend.audit.ledger import content_of, head_of, rows_after
from backend.db import Database, downgrade, upgrade

MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ROOT = b"\7" * 32
NUMBERS = (1, 2, 5, 9)  # transactions that were rolled back left gaps


def _fill(database: Database) -> None:
    federation = sa.table(
        "federation",
        *map(sa.column, ("id", "root_public_key", "nonce_key")),
        sa.column("created_at", sa.DateTime(timezone=True)),
    )
    rows = sa.table(
        "audit_rows",
        *map(sa.column, ("id", "actor_kind", "actor_name", "address", "action")),
        *map(sa.column, ("subject_kind", "subject_name", "outcome")),
        sa.column("happened_at", sa.DateTime(timezone=True)),
        sa.column("details", sa.JSON()),
    )
    with database.engine.begin() as connection:
        connection.execute(
            sa.insert(federation).values(id=1, root_public_key=ROOT, nonce_key=ROOT, created_at=MOMENT)
        )
        for number in NUMBERS:
            connection.execute(
                sa.insert(rows).values(
                    id=number,
                    actor_kind="user",
                    actor_name="rosa",
                    address="::1",
                    action="test",
                    subject_kind="test",
                    subject_name=f"ü {number}",
                    outcome="done",
                    happened_at=MOMENT,
                    details={"number": number, "text": "ü"},
                )
            )


def _subjects(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(sa.text("SELECT subject_name FROM audit_rows ORDER BY id")))


class TestChain:
    def test_is_made_of_the_rows_that_are_there(self, empty_database: Database) -> None:
        upgrade(empty_database, revision="0003")
        _fill(empty_database)
        upgrade(empty_database)
        with empty_database.read() as session:
            head = head_of(session)
            rows = rows_after(session, 0, up_to=100, limit=100)
        digest = chain.genesis(ROOT)
        for number, row in enumerate(rows, start=1):
            digest = chain.link(digest, number, chain.content_digest(content_of(row)))
            assert (row.id, row.digest) == (number, digest)
        assert head is not None
        assert (head.number, head.digest, head.signature) == (len(NUMBERS), digest, None)

    def test_leaves_its_rows_behind_on_the_way_back(self, empty_database: Database) -> None:
        upgrade(empty_database, revision="0003")
        _fill(empty_database)
        before = _subjects(empty_database)
        upgrade(empty_database)
        downgrade(empty_database, revision="0003")
        assert _subjects(empty_database) == before
        with empty_database.engine.begin() as connection:  # the numbers go on behind those that were given
            connection.execute(
                sa.text(
                    "INSERT INTO audit_rows (happened_at, actor_kind, actor_name, address, action, "
                    "subject_kind, subject_name, outcome, details) VALUES "
                    "('2026-03-01 12:00:00+00:00', 'user', 'rosa', '', 'test', 'test', 'last', 'done', '{}')"
                )
            )
        assert _subjects(empty_database)[-1] == "last"

    def test_of_an_empty_database_has_no_head_yet(self, fresh_database: Database) -> None:
        with fresh_database.read() as session:
            assert head_of(session) is None
