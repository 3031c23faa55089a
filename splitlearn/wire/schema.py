"""The kinds of field that a message may have: how each is written, read and judged.

Numbers are big-endian. Fields follow one another without names or padding, in the order of the
dataclass; a tensor leaves only its presence in that order and its block (``codecs``) follows behind all
fields, at the next multiple of 64 bytes from the message's start.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, Protocol, get_type_hints

import numpy as np
import numpy.typing as npt

from splitlearn.wire.errors import MessageError, UnlistedError
from splitlearn.wire.limits import Limits

Array = npt.NDArray[np.float32]
"""A tensor that crosses: fp32 in memory on both sides, whatever the codec makes of it in between."""

Words32 = npt.NDArray[np.uint32]
"""Masked words of a secure sum: integers modulo 2^32."""


@dataclass(slots=True)
class Writer:
    """The fields of a message as bytes, and the tensors that are to follow them."""

    head: bytearray
    limits: Limits
    tensors: list[Array] = field(default_factory=list)


@dataclass(slots=True)
class Reader:
    """A cursor over the fields of a received message.

    Attributes:
        view: The whole message.
        limits: What may be read.
        offset: Next byte to read.
        where: The field that is being read, for error messages.
    """

    view: memoryview
    limits: Limits
    offset: int = 0
    where: str = "message"

    def take(self, num_bytes: int) -> memoryview:
        """Return the next bytes, uncopied.

        Raises:
            MessageError: The message ends before.
        """
        end = self.offset + num_bytes
        if end > len(self.view):
            raise MessageError(
                f"{self.where} needs {num_bytes} bytes at {self.offset}, the message ends at {len(self.view)}"
            )
        self.offset, taken = end, self.view[self.offset : end]
        return taken


class FieldKind(Protocol):
    """One kind of field. ``label`` is its name in the published list of what leaves."""

    @property
    def label(self) -> str:
        """Name of the kind in the catalogue."""

    def write(self, writer: Writer, value: Any) -> None:
        """Append a value.

        Raises:
            UnlistedError: Not a value of this kind; our fault.
            LimitError: A list longer than the limit.
        """

    def read(self, reader: Reader) -> Any:
        """Take a value.

        Raises:
            MessageError: Truncated, or not a value of this kind; the peer's fault.
            LimitError: A list longer than the limit.
        """


@dataclass(frozen=True, slots=True)
class Listed:
    """What the closed list says of one field; stands in the field's annotation.

    Attributes:
        kind: How it is written.
        what: What the field is.
        reveals: What whoever can read it may learn.
    """

    kind: FieldKind
    what: str
    reveals: str


@dataclass(frozen=True, slots=True)
class Number:
    """A fixed-width number: exactly ``int`` or ``float``, never a bool or numpy scalar."""

    label: str
    layout: struct.Struct
    type: type[int] | type[float]

    def write(self, writer: Writer, value: Any) -> None:
        """Append a number; see :class:`FieldKind`."""
        if type(value) is not self.type:
            raise UnlistedError(
                f"a {self.label} is an exact {self.type.__name__}, not {type(value).__name__}"
            )
        try:
            writer.head += self.layout.pack(value)
        except struct.error as error:
            raise UnlistedError(f"{value} is no {self.label}: {error}") from error

    def read(self, reader: Reader) -> Any:
        """Take a number; see :class:`FieldKind`."""
        return self.layout.unpack(reader.take(self.layout.size))[0]


U8 = Number("u8", struct.Struct(">B"), int)
U32 = Number("u32", struct.Struct(">I"), int)
U64 = Number("u64", struct.Struct(">Q"), int)
F64 = Number("f64", struct.Struct(">d"), float)


@dataclass(frozen=True, slots=True)
class Flag:
    """A bool in one byte: 0 or 1, nothing else."""

    label: str = "bool"

    def write(self, writer: Writer, value: Any) -> None:
        """Append a bool; see :class:`FieldKind`."""
        if type(value) is not bool:
            raise UnlistedError(f"a bool is True or False, not {type(value).__name__}")
        U8.write(writer, int(value))

    def read(self, reader: Reader) -> bool:
        """Take a bool; see :class:`FieldKind`."""
        value = U8.read(reader)
        if value > 1:
            raise MessageError(f"{reader.where} is {value}, a bool is 0 or 1")
        return bool(value)


FLAG = Flag()


@dataclass(frozen=True, slots=True)
class Choice:
    """One member of an enumeration, by its number in one byte."""

    members: type[IntEnum]

    @property
    def label(self) -> str:
        """The members' names."""
        return "one of " + ", ".join(member.name.lower() for member in self.members)

    def write(self, writer: Writer, value: Any) -> None:
        """Append a member; see :class:`FieldKind`."""
        if type(value) is not self.members:
            raise UnlistedError(f"{type(value).__name__} is no {self.members.__name__}")
        U8.write(writer, int(value))

    def read(self, reader: Reader) -> IntEnum:
        """Take a member; see :class:`FieldKind`."""
        value = U8.read(reader)
        try:
            return self.members(value)
        except ValueError:
            raise MessageError(
                f"{reader.where} is {value}, {self.members.__name__} knows {self.label}"
            ) from None


