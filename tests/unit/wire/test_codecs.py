import contextlib
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from splitlearn.errors import LocalProtocolError, WireError
from splitlearn.wire import Codec, CodecError, LimitError, Limits, encoded_bytes, quantise
from splitlearn.wire.codecs import BlockHeader, decode, encode_into

Array = np.ndarray[Any, Any]
LIMITS = Limits()
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9)
# No deadline: the tests may share their machine, and none of them measures time.
examples = settings(deadline=None, max_examples=60)
FP32_MAX = float(np.finfo(np.float32).max)


def encoded(array: Array, codec: Codec) -> bytearray:
    buffer = bytearray(b"\xaa" * encoded_bytes(array.shape, codec))
    encode_into(array, codec, buffer, limits=LIMITS)
    return buffer


def through(array: Array, codec: Codec) -> Array:
    return decode(encoded(array, codec), limits=LIMITS)


@st.composite
def random_bits(draw: st.DrawFn) -> Array:
    """Any fp32 bit pattern: infinities, NaNs and subnormals included."""
    bits: Array = draw(hnp.arrays(np.uint32, SHAPES, elements=st.integers(0, 2**32 - 1)))
    values: Array = bits.view(np.float32)
    return values


@st.composite
def finite_values(draw: st.DrawFn) -> Array:
    """Finite values whose rows may differ in size by anything that fp32 holds below int8's end."""
    array = draw(hnp.arrays(np.float32, SHAPES, elements=st.floats(-1.0, 1.0, width=32)))
    exponents = draw(hnp.arrays(np.int32, (*array.shape[:-1], 1), elements=st.integers(-140, 126)))
    values: Array = np.ldexp(array, exponents).astype(np.float32)
    return values


def same_values(left: Array, right: Array) -> bool:
    return np.array_equal(left, right, equal_nan=True)


class TestEveryCodec:
    @pytest.mark.parametrize("codec", Codec)
    @examples
    @given(array=random_bits())
    def test_keeps_shape_and_says_its_size(self, codec: Codec, array: Array) -> None:
        decoded = through(array, codec)
        assert decoded.shape == array.shape
        assert decoded.dtype == np.float32
        assert decoded.flags.writeable

    @pytest.mark.parametrize("codec", Codec)
    @examples
    @given(array=random_bits())
    def test_encodes_the_decoded_values_to_the_same_bytes(self, codec: Codec, array: Array) -> None:
        first = encoded(array, codec)
        assert encoded(decode(bytes(first), limits=LIMITS), codec) == first

    @pytest.mark.parametrize("codec", Codec)
    @examples
    @given(array=finite_values())
    def test_encodes_the_decoded_finite_values_to_the_same_bytes(self, codec: Codec, array: Array) -> None:
        first = encoded(array, codec)
        assert encoded(decode(bytes(first), limits=LIMITS), codec) == first

    @pytest.mark.parametrize("codec", Codec)
    @examples
    @given(array=random_bits())
    def test_delivers_what_is_not_finite_as_not_finite(self, codec: Codec, array: Array) -> None:
        lost = ~np.isfinite(array)
        assert not np.isfinite(through(array, codec)[lost]).any()

    @pytest.mark.parametrize("codec", Codec)
    @pytest.mark.parametrize("shape", [(0,), (0, 8), (3, 0), (2, 0, 4), (0, 0, 0, 0)])
    def test_carries_an_empty_tensor(self, codec: Codec, shape: tuple[int, ...]) -> None:
        assert through(np.zeros(shape, np.float32), codec).shape == shape

    @pytest.mark.parametrize("codec", Codec)
    def test_carries_zeros_exactly(self, codec: Codec) -> None:
        array = np.zeros((3, 4), np.float32)
        assert np.array_equal(through(array, codec), array)

    @pytest.mark.parametrize("codec", Codec)
    def test_carries_more_than_one_block(self, codec: Codec) -> None:
        rows = np.random.default_rng(1).standard_normal((40, 5000)).astype(np.float32)
        # int8's step is at most 2 x max / 127 and its error half of that; the other codecs are finer.
        assert np.abs(through(rows, codec) - rows).max() <= np.abs(rows).max() / 127

    @pytest.mark.parametrize("codec", Codec)
    def test_carries_an_array_that_is_not_contiguous(self, codec: Codec) -> None:
        array = np.arange(24, dtype=np.float32).reshape(4, 6)
        assert np.array_equal(through(array.T, codec), through(array.T.copy(), codec))

    @pytest.mark.parametrize("codec", Codec)
    @examples
    @given(noise=st.binary(max_size=200), data=st.data())
    def test_refuses_mutated_bytes_with_a_wire_error_only(
        self, codec: Codec, noise: bytes, data: st.DataObject
    ) -> None:
        mutated = encoded(np.ones((3, 5), np.float32), codec)
        start = data.draw(st.integers(0, len(mutated)))
        mutated[start : start + data.draw(st.integers(0, 8))] = noise
        with contextlib.suppress(WireError):
            decode(mutated, limits=LIMITS)


