"""Real numbers as integers modulo 2^32, so that masks can hide them and sums stay exact.

A word is round(value x weight x 2^fraction_bits), to nearest even. Each silo's word lies within
(2^31 - 1) // K in magnitude, so the sum over K silos never wraps. The sum of K words is within K / 2
steps of 2^-fraction_bits of the exact weighted mean: each word is rounded once, by at most half a step.
"""

import numpy as np
from numpy.typing import NDArray

from splitlearn.errors import LocalProtocolError
from splitlearn.privacy.errors import FixedPointError
from splitlearn.wire import Words32

DEFAULT_FRACTION_BITS = 24
_LARGEST_SUM = 2**31 - 1


def largest_word(num_silos: int) -> int:
    """Return the largest magnitude that one silo's word may have."""
    return _LARGEST_SUM // num_silos


def encode(
    values: NDArray[np.float32],
    *,
    name: str,
    num_tokens: int,
    total_tokens: int,
    num_silos: int,
    fraction_bits: int,
) -> Words32:
    """Return a tensor's words: each value times ``num_tokens / total_tokens``, in fixed point.

    Args:
        values: fp32, any shape.
        name: The tensor's, for the error.
        num_tokens: This silo's weight.
        total_tokens: All silos' weights.
        num_silos: K.
        fraction_bits: Binary digits behind the point.

    Returns:
        uint32 of one axis: the signed word modulo 2^32.

    Raises:
        FixedPointError: A value is not finite, or too large for K silos. Nothing ever wraps.
    """
    if values.dtype != np.float32:
        raise LocalProtocolError(f"{name} is {values.dtype}; a sum takes float32")
    # Exact up to the division: 24 bits of value times at most 29 bits of tokens fit float64's 53.
    scaled = np.ldexp(values.reshape(-1).astype(np.float64), fraction_bits)
    scaled *= num_tokens
    scaled /= total_tokens
    np.rint(scaled, out=scaled)
    limit = largest_word(num_silos)
    wrong = ~(np.abs(scaled) <= limit)  # so that NaN is wrong, too
    if wrong.any():
        seen = float(values.reshape(-1)[int(np.argmax(wrong))])
        weight = num_tokens / total_tokens
        raise FixedPointError(
            f"the tensor {name} changed by {seen:g} since the last average; times this silo's weight "
            f"{weight:.3g} it must lie below {np.ldexp(float(limit), -fraction_bits):g} to be summed over "
            f"{num_silos} silos with {fraction_bits} fraction bits; lower averaging.fraction_bits, average "
            "more often, or lower the learning rate"
        )
    return scaled.astype(np.int64).astype(np.uint32)


def decode(words: Words32, *, fraction_bits: int) -> NDArray[np.float64]:
    """Return the numbers that summed words stand for."""
    return np.ldexp(words.view(np.int32).astype(np.float64), -fraction_bits)
