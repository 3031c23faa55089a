"""Files whose rows are not simply their objects: nested publications, conversations. Torch-free.

A layout turns each object of a file into flat rows with columns of known names; everything after it (column
mapping, templates) knows rows alone. All rows of one object keep its line.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

from splitlearn.errors import DataError
from splitlearn.records.record import Record, json_kind

OnBadRow = Callable[[DataError], None]
"""Told of a row that is wrong; raises to end the reading, or returns to pass the row over."""

PLACEHOLDER = "@placeholder"
MAX_MESSAGES = 1000
_ROLES = ("system", "user", "assistant", "tool")


class Layout(StrEnum):
    """How rows lie in a file's objects.

    Attributes:
        ROWS: One is the other.
        MULTIRC: A passage with its questions, each with its answers; a row per answer.
        RECORD: A passage with its entities and queries; a row per query.
        WSC: A text with two spans that are in an object of their own.
        MESSAGES: A conversation; a row per turn of the assistant.
    """

    ROWS = "rows"
    MULTIRC = "multirc"
    RECORD = "record"
    WSC = "wsc"
    MESSAGES = "messages"


def laid_out(records: Iterator[Record], *, layout: Layout, refuse: OnBadRow) -> Iterator[Record]:
    """Yield the rows of a file's objects; one that is not laid out so is told to ``refuse``."""
    if layout is Layout.ROWS:
        yield from records
        return
    rows_of = _ROWS_OF[layout]
    for record in records:
        try:
            rows = list(rows_of(record))
        except _UnfitError as error:
            refuse(DataError(f"{record.where}: {error}; the layout {layout.value!r} is in docs/tasks.md"))
            continue
        for columns in rows:
            yield Record(columns, record.source, record.line)


class _UnfitError(Exception):
    """An object is not laid out as it should be."""


def _multirc(record: Record) -> Iterator[dict[str, object]]:
    passage = _object(record.columns, "passage")
    text = _text(passage, "text", of="passage")
    for question in _objects(passage, "questions", of="passage"):
        words = _text(question, "question", of="question")
        for answer in _objects(question, "answers", of="question"):
            row: dict[str, object] = {
                "passage": text,
                "question": words,
                "answer": _text(answer, "text", of="answer"),
                # Of what it says, not of an index that every file counts from 0.
                "group": _digest([text, words]),
            }
            yield row | ({"label": answer["label"]} if "label" in answer else {})


def _record(record: Record) -> Iterator[dict[str, object]]:
    passage = _object(record.columns, "passage")
    text = _text(passage, "text", of="passage")
    entities = [_span(text, entity) for entity in _objects(passage, "entities", of="passage")]
    for query in _objects(record.columns, "qas"):
        before, sign, after = _text(query, "query", of="query").partition(PLACEHOLDER)
        if not sign:
            raise _UnfitError(f"a query holds no {PLACEHOLDER}")
        row: dict[str, object] = {
            "passage": text.replace("\n@highlight\n", "\n"),
            "before": before.rstrip(),
            "space": before[len(before.rstrip()) :],
            "after": after.replace(PLACEHOLDER, "it"),
            "entities": list(dict.fromkeys(entities)),
        }
        if "answers" in query:
            answers = [
                _text(answer, "text", of="answer") for answer in _objects(query, "answers", of="query")
            ]
            row["answers"] = list(dict.fromkeys(answers))
        yield row


def _span(text: str, entity: Mapping[str, object]) -> str:
    start, end = entity.get("start"), entity.get("end")
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end < len(text)):
        raise _UnfitError(f"an entity runs from {start!r} to {end!r} in a passage of {len(text)} characters")
    return text[start : end + 1]  # the publisher counts the last character in


def _wsc(record: Record) -> Iterator[dict[str, object]]:
    target = _object(record.columns, "target")
    row = {name: value for name, value in record.columns.items() if name != "target"}
    for name in ("span1_text", "span2_text"):
        row[name] = _text(target, name, of="target")
    yield row


def _messages(record: Record) -> Iterator[dict[str, object]]:
    messages = [_message(message) for message in _objects(record.columns, "messages")]
    if len(messages) > MAX_MESSAGES:
        raise _UnfitError(f"a conversation of {len(messages)} messages, the limit is {MAX_MESSAGES}")
    others = {name: value for name, value in record.columns.items() if name != "messages"}
    group = _digest(messages)
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[0] == 0:
        raise _UnfitError("no message of an assistant that follows another")
    for place in turns:
        before = messages[:place]
        yield {
            **others,
            "messages": before,
            "prompt": before[-1]["content"],
            "answer": messages[place]["content"],
            "group": group,
        }


def _message(message: Mapping[str, object]) -> dict[str, str]:
    role = _text(message, "role", of="message")
    if role not in _ROLES:
        raise _UnfitError(f"the role {role!r} is none of {', '.join(_ROLES)}")
    return {"role": role, "content": _text(message, "content", of="message")}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _object(columns: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = columns.get(name)
    if not isinstance(value, dict):
        raise _UnfitError(f"{name!r} is {_kind(columns, name)}, expected an object")
    return value


def _objects(columns: Mapping[str, object], name: str, *, of: str = "row") -> list[dict[str, object]]:
    value = columns.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _UnfitError(f"{name!r} of a {of} is {_kind(columns, name)}, expected a list of objects")
    return value


def _text(columns: Mapping[str, object], name: str, *, of: str) -> str:
    value = columns.get(name)
    if not isinstance(value, str):
        raise _UnfitError(f"{name!r} of a {of} is {_kind(columns, name)}, expected a text")
    return value


def _kind(columns: Mapping[str, object], name: str) -> str:
    return json_kind(columns[name]) if name in columns else "missing"


_ROWS_OF: Mapping[Layout, Callable[[Record], Iterator[dict[str, object]]]] = {
    Layout.MULTIRC: _multirc,
    Layout.RECORD: _record,
    Layout.WSC: _wsc,
    Layout.MESSAGES: _messages,
}
