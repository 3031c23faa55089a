"""The language of templates: text, columns, filters and conditions. Torch-free.

::

    {column}                            the column's text; {"any name"} where the name holds a sign of ours
    {column|else "none"}                where the row lacks it, or it is null or empty
    {column|join ", "}  {column|json}   a list's items, one value as JSON
    {column|trim}                       without white space at its ends
    {if column}...{else}...{end}        where the column is filled; also {if not column},
                                        {if column == "text"}, {if column != "text"}
    {{  }}                              braces

There are no attributes, indices, calls, loops or definitions: a template can read columns and nothing else,
and what a column holds is never read as a template.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from splitlearn.errors import DataError

MAX_TEMPLATE_CHARACTERS = 8192
MAX_DEPTH = 8
_RULE = "write {column} for a column's text, {{ and }} for braces (docs/tasks.md)"
_STRING = r'"(?:[^"\\]|\\.)*"'
_NAME = rf'(?:{_STRING}|[^\s{{}}.\[\]:!|"](?:[^{{}}.\[\]:!|"]*[^\s{{}}.\[\]:!|"])?)'
_FIELD = re.compile(rf"({_NAME})((?:\s*\|\s*(?:[a-z]+)(?:\s+{_STRING})?)*)", re.DOTALL)
_FILTER = re.compile(rf"\s*\|\s*([a-z]+)(?:\s+({_STRING}))?", re.DOTALL)
_CONDITION = re.compile(rf"if\s+(not\s+)?({_STRING}|[^\s=!][^=!]*?)(?:\s*(==|!=)\s*({_STRING}))?", re.DOTALL)
_BRACE_OR_STRING_END = re.compile(rf'(?:{_STRING}|[^"}}])*\}}', re.DOTALL)
_ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}


class Asked(StrEnum):
    """What a condition asks of a column."""

    FILLED = "filled"
    EMPTY = "empty"
    EQUAL = "equal"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Literal:
    """Text as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """A column's text.

    Attributes:
        column: Its name.
        otherwise: Stands where the row lacks the column, or it is null or empty; None: that is refused.
        separator: Between a list's items; None: a list is refused.
        as_json: Whether the value is written as JSON.
        trims: Whether white space at both ends is dropped.
    """

    column: str
    otherwise: str | None = None
    separator: str | None = None
    as_json: bool = False
    trims: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """One of two parts, by what a column holds."""

    column: str
    asked: Asked
    text: str
    then: "tuple[Node, ...]"
    otherwise: "tuple[Node, ...]"


Node = Literal | Field | Condition


def parse_template(source: str) -> tuple[Node, ...]:
    """Read a template.

    Raises:
        DataError: It is malformed; says at which character, from 1, and how it is written.
    """
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise DataError(
            f"the template has {len(source)} characters, the limit is {MAX_TEMPLATE_CHARACTERS}; shorten it"
        )
    return _Parser(source).whole()


