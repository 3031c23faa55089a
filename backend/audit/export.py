"""Exporting the audit: the whole chain, with the content of those rows that the reader may see."""

import uuid
from collections.abc import Callable, Iterator
from typing import Final

from backend.audit.chain import Head
from backend.audit.errors import NoSignedHeadError
from backend.audit.ledger import content_of, head_of, rows_after
from backend.audit.lines import head_line, row_line
from backend.db import Database
from backend.db.models import AuditRow
from splitlearn.identity import Certificate

_ROWS: Final = 500
"""Rows read at once: what one export holds in memory."""

MaySee = Callable[[AuditRow], bool]
"""Tells whether the reader may see a row's content."""


def only(organization_id: uuid.UUID) -> MaySee:
    """Return the eyes of one organisation's auditor."""
    return lambda row: row.organization_id == organization_id


def everything(_row: AuditRow) -> bool:
    """See all: for the operator, who has the database anyway."""
    return True


def signed_head(database: Database) -> Head:
    """Return where the chain ends now.

    Raises:
        NoSignedHeadError: The root has not signed the signer's key yet.
    """
    with database.read() as session:
        row = head_of(session)
    if row is None or row.certificate is None or row.signature is None or row.signed_at is None:
        raise NoSignedHeadError("the head of the audit is not signed in the federation root's name yet")
    return Head(row.number, row.digest, row.signed_at, Certificate.from_bytes(row.certificate), row.signature)


def export(database: Database, head: Head, may_see: MaySee) -> Iterator[bytes]:
    """Yield the lines of an export up to a head; rows are never changed, so no long transaction is needed."""
    number = 0
    while number < head.number:
        with database.read() as session:
            rows = rows_after(session, number, up_to=head.number, limit=_ROWS)
        if not rows:
            break  # rows are missing in the database: verifying says which
        yield b"".join(
            row_line(row.id, row.digest, content_of(row), is_hidden=not may_see(row)) for row in rows
        )
        number = rows[-1].id
    yield head_line(head)
