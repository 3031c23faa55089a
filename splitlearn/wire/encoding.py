"""Messages to bytes and back: the only door through which anything leaves.

A message is its number u8, the acknowledgement u64 (``message_seq`` of the last message opened from the
peer), its fields (``schema``), and the blocks of its tensors, each at the next multiple of 64.
"""

import struct
from typing import Any

from splitlearn.errors import LocalProtocolError
from splitlearn.wire import codecs
from splitlearn.wire.codecs import Codec
from splitlearn.wire.envelope import Buffer, Direction
from splitlearn.wire.errors import MessageError, UnlistedError
from splitlearn.wire.generation_messages import Decode, Prefill
from splitlearn.wire.limits import Limits
from splitlearn.wire.messages import CLOSED_LIST, Activations, Message, MessageType
from splitlearn.wire.schema import Array, Pending, Reader, Writer

PREFIX_BYTES = 9
_PREFIX = struct.Struct(">BQ")
_U64_MAX = (1 << 64) - 1
_BY_CLASS = {listed.cls: listed for listed in CLOSED_LIST}
_BY_NUMBER = {listed.number: listed for listed in CLOSED_LIST}
_DEFAULT_LIMITS = Limits()


def encode_message(
    message: Message, *, codec: Codec, ack: int = 0, limits: Limits = _DEFAULT_LIMITS
) -> bytearray:
    """Write one message of the closed list.

    Args:
        message: An instance of exactly one of the listed classes.
        codec: How its tensors are written.
        ack: ``message_seq`` of the last message opened from the peer; :func:`set_ack` changes it later.
        limits: What the peer reads; refused here rather than there.

    Returns:
        A buffer of its own, into which the tensors were written directly.

    Raises:
        UnlistedError: A type or attribute outside the closed list, or a value outside its field; our fault.
        LimitError: Larger than a limit: send smaller micro-batches.
    """
    writer = Writer(head=bytearray(PREFIX_BYTES), limits=limits)
    number = _write_fields(message, writer)
    offsets, size = _place(writer, codec)
    limits.check("max_message_bytes", size, what=f"the size of {type(message).__name__} in bytes")
    buffer = bytearray(size)
    buffer[: len(writer.head)] = writer.head
    buffer[0] = number
    set_ack(buffer, ack)
    with memoryview(buffer) as view:
        for array, start in zip(writer.tensors, offsets, strict=True):
            end = start + codecs.encoded_bytes(array.shape, codec)
            codecs.encode_into(array, codec, view[start:end], limits=limits)
    return buffer


def _write_fields(message: Any, writer: Writer) -> int:
    listed = _BY_CLASS.get(type(message))
    if listed is None:
        raise UnlistedError(f"{type(message).__name__} is no message: only the closed list is sent")
    extra = set(getattr(message, "__dict__", ())) - set(listed.fields)
    if extra:
        raise UnlistedError(f"{type(message).__name__} carries {sorted(extra)}, which the list does not hold")
    problem = _inconsistency(message)
    if problem:
        raise UnlistedError(f"{type(message).__name__}: {problem}")
    for name, field in listed.fields.items():
        try:
            field.kind.write(writer, getattr(message, name))
        except UnlistedError as error:
            raise UnlistedError(f"{type(message).__name__}.{name}: {error}") from error
    return listed.number


def _inconsistency(message: Any) -> str | None:
    return message.inconsistency() if isinstance(message, Activations | Prefill | Decode) else None


def _place(writer: Writer, codec: Codec) -> tuple[list[int], int]:
    """Return where each tensor's block begins, and the message's size."""
    offsets, size = [], len(writer.head)
    for array in writer.tensors:
        offsets.append(codecs.aligned(size))
        size = offsets[-1] + codecs.encoded_bytes(array.shape, codec)
    return offsets, size


def set_ack(buffer: bytearray | memoryview, ack: int) -> None:
    """Rewrite the acknowledgement of an encoded message in place, for sending it again.

    Raises:
        LocalProtocolError: Not an encoded message, or no u64; our fault.
    """
    if len(buffer) < PREFIX_BYTES or not 0 <= ack <= _U64_MAX:
        raise LocalProtocolError(f"ack {ack} cannot be written into a buffer of {len(buffer)} bytes")
    struct.pack_into(">Q", buffer, 1, ack)


def decode_message(
    buffer: Buffer, *, direction: Direction, limits: Limits = _DEFAULT_LIMITS, codec: Codec | None = None
) -> tuple[Message, int]:
    """Read one message that the peer sent.

    Args:
        buffer: One whole plaintext. A writable one (bytearray) lends its memory to fp32 tensors.
        direction: Who sent it; the other side's messages are refused.
        limits: What may be read.
        codec: What the tensors must be written in; None for any.

    Returns:
        The message, and the peer's acknowledgement.

    Raises:
        MessageError: Not a message of the list, of this direction, or whole; the peer's fault.
        CodecError: A tensor block is malformed or of another codec; the peer's fault.
        LimitError: Larger than a limit.
    """
    view = memoryview(buffer)
    limits.check("max_message_bytes", len(view), what="the size of a message in bytes")
    reader = Reader(view=view, limits=limits)
    number, ack = _PREFIX.unpack(reader.take(PREFIX_BYTES))
    listed = _expected(number, direction)
    values = {}
    for name, field in listed.fields.items():
        reader.where = f"{listed.cls.__name__}.{name}"
        values[name] = field.kind.read(reader)
    for name, value in values.items():
        if isinstance(value, Pending):
            values[name] = _read_tensor(reader, value, codec=codec)
    if reader.offset != len(view):
        raise MessageError(f"{listed.cls.__name__} ends at {reader.offset}, {len(view)} bytes were sent")
    return _build(listed, values), ack


def _expected(number: int, direction: Direction) -> MessageType:
    listed = _BY_NUMBER.get(number)
    if listed is None:
        raise MessageError(f"message number {number} is not on the list; does the peer run another version?")
    if listed.direction is not direction:
        raise MessageError(f"{listed.cls.__name__} came {direction.name.lower()}, against its direction")
    return listed


def _read_tensor(reader: Reader, pending: Pending, *, codec: Codec | None) -> Array:
    reader.where = pending.where
    padding = reader.take(codecs.aligned(reader.offset) - reader.offset)
    if bytes(padding).strip(b"\0"):
        raise MessageError(f"the padding before {pending.where} is not zero")
    header = codecs.BlockHeader.unpack(reader.view[reader.offset :], limits=reader.limits)
    if codec not in {None, header.codec}:
        raise MessageError(f"{pending.where} is written in {header.codec}, {codec} was agreed")
    if len(header.shape) != len(pending.kind.axes):
        raise MessageError(f"{pending.where} has {list(header.shape)}, a {pending.kind.label} is wanted")
    return codecs.decode(reader.take(header.block_bytes), limits=reader.limits)


def _build(listed: MessageType, values: dict[str, Any]) -> Message:
    message = listed.cls(**values)
    problem = _inconsistency(message)
    if problem:
        raise MessageError(f"{listed.cls.__name__}: {problem}")
    return message