@dataclass(frozen=True, slots=True)
class ChoiceSet:
    """A set of members of an enumeration: one byte, bit n - 1 for member n."""

    members: type[IntEnum]

    @property
    def label(self) -> str:
        """The members' names."""
        return "set of " + ", ".join(member.name.lower() for member in self.members)

    def write(self, writer: Writer, value: Any) -> None:
        """Append a frozenset; see :class:`FieldKind`."""
        if type(value) is not frozenset or any(type(item) is not self.members for item in value):
            raise UnlistedError(f"a frozenset of {self.members.__name__} is wanted")
        U8.write(writer, sum(1 << (item - 1) for item in value))

    def read(self, reader: Reader) -> frozenset[IntEnum]:
        """Take a frozenset; see :class:`FieldKind`."""
        bits = U8.read(reader)
        if bits >> len(self.members):
            raise MessageError(
                f"{reader.where} has bits {bits:#x}, {self.members.__name__} knows {self.label}"
            )
        return frozenset(item for item in self.members if bits >> (item - 1) & 1)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A tuple of numbers: their count as u32, then each big-endian."""

    label: str
    dtype: np.dtype[Any]
    type: type[int] | type[float]

    def write(self, writer: Writer, value: Any) -> None:
        """Append a tuple; see :class:`FieldKind`."""
        if type(value) is not tuple or any(type(item) is not self.type for item in value):
            raise UnlistedError(f"a {self.label} is a tuple of exact {self.type.__name__}")
        writer.limits.check("max_list_items", len(value), what=f"the length of a {self.label}")
        U32.write(writer, len(value))
        writer.head += self._exact(value).tobytes()

    def _exact(self, value: tuple[int | float, ...]) -> npt.NDArray[Any]:
        """Return the items in their width, refusing any that the width would change."""
        try:
            wide = np.array(value, dtype=np.int64 if self.type is int else np.float64)
        except OverflowError as error:
            raise UnlistedError(f"an item does not fit a {self.label}") from error
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = wide.astype(self.dtype)
        changed = (narrow != wide) & (wide == wide)  # noqa: PLR0124 - NaN arrives as NaN
        if changed.any():
            raise UnlistedError(f"{wide[changed][0]} does not fit a {self.label} exactly")
        return narrow

    def read(self, reader: Reader) -> tuple[Any, ...]:
        """Take a tuple; see :class:`FieldKind`."""
        count = U32.read(reader)
        reader.limits.check("max_list_items", count, what=f"the length of {reader.where}")
        raw = reader.take(count * self.dtype.itemsize)
        return tuple(np.frombuffer(raw, dtype=self.dtype).tolist())


LIST_U32 = Numbers("list of u32", np.dtype(">u4"), int)
LIST_F32 = Numbers("list of f32", np.dtype(">f4"), float)


@dataclass(frozen=True, slots=True)
class Octets:
    """A byte string of bounded length: its length as u16, then the bytes.

    Attributes:
        least: Fewest bytes.
        most: Most bytes; at most 65,535.
    """

    least: int
    most: int

    @property
    def label(self) -> str:
        """The length."""
        return f"{self.most} bytes" if self.least == self.most else f"{self.least} to {self.most} bytes"

    def write(self, writer: Writer, value: Any) -> None:
        """Append a byte string; see :class:`FieldKind`."""
        if type(value) is not bytes or not self.least <= len(value) <= self.most:
            raise UnlistedError(f"{self.label} are wanted as exact bytes")
        writer.head += len(value).to_bytes(2, "big") + value

    def read(self, reader: Reader) -> bytes:
        """Take a byte string; see :class:`FieldKind`."""
        length = int.from_bytes(reader.take(2), "big")
        if not self.least <= length <= self.most:
            raise MessageError(f"{reader.where} has {length} bytes, {self.label} are allowed")
        return bytes(reader.take(length))


@dataclass(frozen=True, slots=True)
class Several:
    """A tuple of values of one kind: their count as u16, then each.

    Attributes:
        inner: The kind.
        most: Most items.
    """

    inner: FieldKind
    most: int

    @property
    def label(self) -> str:
        """The inner kind, several times."""
        return f"at most {self.most} of {self.inner.label}"

    def write(self, writer: Writer, value: Any) -> None:
        """Append a tuple; see :class:`FieldKind`."""
        if type(value) is not tuple or len(value) > self.most:
            raise UnlistedError(f"a tuple of {self.label} is wanted")
        writer.head += len(value).to_bytes(2, "big")
        for item in value:
            self.inner.write(writer, item)

    def read(self, reader: Reader) -> tuple[Any, ...]:
        """Take a tuple; see :class:`FieldKind`."""
        count = int.from_bytes(reader.take(2), "big")
        if count > self.most:
            raise MessageError(f"{reader.where} has {count} items, {self.most} are allowed")
        return tuple(self.inner.read(reader) for _ in range(count))


@dataclass(frozen=True, slots=True)
class Words:
    """A vector of u32 that are integers modulo 2^32: their count as u32, then each little-endian."""

    label: str = "vector of u32"

    def write(self, writer: Writer, value: Any) -> None:
        """Append a vector; see :class:`FieldKind`."""
        if type(value) is not np.ndarray or value.dtype != np.uint32 or value.ndim != 1:
            raise UnlistedError("a vector of u32 is a uint32 array of one axis")
        writer.limits.check("max_words", len(value), what="the number of words of a vector")
        U32.write(writer, len(value))
        writer.head += np.ascontiguousarray(value, dtype="<u4").data.cast("B")

    def read(self, reader: Reader) -> Words32:
        """Take a vector; see :class:`FieldKind`."""
        count = U32.read(reader)
        reader.limits.check("max_words", count, what=f"the number of words of {reader.where}")
        return np.frombuffer(reader.take(4 * count), dtype="<u4").astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor with a fixed number of axes; its block lies behind the fields."""

    axes: str

    @property
    def label(self) -> str:
        """The axes."""
        return f"tensor [{', '.join(self.axes)}]"

    def write(self, writer: Writer, value: Any) -> None:
        """Note a tensor; see :class:`FieldKind`."""
        if type(value) is not np.ndarray or value.dtype != np.float32 or value.ndim != len(self.axes):
            raise UnlistedError(f"a {self.label} is a float32 array of {len(self.axes)} axes")
        writer.tensors.append(value)

    def read(self, reader: Reader) -> "Pending":
        """Note that a tensor follows; see :class:`FieldKind`."""
        return Pending(where=reader.where, kind=self)


