"""Statements that both databases have, under one name."""

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from backend.db.base import Base


def insert_unless_there(session: Session, table: type[Base], **values: Any) -> bool:
    """Insert a row unless one with the same key exists; tell whether it was inserted."""
    target = table.__table__
    assert isinstance(target, Table)
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    # What comes back tells it; psycopg does not count rows of an insert that SQLAlchemy compiled.
    statement = dialect.insert(target).values(**values).on_conflict_do_nothing()
    return session.execute(statement.returning(*target.primary_key)).first() is not None
