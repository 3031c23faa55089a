"""From fp32 to fewer bits and back: the arithmetic of the codecs, on plain arrays.

Scales are powers of two, so scaling loses nothing and encoding what was decoded gives the same bytes.
Everything runs over blocks of :data:`BLOCK_ELEMENTS`, so that the temporaries (one fp32 block, 256 KiB)
stay in a core's L2 cache: for int8 of 2048 x 4096 that takes half to a third of the time of whole arrays.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Bits16 = npt.NDArray[np.uint16]
Int8 = npt.NDArray[np.int8]

BLOCK_ELEMENTS = 1 << 16
INT8_MIN_EXPONENT = -126
INT8_MAX_EXPONENT = 121
"""127 * 2^121 is the largest magnitude that int8 carries; beyond it a row counts as not finite."""
INT8_NOT_FINITE = -128
"""Exponent of a row that decodes to NaN."""
FP16_MIN_EXPONENT = -125
"""With it the smallest fp16 subnormal, 2^-24, still is an exact fp32 number."""
FP16_MAX_EXPONENT = 112

_MANTISSA_BITS = 23
_BIAS = 127
# Maxima may come out as -0.0 or as a NaN with its sign set.
_MAGNITUDE = 0x7FFF_FFFF
_NAN_BF16 = 0x7FC0
_NAN_FP16 = 0x7E00
# Adding 1.5 * 2^23 to |y| <= 2^22 leaves round-to-nearest-even(y) in the sum's low bits, in two's complement.
_ROUNDER = np.float32(12582912.0)
# Rounding to fp16 shifts a binade's top to the next one; the scale is chosen after that rounding.
_FP16_DROPPED_BITS = 13
_FP16_TOP_BINADE = 15
_FP16_BIAS_GAP = 112


def _blocks(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _power_of_two(exponent: npt.NDArray[np.int32]) -> Float32:
    """Return 2^exponent for exponents of normal numbers, -126 to 127."""
    bits: npt.NDArray[np.int32] = (exponent + _BIAS) << _MANTISSA_BITS
    return bits.view(np.float32)


def encode_bf16(values: Float32, out: Bits16) -> None:
    """Round fp32 to bfloat16, to nearest, ties to even; every NaN becomes the one quiet NaN.

    Args:
        values: fp32 [n].
        out: uint16 [n], overwritten with the upper halves.
    """
    scratch = np.empty(min(len(values), BLOCK_ELEMENTS), np.uint32)
    for block in _blocks(len(values), BLOCK_ELEMENTS):
        source = values[block]
        bits, rounded = source.view(np.uint32), scratch[: len(source)]
        np.right_shift(bits, 16, out=rounded)
        np.bitwise_and(rounded, 1, out=rounded)
        np.add(rounded, 0x7FFF, out=rounded)
        np.add(rounded, bits, out=rounded)
        np.right_shift(rounded, 16, out=rounded)
        np.copyto(out[block], rounded, casting="unsafe")
        if np.isnan(source.max()):
            out[block][np.isnan(source)] = _NAN_BF16


def decode_bf16(values: Bits16, out: Float32) -> None:
    """Widen bfloat16 bits [n] into fp32 [n]; exact."""
    bits = out.view(np.uint32)
    for block in _blocks(len(values), BLOCK_ELEMENTS):
        np.copyto(bits[block], values[block])
        np.left_shift(bits[block], 16, out=bits[block])


def _round_mantissa(bits: npt.NDArray[np.uint32], scratch: npt.NDArray[np.uint32]) -> None:
    """Add to fp32 bits, in place, what makes cutting 13 of them a rounding to nearest even."""
    np.right_shift(bits, _FP16_DROPPED_BITS, out=scratch)
    np.bitwise_and(scratch, 1, out=scratch)
    np.add(scratch, (1 << (_FP16_DROPPED_BITS - 1)) - 1, out=scratch)
    np.add(bits, scratch, out=bits)


def fp16_exponent(values: Float32) -> int | None:
    """Choose e so that the largest of fp32 [n], rounded to fp16's 11 bits, lies in 2^(e + 15) to 2^(e + 16).

    Returns:
        e, at least :data:`FP16_MIN_EXPONENT`; None if a value is not finite or rounds beyond fp32.
    """
    largest = np.zeros(1, np.float32)
    with np.errstate(invalid="ignore"):
        for block in _blocks(len(values), BLOCK_ELEMENTS):
            np.maximum(largest, max_magnitude(values[block][None]), out=largest)
    bits: npt.NDArray[np.uint32] = largest.view(np.uint32) & np.uint32(_MAGNITUDE)
    if bits[0] >= 0xFF << _MANTISSA_BITS:
        return None
    _round_mantissa(bits, np.empty_like(bits))
    exponent = int(bits[0] >> _MANTISSA_BITS) - _BIAS - _FP16_TOP_BINADE
    return None if exponent > FP16_MAX_EXPONENT else max(exponent, FP16_MIN_EXPONENT)


def max_magnitude(values_ND: Float32) -> Float32:
    """Return the largest magnitude of each row, [N]; NaN if the row holds one."""
    largest: Float32 = np.maximum(values_ND.max(axis=1), -values_ND.min(axis=1))
    return largest


def encode_fp16(values: Float32, out: Bits16) -> int:
    """Round fp32 / 2^e to IEEE half precision, to nearest.

    The error is at most 2^-11 of a value, or 2^(e - 24) where that is more. Not finite anywhere:
    all become NaN. numpy's own conversion takes 38 ms for 8 Mi elements; choosing e and
    rounding together take 24 here.

    Args:
        values: fp32 [n].
        out: uint16 [n], overwritten.

    Returns:
        e, chosen by :func:`fp16_exponent`.
    """
    exponent = fp16_exponent(values) if len(values) else FP16_MIN_EXPONENT
    if exponent is None:
        out[:] = _NAN_FP16
        return 0
    # Scaled down by 2^112 more, a number's fp32 exponent field is what its half-precision field must be.
    factors = _power_of_two(np.array([-_FP16_BIAS_GAP, -exponent], np.int32))
    size = min(len(values), BLOCK_ELEMENTS)
    scaled_block, scratch_block = np.empty(size, np.float32), np.empty(size, np.uint32)
    for block in _blocks(len(values), BLOCK_ELEMENTS):
        source = values[block]
        scaled, scratch = scaled_block[: len(source)], scratch_block[: len(source)]
        np.multiply(source, factors[1], out=scaled)
        np.multiply(scaled, factors[0], out=scaled)
        _pack_half(scaled.view(np.uint32), scratch, out[block])
    return exponent


def _pack_half(bits: npt.NDArray[np.uint32], scratch: npt.NDArray[np.uint32], out: Bits16) -> None:
    _round_mantissa(bits, scratch)
    np.right_shift(bits, 16, out=scratch)
    np.bitwise_and(scratch, 0x8000, out=scratch)
    np.right_shift(bits, _FP16_DROPPED_BITS, out=bits)
    np.bitwise_and(bits, 0x7FFF, out=bits)
    np.bitwise_or(bits, scratch, out=bits)
    np.copyto(out, bits, casting="unsafe")


def decode_fp16(values: Bits16, out: Float32, *, exponent: int) -> None:
    """Widen half-precision bits [n] into fp32 [n] times 2^exponent; exact, infinite where it overflows."""
    halves, scale = values.view(np.float16), np.ldexp(np.float32(1), exponent)
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(len(values), BLOCK_ELEMENTS):
            np.copyto(out[block], halves[block])
            np.multiply(out[block], scale, out=out[block])


def encode_int8(values_ND: Float32, out_ND: Int8, exponents_N: Int8) -> None:
    """Round each row to multiples of its own 2^e, from -127 to 127 of them.

    e is the least with max / 2^e <= 127, at least -126; the error is at most 2^(e - 1). A row with a
    value that is not finite, or beyond 127 * 2^121, gets the exponent -128 and zeros.

    Args:
        values_ND: fp32 [N, D], D at least 1.
        out_ND: int8 [N, D], overwritten.
        exponents_N: int8 [N], overwritten.
    """
    rows = max(1, BLOCK_ELEMENTS // values_ND.shape[1])
    scratch_ND = np.empty((min(rows, len(values_ND)), values_ND.shape[1]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for block in _blocks(len(values_ND), rows):
            source = values_ND[block]
            _encode_int8_block(source, scratch_ND[: len(source)], out_ND[block], exponents_N[block])


def _encode_int8_block(values_ND: Float32, scaled_ND: Float32, out_ND: Int8, exponents_N: Int8) -> None:
    np.abs(values_ND, out=scaled_ND)
    exponent_N = _int8_exponents(scaled_ND.max(axis=1))
    lost_N = exponent_N > INT8_MAX_EXPONENT
    np.multiply(values_ND, _power_of_two(-np.minimum(exponent_N, INT8_MAX_EXPONENT))[:, None], out=scaled_ND)
    np.add(scaled_ND, _ROUNDER, out=scaled_ND)
    np.copyto(out_ND, scaled_ND.view(np.int32), casting="unsafe")
    if lost_N.any():
        out_ND[lost_N] = 0
        exponent_N[lost_N] = INT8_NOT_FINITE
    np.copyto(exponents_N, exponent_N, casting="unsafe")


def _int8_exponents(largest_N: Float32) -> npt.NDArray[np.int32]:
    """Return the least e with largest / 2^e <= 127 by carrying a mantissa above 127/64 into the exponent.

    Infinity and NaN come out above :data:`INT8_MAX_EXPONENT`.
    """
    bits: npt.NDArray[np.int32] = largest_N.view(np.int32) & _MAGNITUDE
    carried = (bits + 0x1FFFF) >> _MANTISSA_BITS
    exponents: npt.NDArray[np.int32] = np.maximum(carried - (_BIAS + 6), INT8_MIN_EXPONENT)
    exponents[bits >= 0xFF << _MANTISSA_BITS] = INT8_MAX_EXPONENT + 1
    return exponents


def int8_exponents_valid(exponents_N: Int8) -> npt.NDArray[np.bool_]:
    """Return, for each of [N], whether an encoder writes such an exponent."""
    within = (exponents_N >= INT8_MIN_EXPONENT) & (exponents_N <= INT8_MAX_EXPONENT)
    valid: npt.NDArray[np.bool_] = within | (exponents_N == INT8_NOT_FINITE)
    return valid


def decode_int8(values_ND: Int8, exponents_N: Int8, out_ND: Float32) -> None:
    """Multiply int8 [N, D] by its rows' 2^e into fp32 [N, D]; exact. Exponent -128 gives NaN."""
    exponents: npt.NDArray[Any] = exponents_N.astype(np.int32)
    scales_N = _power_of_two(np.maximum(exponents, INT8_MIN_EXPONENT))
    scales_N[exponents == INT8_NOT_FINITE] = np.nan
    rows = max(1, BLOCK_ELEMENTS // values_ND.shape[1])
    for block in _blocks(len(values_ND), rows):
        np.copyto(out_ND[block], values_ND[block])
        np.multiply(out_ND[block], scales_N[block, None], out=out_ND[block])