@dataclass(frozen=True, slots=True)
class Pending:
    """Stands for a tensor until the fields before it are read."""

    where: str
    kind: Tensor


@dataclass(frozen=True, slots=True)
class Optional:
    """A field that may be absent: a bool, then the field if it is there."""

    inner: FieldKind

    @property
    def label(self) -> str:
        """The inner kind, optional."""
        return f"optional {self.inner.label}"

    def write(self, writer: Writer, value: Any) -> None:
        """Append presence and value; see :class:`FieldKind`."""
        FLAG.write(writer, value is not None)
        if value is not None:
            self.inner.write(writer, value)

    def read(self, reader: Reader) -> Any:
        """Take presence and value; see :class:`FieldKind`."""
        return self.inner.read(reader) if FLAG.read(reader) else None


def listed_fields(cls: type) -> dict[str, Listed]:
    """Return what a dataclass's annotations say of its fields, in order.

    A field without :class:`Listed` in its annotation is a mistake of ours and stops the import.
    """
    hints = get_type_hints(cls, include_extras=True)
    listed = {name: _listed(hints[name]) for name in (field.name for field in fields(cls))}
    bare = [name for name, entry in listed.items() if entry is None]
    assert not bare, f"{cls.__name__}: {bare} are not described; nothing leaves without a line in the list"
    return {name: entry for name, entry in listed.items() if entry is not None}


def _listed(hint: Any) -> Listed | None:
    return next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Listed)), None)


@dataclass(frozen=True, slots=True)
class Record:
    """A dataclass inside a message: its fields in order.

    Attributes:
        type: The dataclass; a subclass is refused.
        fields: What the closed list says of each field.
    """

    type: Callable[..., Any]
    fields: dict[str, Listed]

    @property
    def label(self) -> str:
        """The dataclass's name."""
        return getattr(self.type, "__name__", "record")

    def write(self, writer: Writer, value: Any) -> None:
        """Append every field; see :class:`FieldKind`."""
        if type(value) is not self.type:
            raise UnlistedError(f"{type(value).__name__} is not {self.label}: only the closed list is sent")
        for name, listed in self.fields.items():
            listed.kind.write(writer, getattr(value, name))

    def read(self, reader: Reader) -> Any:
        """Take every field; see :class:`FieldKind`."""
        where, values = reader.where, {}
        for name, listed in self.fields.items():
            reader.where = f"{where}.{name}"
            values[name] = listed.kind.read(reader)
        reader.where = where
        return self.type(**values)
