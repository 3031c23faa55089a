"""Tensor blocks: one tensor as self-describing bytes, in one of four codecs.

A block is a header of 64 bytes and the payload. Header, big-endian: codec u8, axes u8, exponent i16
(fp16 only, else 0), each axis' length u32, zeros. Payload, little-endian, by codec:

======  ==========================================================================================
fp32    every element
bf16    the upper half of every element, rounded to nearest even
fp16    half-precision bits of every element / 2^exponent
int8    one exponent i8 for each row of the last axis, zeros up to a multiple of 64, then i8 elements
======  ==========================================================================================

A block begins at a multiple of 64 bytes from its message's start, hence so does its payload.
"""

import math
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from splitlearn.errors import LocalProtocolError
from splitlearn.wire import quantise
from splitlearn.wire.envelope import Buffer
from splitlearn.wire.errors import CodecError
from splitlearn.wire.limits import Limits
from splitlearn.wire.schema import Array

assert sys.byteorder == "little", "payloads are taken from memory as they lie there"

ALIGNMENT = 64
HEADER_BYTES = ALIGNMENT
MAX_DIMS = 15
"""As many axes as the header has room for."""
_FIXED = struct.Struct(">BBh")


class Codec(StrEnum):
    """How a tensor's elements are written. The values are those of a specification's ``codec``."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


_NUMBERS = {Codec.FP32: 1, Codec.BF16: 2, Codec.FP16: 3, Codec.INT8: 4}
_BY_NUMBER = {number: codec for codec, number in _NUMBERS.items()}
_ELEMENT_BYTES = {Codec.FP32: 4, Codec.BF16: 2, Codec.FP16: 2, Codec.INT8: 1}


def aligned(num_bytes: int) -> int:
    """Round up to a multiple of :data:`ALIGNMENT`."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _num_rows(shape: Sequence[int]) -> int:
    return math.prod(shape[:-1])


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """The first 64 bytes of a block.

    Attributes:
        codec: How the payload is written.
        shape: Length of each axis.
        exponent: Of fp16's scale.
    """

    codec: Codec
    shape: tuple[int, ...]
    exponent: int = 0

    @property
    def block_bytes(self) -> int:
        """Bytes of header and payload."""
        return encoded_bytes(self.shape, self.codec)

    def pack(self) -> bytes:
        """Return the 64 bytes."""
        fixed = _FIXED.pack(_NUMBERS[self.codec], len(self.shape), self.exponent)
        lengths = struct.pack(f">{len(self.shape)}I", *self.shape)
        return (fixed + lengths).ljust(HEADER_BYTES, b"\0")

    @classmethod
    def unpack(cls, buffer: Buffer, *, limits: Limits) -> "BlockHeader":
        """Read a header from a buffer's start and judge every number in it.

        Raises:
            CodecError: Truncated, an unknown codec, or numbers that no encoder writes.
            LimitError: Too many axes or elements.
        """
        header = bytes(memoryview(buffer)[:HEADER_BYTES])
        if len(header) < HEADER_BYTES:
            raise CodecError(f"a tensor block needs {HEADER_BYTES} bytes of header, {len(header)} are left")
        number, num_dims, exponent = _FIXED.unpack_from(header)
        if number not in _BY_NUMBER:
            raise CodecError(f"tensor codec {number} is unknown; known are 1 to {len(_BY_NUMBER)}")
        _check_dims(num_dims, limits=limits)
        shape = struct.unpack_from(f">{num_dims}I", header, _FIXED.size)
        _check_elements(shape, limits=limits)
        unpacked = cls(codec=_BY_NUMBER[number], shape=shape, exponent=exponent)
        if header[_FIXED.size + 4 * num_dims :].strip(b"\0"):
            raise CodecError("a tensor block's header ends in other than zeros")
        unpacked._check_exponent()
        return unpacked

    def _check_exponent(self) -> None:
        least, most = 0, 0
        if self.codec == Codec.FP16:
            least, most = quantise.FP16_MIN_EXPONENT, quantise.FP16_MAX_EXPONENT
        if not least <= self.exponent <= most:
            raise CodecError(f"{self.codec} exponent {self.exponent} is outside {least} to {most}")


def _check_dims(num_dims: int, *, limits: Limits) -> None:
    limits.check("max_tensor_dims", num_dims, what="the number of a tensor's axes")
    if not 1 <= num_dims <= MAX_DIMS:
        raise CodecError(f"a tensor has 1 to {MAX_DIMS} axes, not {num_dims}")


def _check_elements(shape: Sequence[int], *, limits: Limits) -> None:
    # An axis of length 0 counts as 1, or [0, 2^32 - 1, 2^32 - 1] would pass and overflow numpy's strides.
    elements = math.prod(max(length, 1) for length in shape)
    limits.check("max_tensor_elements", elements, what=f"the number of elements of {list(shape)}")


