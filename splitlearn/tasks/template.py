"""Templates over a row's columns; the language is :mod:`splitlearn.template_syntax`'s. Torch-free."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from splitlearn.errors import DataError
from splitlearn.records import Record, plain_text
from splitlearn.template_syntax import (
    Asked,
    Condition,
    Field,
    Literal,
    Node,
    columns_needed,
    columns_read,
    parse_template,
)

MAX_RENDERED_CHARACTERS = 16 << 20


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Format strings of Python would let a template reach into objects (``{x.__class__}``) or blow a text up
    (``{x:999999999}``); here a field is a column's name and its text goes in as it is.

    Attributes:
        source: The template as written.
        nodes: Its parts.
    """

    source: str
    nodes: tuple[Node, ...]

    @classmethod
    def parse(cls, source: str) -> Self:
        """Read a template.

        Raises:
            DataError: It is malformed; says at which character.
        """
        return cls(source, parse_template(source))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template reads, in order of first use."""
        return columns_read(self.nodes)

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """The columns without which no row can be rendered, in order of first use."""
        return columns_needed(self.nodes)

    def render(self, record: Record) -> str:
        """Return the template's text with the row's columns put in.

        Raises:
            DataError: The row lacks a column (the message lists those it has), a value is no text, or the
                text becomes too long.
        """
        text = "".join(_rendered(self.nodes, record))
        if len(text) > MAX_RENDERED_CHARACTERS:
            raise DataError(
                f"{record.where}: the template makes a text of {len(text)} characters of this row, the limit "
                f"is {MAX_RENDERED_CHARACTERS}; name a column less often, or shorten the row"
            )
        return text


def is_empty(value: object) -> bool:
    """Return whether a value is null, a text of white space alone, or an empty list or object."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def _rendered(nodes: Sequence[Node], record: Record) -> list[str]:
    texts = []
    for node in nodes:
        match node:
            case Literal():
                texts.append(node.text)
            case Field():
                texts.append(_field(node, record))
            case Condition():
                texts += _rendered(node.then if _holds(node, record) else node.otherwise, record)
    return texts


def _field(field: Field, record: Record) -> str:
    value = record.columns.get(field.column)
    if field.otherwise is not None and is_empty(value):
        return field.otherwise
    if field.as_json and field.column in record.columns:
        text = json.dumps(value, ensure_ascii=False)
    elif field.separator is not None and isinstance(value, list):
        text = field.separator.join(_items(field.column, value, record))
    else:
        text = record.text(field.column)
    return text.strip() if field.trims else text


def _items(column: str, values: list[object], record: Record) -> list[str]:
    texts = []
    for value in values:
        text = plain_text(value)
        if text is None:
            raise DataError(
                f"{record.where}: the list in column {column!r} holds more than texts, numbers and booleans, "
                "which cannot be joined; write them into a column of texts"
            )
        texts.append(text)
    return texts


def _holds(condition: Condition, record: Record) -> bool:
    value = record.columns.get(condition.column)
    is_filled = not is_empty(value) and value is not False
    match condition.asked:
        case Asked.FILLED:
            return is_filled
        case Asked.EMPTY:
            return not is_filled
        case Asked.EQUAL:
            return plain_text(value) == condition.text
        case Asked.OTHER:
            return plain_text(value) != condition.text