class TestFp32:
    @examples
    @given(random_bits())
    def test_is_exact_to_the_bit(self, array: Array) -> None:
        assert np.array_equal(through(array, Codec.FP32).view(np.uint32), array.view(np.uint32))

    def test_lends_the_buffers_memory(self) -> None:
        buffer = encoded(np.ones((2, 3), np.float32), Codec.FP32)
        decode(buffer, limits=LIMITS)[1, 2] = 7
        assert decode(buffer, limits=LIMITS)[1, 2] == 7

    def test_copies_from_a_read_only_buffer(self) -> None:
        decoded = decode(bytes(encoded(np.ones(3, np.float32), Codec.FP32)), limits=LIMITS)
        decoded += 1
        assert decoded.tolist() == [2, 2, 2]

    def test_copies_from_an_unaligned_buffer(self) -> None:
        block = encoded(np.ones(3, np.float32), Codec.FP32)
        shifted = memoryview(bytearray(1) + block)[1:]
        assert decode(shifted, limits=LIMITS).flags.aligned


class TestBf16:
    @examples
    @given(random_bits())
    def test_is_torchs_rounding(self, array: Array) -> None:
        theirs = torch.from_numpy(array.copy()).to(torch.bfloat16).to(torch.float32).numpy()
        assert same_values(through(array, Codec.BF16), theirs)

    def test_is_torchs_rounding_for_every_upper_half_and_tie(self) -> None:
        upper = np.arange(1 << 16, dtype=np.uint32) << 16
        bits = (upper[:, None] + np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).reshape(-1)
        array = bits.view(np.float32)
        theirs = torch.from_numpy(array.copy()).to(torch.bfloat16).to(torch.float32).numpy()
        assert same_values(through(array, Codec.BF16), theirs)

    def test_hides_what_a_nan_carries(self) -> None:
        payloads = np.array([0x7F800001, 0x7FFFFFFF, 0xFFC12345], np.uint32).view(np.float32)
        assert set(np.frombuffer(encoded(payloads, Codec.BF16)[64:], np.uint16).tolist()) == {0x7FC0}