def encoded_bytes(shape: Sequence[int], codec: Codec) -> int:
    """Return the size of a tensor's block, header included."""
    payload = math.prod(shape) * _ELEMENT_BYTES[codec]
    return HEADER_BYTES + (aligned(_num_rows(shape)) if codec == Codec.INT8 else 0) + payload


def encode_into(array: Array, codec: Codec, buffer: bytearray | memoryview, *, limits: Limits) -> None:
    """Write a tensor's block.

    Args:
        array: fp32, 1 to 15 axes; copied first where it is not C-contiguous.
        codec: How to write it.
        buffer: Writable, exactly :func:`encoded_bytes` long.
        limits: What the peer reads; refused here rather than there.

    Raises:
        LimitError: Too many axes or elements.
        LocalProtocolError: Another dtype, or a buffer of the wrong size; our fault.
    """
    if array.dtype != np.float32 or not 1 <= array.ndim <= MAX_DIMS:
        raise LocalProtocolError(
            f"a float32 array of 1 to {MAX_DIMS} axes is wanted, not {array.dtype} {list(array.shape)}"
        )
    _check_dims(array.ndim, limits=limits)
    _check_elements(array.shape, limits=limits)
    wanted = encoded_bytes(array.shape, codec)
    if len(buffer) != wanted:
        raise LocalProtocolError(
            f"the buffer has {len(buffer)} bytes, {codec} {list(array.shape)} needs {wanted}"
        )
    view = memoryview(buffer)
    exponent = _encode_payload(np.ascontiguousarray(array), codec, view[HEADER_BYTES:])
    view[:HEADER_BYTES] = BlockHeader(codec=codec, shape=array.shape, exponent=exponent).pack()


def _encode_payload(array: Array, codec: Codec, payload: memoryview) -> int:
    """Write the payload and return the exponent for the header."""
    values = array.reshape(-1)
    if not values.size and codec is not Codec.INT8:
        return quantise.FP16_MIN_EXPONENT if codec == Codec.FP16 else 0
    if codec == Codec.FP32:
        np.frombuffer(payload, np.float32)[:] = values
    elif codec == Codec.BF16:
        quantise.encode_bf16(values, np.frombuffer(payload, np.uint16))
    elif codec == Codec.FP16:
        return quantise.encode_fp16(values, np.frombuffer(payload, np.uint16))
    else:
        values_ND, exponents_N = _int8_parts(payload, array.shape)
        exponents_N[:] = quantise.INT8_MIN_EXPONENT
        payload[len(exponents_N) : aligned(len(exponents_N))] = bytes(
            aligned(len(exponents_N)) - len(exponents_N)
        )
        if values.size:
            quantise.encode_int8(array.reshape(values_ND.shape), values_ND, exponents_N)
    return 0


def _int8_parts(payload: memoryview, shape: Sequence[int]) -> tuple[quantise.Int8, quantise.Int8]:
    num_rows = _num_rows(shape)
    bytes_ = np.frombuffer(payload, np.int8)
    return bytes_[aligned(num_rows) :].reshape(num_rows, shape[-1]), bytes_[:num_rows]


def decode(buffer: Buffer, *, limits: Limits) -> Array:
    """Read a tensor from a buffer that holds its block and nothing else.

    Returns:
        fp32, writable. With codec fp32 and a writable, aligned buffer it is a view of that buffer.

    Raises:
        CodecError: Not a block, or of another size than its header says; the peer's fault.
        LimitError: Too many axes or elements.
    """
    header = BlockHeader.unpack(buffer, limits=limits)
    view = memoryview(buffer)
    if len(view) != header.block_bytes:
        raise CodecError(
            f"a {header.codec} block of {list(header.shape)} has {header.block_bytes} bytes, not {len(view)}"
        )
    payload = view[HEADER_BYTES:]
    if header.codec == Codec.FP32:
        return _writable(np.frombuffer(payload, np.float32)).reshape(header.shape)
    out = np.empty(header.shape, np.float32)
    if header.codec == Codec.INT8:
        _decode_int8(payload, header.shape, out)
    elif header.codec == Codec.BF16:
        quantise.decode_bf16(np.frombuffer(payload, np.uint16), out.reshape(-1))
    else:
        quantise.decode_fp16(np.frombuffer(payload, np.uint16), out.reshape(-1), exponent=header.exponent)
    return out


def _writable(values: Array) -> Array:
    return values if values.flags.writeable and values.flags.aligned else values.copy()


def _decode_int8(payload: memoryview, shape: Sequence[int], out: Array) -> None:
    values_ND, exponents_N = _int8_parts(payload, shape)
    valid_N = quantise.int8_exponents_valid(exponents_N)
    if not valid_N.all():
        raise CodecError(f"int8 exponent {int(exponents_N[~valid_N][0])} is one that no encoder writes")
    if bytes(payload[len(exponents_N) : aligned(len(exponents_N))]).strip(b"\0"):
        raise CodecError("the padding behind int8's exponents is not zero")
    if out.size:
        quantise.decode_int8(values_ND, exponents_N, out.reshape(values_ND.shape))
