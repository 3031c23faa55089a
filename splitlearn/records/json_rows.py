"""Rows written as JSON: an object per line, or one array of objects. Torch-free, strict."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NoReturn

from splitlearn.errors import DataError
from splitlearn.records.record import Record, json_kind

_WHITE_SPACE = " \t\n\r"


def json_object(line: str, *, where: str) -> dict[str, object]:
    """Read one line that holds one object.

    Raises:
        DataError: It holds something else; begins with ``where``.
    """
    try:
        value, end = _DECODER.raw_decode(line, len(line) - len(line.lstrip()))
        if line[end:].strip():
            raise json.JSONDecodeError("Extra data", line, end)
        _refuse_halves(value, line)
    except (ValueError, RecursionError) as error:
        raise _refusal(error, line, where=where) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: the line is {json_kind(value)}, expected one object per line, "
            'such as {"text": "..."}'
        )
    return value


def begins_an_array(lines: Iterator[str]) -> tuple[bool, Iterator[str]]:
    """Look at the first line that is not blank, and return all lines again."""
    seen = []
    for line in lines:
        seen.append(line)
        if line.strip():
            return line.lstrip().startswith("["), chain(seen, lines)
    return False, iter(seen)


def array_rows(lines: Iterable[str], *, source: str, max_characters: int) -> Iterator[Record]:
    """Yield the objects of one JSON array, which is held whole while it is read.

    Raises:
        DataError: It is longer than the limit, or not an array of objects alone.
    """
    text = _whole_text(lines, source=source, max_characters=max_characters)
    at, line = _skipped(text, text.index("[") + 1), 1
    counted = 0
    is_first = True
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        where = f"{source}:{line}"
        if not is_first:
            if text[at : at + 1] != ",":
                raise DataError(f"{where}: expected a comma or the array's end; correct the file")
            at = _skipped(text, at + 1)
            line, counted = line + text.count("\n", counted, at), at
            where = f"{source}:{line}"
        try:
            value, end = _DECODER.raw_decode(text, at)
            _refuse_halves(value, text[at:end])
        except (ValueError, RecursionError) as error:
            raise _refusal(error, text[at : at + 1], where=where) from error
        if not isinstance(value, dict):
            raise DataError(f"{where}: the array holds {json_kind(value)}, expected objects alone")
        yield Record(value, source, line)
        is_first, at = False, _skipped(text, end)
    if rest := text[at + 1 :].strip():
        raise DataError(f"{source}: {len(rest)} characters follow the array's end; remove them")


def _whole_text(lines: Iterable[str], *, source: str, max_characters: int) -> str:
    parts, length = [], 0
    for line in lines:
        parts.append(line)
        length += len(line)
        if length > max_characters:
            raise DataError(
                f"{source}: the JSON array has more than {max_characters} characters, the limit of a "
                "file that is held whole; write one object per line (jq -c '.[]' rows.json > rows.jsonl)"
            )
    return "".join(parts)


def _skipped(text: str, at: int) -> int:
    while at < len(text) and text[at] in _WHITE_SPACE:
        at += 1
    return at


def _refuse_halves(value: object, text: str) -> None:
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()


def _refusal(error: ValueError | RecursionError, text: str, *, where: str) -> DataError:
    match error:
        case json.JSONDecodeError():
            is_array = text.lstrip().startswith("[")
            hint = (
                "; a JSON array must be written as one object per line, or stand in a .json file"
                if is_array
                else ""
            )
            return DataError(
                f"{where}: not JSON at character {error.pos + 1} ({error.msg}), "
                f"expected one object per line{hint}"
            )
        case UnicodeEncodeError():
            return DataError(f"{where}: half of a surrogate pair in a text; write the whole character")
        case RecursionError():
            return DataError(f"{where}: the line is nested too deeply; correct the line")
        case _:
            return DataError(f"{where}: {error}; correct the line")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        doubled = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {doubled!r} occurs twice in one object")
    return result


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python's own limit, which guards against numbers that take hours to read
        raise ValueError(f"a number of {len(digits)} digits is too long to be read as one") from None


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is too large to be held, and infinity is not JSON")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_doubles, parse_constant=_no_constant, parse_int=_whole, parse_float=_finite
)