def columns_read(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """Return every column that a template may read, in order of first use."""
    return tuple(dict.fromkeys(_read(nodes, only_needed=False)))


def columns_needed(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """Return the columns that every row must have, in order of first use."""
    return tuple(dict.fromkeys(_read(nodes, only_needed=True)))


def _read(nodes: tuple[Node, ...], *, only_needed: bool) -> list[str]:
    found: list[str] = []
    for node in nodes:
        match node:
            case Field() if not (only_needed and node.otherwise is not None):
                found.append(node.column)
            case Condition() if not only_needed:
                found.append(node.column)
                found += _read(node.then, only_needed=False) + _read(node.otherwise, only_needed=False)
            case _:
                pass
    return found


class _Parser:
    """Walks once from the template's first character to its last."""

    def __init__(self, source: str) -> None:
        self._source, self._at = source, 0
        self._began = 0  # where the field begins that is read now

    def whole(self) -> tuple[Node, ...]:
        nodes, word = self._nodes(depth=0)
        if word:
            self._refuse(f'{{{word}}} without {{if ...}}; for a column of this name write {{"{word}"}}')
        return nodes

    def _nodes(self, *, depth: int) -> tuple[tuple[Node, ...], str]:
        """Read on to the template's end, or behind an ``{else}`` or ``{end}``, which is returned too."""
        nodes: list[Node] = []
        while self._at < len(self._source):
            literal = self._literal()
            if literal:
                nodes.append(Literal(literal))
                continue
            body = self._body()
            if body in {"else", "end"}:
                return tuple(nodes), body
            nodes.append(self._condition(body, depth=depth) if _is_condition(body) else self._field(body))
        return tuple(nodes), ""

    def _literal(self) -> str:
        """Read text up to the next field."""
        text = []
        while self._at < len(self._source):
            sign = self._source[self._at]
            if sign in "{}":
                if self._source[self._at : self._at + 2] != sign * 2:
                    if sign == "}":
                        self._began = self._at
                        self._refuse("a '}' stands alone")
                    break
                self._at += 1
            text.append(sign)
            self._at += 1
        return "".join(text)

    def _body(self) -> str:
        """Read a field with its braces, and return what is between them."""
        self._began = self._at
        found = _BRACE_OR_STRING_END.match(self._source, self._at + 1)
        if found is None:
            self._refuse("a '{' is never closed")
        self._at = found.end()
        return found[0][:-1]

    def _field(self, body: str) -> Field:
        found = _FIELD.fullmatch(body)
        if found is None:
            self._refuse(f"the field {body!r} is not a plain column name")
        return self._filtered(_name(found[1]), found[2])

    def _filtered(self, column: str, filters: str) -> Field:
        arguments: dict[str, str | None] = {}
        for found in _FILTER.finditer(filters):
            word, argument = found[1], found[2]
            if word not in {"else", "join", "json", "trim"}:
                self._refuse(f"{word!r} is no filter; there are else, join, json and trim")
            if word in arguments:
                self._refuse(f"the filter {word!r} stands twice")
            if (argument is not None) is not (word in {"else", "join"}):
                rule = "needs a text in quotes" if argument is None else "takes no text"
                self._refuse(f"the filter {word!r} {rule}")
            arguments[word] = None if argument is None else self._unquoted(argument)
        if "join" in arguments and "json" in arguments:
            self._refuse("the filters 'join' and 'json' exclude each other")
        return Field(
            column,
            otherwise=arguments.get("else"),
            separator=arguments.get("join"),
            as_json="json" in arguments,
            trims="trim" in arguments,
        )

    def _condition(self, body: str, *, depth: int) -> Condition:
        began = self._began
        if depth >= MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} conditions within each other")
        found = _CONDITION.fullmatch(body)
        if found is None or (found[1] and found[3]):
            self._refuse(
                f"{{{body}}} is no condition; there are {{if column}}, {{if not column}}, "
                '{if column == "text"} and {if column != "text"}',
            )
        if not re.fullmatch(_NAME, found[2]):
            self._refuse(f"the field {found[2]!r} is not a plain column name")
        asked, text = Asked.EMPTY if found[1] else Asked.FILLED, ""
        if found[3]:
            asked = Asked.EQUAL if found[3] == "==" else Asked.OTHER
            text = self._unquoted(found[4])
        then, word = self._nodes(depth=depth + 1)
        otherwise: tuple[Node, ...] = ()
        if word == "else":
            otherwise, word = self._nodes(depth=depth + 1)
        if word != "end":
            self._began = began
            self._refuse(f"{{{body}}} has no {{end}}" if not word else "a second {else}")
        return Condition(_name(found[2]), asked, text, then, otherwise)

    def _unquoted(self, quoted: str) -> str:
        def unescaped(found: re.Match[str]) -> str:
            if found[1] not in _ESCAPES:
                self._refuse(f'\\{found[1]} in {quoted} is no escape; there are \\" \\\\ \\n and \\t')
            return _ESCAPES[found[1]]

        return re.sub(r"\\(.)", unescaped, quoted[1:-1], flags=re.DOTALL)

    def _refuse(self, what: str) -> NoReturn:
        raise DataError(f"template {self._source!r}, character {self._began + 1}: {what}; {_RULE}")


def _is_condition(body: str) -> bool:
    return body == "if" or re.match(r"if\s", body) is not None


def _name(written: str) -> str:
    if not written.startswith('"'):
        return written
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), written[1:-1], flags=re.DOTALL)