class TestFp16:
    @examples
    @given(finite_values())
    def test_error_is_within_the_stated_bound(self, array: Array) -> None:
        buffer = encoded(array, Codec.FP16)
        exponent = BlockHeader.unpack(buffer, limits=LIMITS).exponent
        error = np.abs(decode(buffer, limits=LIMITS).astype(np.float64) - array)
        # Half a unit of 11 bits; below fp16's normal range one step of 2^-24 covers both roundings.
        assert (
            error <= np.maximum(np.abs(array.astype(np.float64)) * 2.0**-11, 2.0 ** (exponent - 24))
        ).all()

    @pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e6, 3e38])
    def test_keeps_gradients_of_any_size_out_of_the_subnormals(self, size: float) -> None:
        array = (np.random.default_rng(2).uniform(0.001, 1, 1000) * size).astype(np.float32)
        # Unscaled, gradients around 1e-12 all become 0 in half precision.
        assert (np.abs(through(array, Codec.FP16) / array - 1) <= 2.0**-11).all()

    def test_agrees_with_half_precision_within_its_range(self) -> None:
        halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
        assert np.array_equal(through(np.concatenate([halves, -halves]), Codec.FP16)[: len(halves)], halves)

    def test_does_not_overflow_where_rounding_reaches_the_next_binade(self) -> None:
        array = np.array([np.nextafter(np.float32(2), np.float32(0)), 1.0], np.float32)
        assert through(array, Codec.FP16).tolist() == [2.0, 1.0]

    def test_makes_all_nan_of_a_tensor_with_any_that_is_not_finite(self) -> None:
        assert np.isnan(through(np.array([1.0, np.inf, 2.0], np.float32), Codec.FP16)).all()

    def test_makes_all_nan_of_what_rounds_beyond_fp32(self) -> None:
        assert np.isnan(through(np.array([1.0, FP32_MAX], np.float32), Codec.FP16)).all()

    def test_widens_the_smallest_number_of_the_smallest_scale_exactly(self) -> None:
        header = BlockHeader(codec=Codec.FP16, shape=(1,), exponent=quantise.FP16_MIN_EXPONENT)
        assert decode(header.pack() + b"\1\0", limits=LIMITS)[0] == 2.0**-149

    @pytest.mark.parametrize("exponent", [quantise.FP16_MIN_EXPONENT - 1, quantise.FP16_MAX_EXPONENT + 1])
    def test_refuses_an_exponent_out_of_range(self, exponent: int) -> None:
        block = encoded(np.ones(3, np.float32), Codec.FP16)
        block[2:4] = exponent.to_bytes(2, "big", signed=True)
        with pytest.raises(CodecError, match=f"exponent {exponent} is outside"):
            decode(block, limits=LIMITS)


class TestInt8:
    @examples
    @given(finite_values())
    def test_error_is_within_the_stated_bound(self, array: Array) -> None:
        decoded = through(array, Codec.INT8)
        if not array.size:
            return
        largest = np.abs(array).max(axis=-1, keepdims=True).astype(np.float64)
        step = 2.0 ** np.maximum(np.ceil(np.log2(np.maximum(largest, 1e-60) / 127)), -126)
        assert (np.abs(decoded.astype(np.float64) - array) <= step / 2).all()

    def test_scales_each_token_by_itself(self) -> None:
        array = np.array([[1000.0, 1.0], [0.001, 0.0005]], np.float32)
        relative = np.abs(through(array, Codec.INT8)[1] / array[1] - 1)
        # Half a step of 2^-16 against 0.0005; with one scale for both rows the second would be zero.
        assert (relative <= 2.0**-17 / 0.0005).all()

    def test_uses_the_whole_range_at_a_power_of_two_times_127(self) -> None:
        block = encoded(np.array([[127.0, -127.0, 63.5]], np.float32), Codec.INT8)
        assert np.frombuffer(block[128:], np.int8).tolist() == [127, -127, 64]

    def test_carries_a_zero_row_beside_another(self) -> None:
        array = np.array([[0.0, 0.0], [64.0, -1.0]], np.float32)
        assert np.array_equal(through(array, Codec.INT8), array)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, FP32_MAX, -FP32_MAX])
    def test_makes_nan_of_the_row_alone(self, bad: float) -> None:
        decoded = through(np.array([[1.0, 2.0], [bad, 1.0], [0.0, 4.0]], np.float32), Codec.INT8)
        assert np.isnan(decoded).tolist() == [[False, False], [True, True], [False, False]]

    def test_carries_the_largest_magnitude_that_it_states(self) -> None:
        array = np.ldexp(np.array([[127.0, -127.0]], np.float32), 121)
        assert np.array_equal(through(array, Codec.INT8), array)

    @pytest.mark.parametrize("exponent", [-127, 122, 127])
    def test_refuses_an_exponent_that_no_encoder_writes(self, exponent: int) -> None:
        block = encoded(np.ones((2, 3), np.float32), Codec.INT8)
        block[65] = exponent & 0xFF
        with pytest.raises(CodecError, match=f"int8 exponent {exponent}"):
            decode(block, limits=LIMITS)

    def test_refuses_padding_that_is_not_zero(self) -> None:
        block = encoded(np.ones((2, 3), np.float32), Codec.INT8)
        block[66] = 1
        with pytest.raises(CodecError, match="padding"):
            decode(block, limits=LIMITS)


