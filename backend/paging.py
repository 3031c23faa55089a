"""Pages by a row's moment and id: nothing is shown twice or left out while rows come and go."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Tuple, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from backend.errors import InvalidRequestError

Cursor = tuple[datetime, uuid.UUID]


def cursor_text(moment: datetime, row_id: uuid.UUID) -> str:
    """Return where a page ended."""
    return f"{moment.isoformat()}_{row_id}"


def parse_cursor(text: str | None) -> Cursor | None:
    """Return where the page before ended; None for the first page.

    Raises:
        InvalidRequestError: The text is no ``next`` of a page.
    """
    if text is None:
        return None
    moment, _, row_id = text.rpartition("_")
    try:
        cursor = datetime.fromisoformat(moment.replace(" ", "+")), uuid.UUID(row_id)
    except ValueError as error:
        raise InvalidRequestError(f"after: {text!r} is no next of a page") from error
    if cursor[0].tzinfo is None:
        raise InvalidRequestError(f"after: {text!r} is no next of a page: it lacks a time zone")
    return cursor


def is_behind(
    moment: InstrumentedAttribute[datetime], row_id: InstrumentedAttribute[uuid.UUID] | Any, cursor: Cursor
) -> ColumnElement[bool]:
    """Return the condition under which a row comes after the cursor, oldest first."""
    return tuple_(moment, row_id) > _values(moment, row_id, cursor)


def is_before(
    moment: InstrumentedAttribute[datetime], row_id: InstrumentedAttribute[uuid.UUID] | Any, cursor: Cursor
) -> ColumnElement[bool]:
    """Return the condition under which a row comes after the cursor, newest first."""
    return tuple_(moment, row_id) < _values(moment, row_id, cursor)


def _values(
    moment: InstrumentedAttribute[datetime], row_id: InstrumentedAttribute[uuid.UUID] | Any, cursor: Cursor
) -> Tuple:
    # Compared as a pair, so that an index on both begins at the cursor.
    return tuple_(literal(cursor[0], moment.type), literal(cursor[1], row_id.type))
