"""What every message has in common: equality by value, and a representation that shows no contents."""

import math
from dataclasses import fields
from enum import IntEnum
from typing import Any

import numpy as np


class Value:
    """Equality by value, and a representation that never shows a tensor's contents."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # arrays are mutable

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(mine, theirs) for mine, theirs in zip(_values(self), _values(other), strict=True))

    def __repr__(self) -> str:
        shown = (f"{field.name}={_shown(getattr(self, field.name))}" for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(shown)})"


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, field.name) for field in fields(value))


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
        return np.array_equal(mine, theirs, equal_nan=True)
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return len(mine) == len(theirs) and all(map(_same, mine, theirs))
    if isinstance(mine, float) and isinstance(theirs, float):
        return mine == theirs or (math.isnan(mine) and math.isnan(theirs))
    return type(mine) is type(theirs) and bool(mine == theirs)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {list(value.shape)}>"
    if isinstance(value, tuple):
        return f"<{len(value)} items>"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return value.name if isinstance(value, IntEnum) else repr(value)
