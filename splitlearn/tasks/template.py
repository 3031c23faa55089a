"""Prompt templates: ``{column}``, and ``{{`` ``}}`` for braces. Nothing else. Torch-free."""

import string
from dataclasses import dataclass
from typing import Self

from splitlearn.errors import DataError
from splitlearn.records import Record

_RULE = "write {column} for a column's text, {{ and }} for braces"


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Format strings of Python would let a template reach into objects (``{x.__class__}``) or blow a text up
    (``{x:999999999}``); here a field is a column's name and its text goes in as it is.

    Attributes:
        source: The template as written.
        parts: (literal text, column whose text follows, or None).
    """

    source: str
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, source: str) -> Self:
        """Read a template.

        A column's name may hold anything but braces, ``.``, ``[``, ``]``, ``:`` and ``!``; map another
        name first.

        Raises:
            DataError: A brace stands alone, or a field is not a plain name.
        """
        try:
            pieces = list(string.Formatter().parse(source))
        except ValueError as error:
            raise DataError(f"template {source!r}: {error}; {_RULE}") from error
        parts = []
        for literal, field, format_spec, conversion in pieces:
            if field is not None and (not _is_plain(field) or format_spec or conversion):
                raise DataError(
                    f"template {source!r}: the field {field!r} is not a plain column name; {_RULE}"
                )
            parts.append((literal, field))
        return cls(source, tuple(parts))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template reads, in order of first use."""
        return tuple(dict.fromkeys(field for _, field in self.parts if field is not None))

    def render(self, record: Record) -> str:
        """Return the template's text with the row's columns put in.

        Raises:
            DataError: The row lacks a column (the message lists those it has), or a value is no text.
        """
        return "".join(
            literal + ("" if field is None else record.text(field)) for literal, field in self.parts
        )


def _is_plain(field: str) -> bool:
    return bool(field) and field == field.strip() and not set(field) & set(".[]{}")