class TestEncodeInto:
    def test_refuses_another_dtype(self) -> None:
        with pytest.raises(LocalProtocolError, match="float64"):
            encode_into(np.ones(3), Codec.FP32, bytearray(76), limits=LIMITS)  # type: ignore[arg-type]

    def test_refuses_a_buffer_of_another_size(self) -> None:
        with pytest.raises(LocalProtocolError, match=r"75 bytes, fp32 \[3\] needs 76"):
            encode_into(np.ones(3, np.float32), Codec.FP32, bytearray(75), limits=LIMITS)

    def test_refuses_what_the_peer_would_refuse(self) -> None:
        with pytest.raises(LimitError, match=r"elements of \[3\] is 3, the limit is 2"):
            encode_into(
                np.ones(3, np.float32), Codec.FP32, bytearray(76), limits=Limits(max_tensor_elements=2)
            )


class TestHeader:
    def header(self, *shape: int, codec: Codec = Codec.BF16) -> bytearray:
        return bytearray(BlockHeader(codec=codec, shape=shape).pack())

    def test_is_laid_out_as_documented(self) -> None:
        packed = BlockHeader(codec=Codec.FP16, shape=(3, 0x01020304), exponent=-2).pack()
        assert packed == bytes.fromhex("0302fffe 00000003 01020304").ljust(64, b"\0")

    def test_refuses_too_many_axes(self) -> None:
        with pytest.raises(LimitError, match=r"axes is 5, the limit is 4; .* max_tensor_dims"):
            BlockHeader.unpack(self.header(1, 1, 1, 1, 1), limits=LIMITS)

    def test_refuses_more_axes_than_it_holds_whatever_the_limit(self) -> None:
        block = self.header(1)
        block[1] = 16
        with pytest.raises(CodecError, match="1 to 15 axes, not 16"):
            BlockHeader.unpack(block, limits=Limits(max_tensor_dims=255))

    def test_refuses_too_many_elements_before_anything_is_allocated(self) -> None:
        with pytest.raises(LimitError, match="max_tensor_elements"):
            decode(self.header(2**32 - 1, 2**32 - 1), limits=LIMITS)

    def test_refuses_huge_axes_beside_an_empty_one(self) -> None:
        with pytest.raises(LimitError, match="max_tensor_elements"):
            decode(self.header(0, 2**32 - 1, 2**32 - 1, 2**32 - 1), limits=LIMITS)

    def test_refuses_fewer_bytes_than_it_says_before_anything_is_allocated(self) -> None:
        with pytest.raises(CodecError, match="has 536870976 bytes, not 64"):
            decode(self.header(1 << 28), limits=LIMITS)

    @pytest.mark.parametrize(
        ("position", "value", "reason"),
        [
            (0, 0, "codec 0 is unknown"),
            (0, 5, "codec 5"),
            (1, 0, "not 0"),
            (3, 1, "exponent 1"),
            (63, 1, "zeros"),
        ],
    )
    def test_refuses_a_byte_out_of_range(self, position: int, value: int, reason: str) -> None:
        block = self.header(0)
        block[position] = value
        with pytest.raises(CodecError, match=reason):
            BlockHeader.unpack(block, limits=LIMITS)

    def test_refuses_a_truncated_header(self) -> None:
        with pytest.raises(CodecError, match="63 are left"):
            BlockHeader.unpack(self.header(0)[:63], limits=LIMITS)
