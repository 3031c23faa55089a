import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as hnp

from splitlearn.errors import LocalProtocolError, WireError
from splitlearn.wire import (
    CLOSED_LIST,
    Activations,
    Codec,
    CodecError,
    Direction,
    GradActivations,
    GradHidden,
    Hidden,
    LimitError,
    Limits,
    Message,
    MessageError,
    Outcome,
    PaddingSide,
    Phase,
    Ready,
    RoundEnd,
    RoundSaved,
    TurnEnd,
    UnlistedError,
    decode_message,
    encode_message,
    set_ack,
)

# No deadline: the tests may share their machine, and none of them measures time.
examples = settings(deadline=None, max_examples=100)
DIRECTIONS = {listed.cls: listed.direction for listed in CLOSED_LIST}
U32, U64 = (1 << 32) - 1, (1 << 64) - 1
f32 = st.floats(width=32)
outcomes = st.builds(
    Outcome,
    norms_bottom=st.lists(f32, max_size=4).map(tuple),
    norms_trunk=st.lists(f32, max_size=4).map(tuple),
    norms_top=st.lists(f32, max_size=4).map(tuple),
    finite=st.booleans(),
    num_tokens=st.integers(0, U32),
)
rows = hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(0, 5)), elements=f32)


@st.composite
def activations(draw: st.DrawFn) -> Activations:
    hidden = draw(rows)
    first = draw(st.integers(0, len(hidden)))
    return Activations(
        phase=draw(st.sampled_from(Phase)),
        micro_batch=draw(st.integers(0, 4)),
        num_micro_batches=draw(st.integers(5, U32)),
        lengths=(first, len(hidden) - first),
        padding_side=draw(st.sampled_from(PaddingSide)),
        num_label_tokens=draw(st.integers(0, U32)),
        outcome=draw(st.none() | outcomes),
        hidden=hidden,
    )


messages: st.SearchStrategy[Message] = st.one_of(
    activations(),
    st.builds(Ready, last_round=st.integers(0, U32), served=st.frozensets(st.sampled_from(Phase))),
    st.builds(GradHidden, micro_batch=st.integers(0, U32), loss_sum=st.floats(), grad=rows),
    st.builds(
        GradActivations,
        micro_batch=st.integers(0, U32),
        outcome=st.none() | outcomes,
        grad=st.none() | rows,
    ),
    st.builds(TurnEnd, outcome=st.none() | outcomes, loss_sum=st.floats(), num_tokens=st.integers(0, U64)),
)


def decoded(buffer: bytes | bytearray, cls: type[Message], **options: Any) -> Message:
    message, _ = decode_message(buffer, direction=DIRECTIONS[cls], **options)
    return message


def rows_of(*shape: int) -> Any:
    return np.ones(shape, np.float32)


class TestRoundTrip:
    def test_covers_every_type(self, every_message: list[Message]) -> None:
        assert {type(message) for message in every_message} == set(DIRECTIONS)
        for message in every_message:
            assert decoded(encode_message(message, codec=Codec.FP32), type(message)) == message

    @examples
    @given(message=messages, ack=st.integers(0, U64))
    def test_gives_the_message_and_the_ack(self, message: Message, ack: int) -> None:
        buffer = encode_message(message, codec=Codec.FP32, ack=ack)
        assert decode_message(buffer, direction=DIRECTIONS[type(message)]) == (message, ack)

    @examples
    @given(message=messages, codec=st.sampled_from(Codec))
    def test_encodes_what_it_decoded_to_the_same_bytes(self, message: Message, codec: Codec) -> None:
        buffer = encode_message(message, codec=codec)
        assert encode_message(decoded(bytes(buffer), type(message)), codec=codec) == buffer

    def test_lends_the_buffers_memory_to_fp32(self) -> None:
        buffer = encode_message(Hidden(micro_batch=0, hidden=rows_of(2, 3)), codec=Codec.FP32)
        message = decoded(buffer, Hidden)
        assert isinstance(message, Hidden)
        message.hidden[1, 2] = 5
        assert np.frombuffer(buffer, np.float32)[-1] == 5

    @pytest.mark.parametrize("count", range(20))
    def test_begins_payloads_at_multiples_of_64(self, count: int) -> None:
        outcome = Outcome(
            norms_bottom=(1.0,) * count, norms_trunk=(), norms_top=(), finite=True, num_tokens=1
        )
        message = GradActivations(micro_batch=0, outcome=outcome, grad=rows_of(1, 3))
        buffer = encode_message(message, codec=Codec.FP32)
        assert (len(buffer) - 12) % 64 == 0


class TestLayout:
    def test_is_as_documented(self) -> None:
        message = Hidden(micro_batch=0x01020304, hidden=np.array([[1.0, -2.0]], np.float32))
        expected = bytes.fromhex("42 0000000000000007 01020304").ljust(64, b"\0")
        expected += bytes.fromhex("0102 0000 00000001 00000002").ljust(64, b"\0")
        expected += bytes.fromhex("0000803f 000000c0")
        assert encode_message(message, codec=Codec.FP32, ack=7) == expected

    def test_numbers_are_not_used_twice(self) -> None:
        numbers = [listed.number for listed in CLOSED_LIST]
        assert len(set(numbers)) == len(numbers)


class TestSetAck:
    def test_changes_the_ack_alone(self) -> None:
        buffer = encode_message(RoundEnd(round=3), codec=Codec.FP32, ack=1)
        set_ack(buffer, U64)
        assert buffer == encode_message(RoundEnd(round=3), codec=Codec.FP32, ack=U64)

    @pytest.mark.parametrize(("size", "ack"), [(8, 1), (9, -1), (9, 1 << 64)])
    def test_refuses_what_does_not_fit(self, size: int, ack: int) -> None:
        with pytest.raises(LocalProtocolError, match=f"ack {ack}"):
            set_ack(bytearray(size), ack)


class TestEncodeRefuses:
    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            (RoundSaved(round=-1), r"RoundSaved\.round: -1 is no u32"),
            (RoundSaved(round=1 << 32), "is no u32"),
            (RoundSaved(round=True), "exact int, not bool"),
            (RoundSaved(round=np.int64(3)), "exact int, not int64"),  # type: ignore[arg-type]
            (GradHidden(micro_batch=0, loss_sum=1, grad=rows_of(1, 1)), "exact float, not int"),
            (GradHidden(micro_batch=0, loss_sum=1.0, grad=rows_of(1)), "2 axes"),
            (GradHidden(micro_batch=0, loss_sum=1.0, grad=np.ones((1, 1))), "float32 array"),  # type: ignore[arg-type]
            (Hidden(micro_batch=0, hidden=[[1.0]]), "float32 array"),  # type: ignore[arg-type]
            (Ready(last_round=0, served={Phase.TRAIN}), "frozenset of Phase"),  # type: ignore[arg-type]
            (Ready(last_round=0, served=frozenset({1})), "frozenset of Phase"),  # type: ignore[arg-type]
        ],
    )
    def test_a_value_outside_its_field(self, message: Message, reason: str) -> None:
        with pytest.raises(UnlistedError, match=reason):
            encode_message(message, codec=Codec.FP32)

    @pytest.mark.parametrize(
        ("norm", "reason"), [(0.1, "0.1 does not fit"), (1e300, "does not fit"), (1, "tuple of exact float")]
    )
    def test_a_norm_that_the_peer_would_read_differently(self, norm: float, reason: str) -> None:
        # Both sides must clip by the same number, so a norm is rounded to fp32 before it is used.
        outcome = Outcome(norms_bottom=(norm,), norms_trunk=(), norms_top=(), finite=True, num_tokens=1)
        with pytest.raises(UnlistedError, match=reason):
            encode_message(TurnEnd(outcome=outcome, loss_sum=0.0, num_tokens=0), codec=Codec.FP32)

    @pytest.mark.parametrize("lengths", [(-1, 3), (1 << 32,), (1 << 70,), [2], (2.0,)])
    def test_lengths_that_are_no_list_of_u32(self, every_message: list[Message], lengths: Any) -> None:
        with pytest.raises((UnlistedError), match=r"Activations"):
            encode_message(replace(every_message[2], lengths=lengths), codec=Codec.FP32)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [({"lengths": (2, 2)}, "lengths sum to 4, hidden has 5 rows"), ({"micro_batch": 2}, "not among 2")],
    )
    def test_activations_that_do_not_fit_together(
        self, every_message: list[Message], change: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(UnlistedError, match=reason):
            encode_message(replace(every_message[2], **change), codec=Codec.FP32)

    @pytest.mark.parametrize(
        ("limits", "name"),
        [
            (Limits(max_message_bytes=100), "max_message_bytes"),
            (Limits(max_list_items=1), "max_list_items"),
            (Limits(max_tensor_elements=39), "max_tensor_elements"),
            (Limits(max_tensor_dims=1), "max_tensor_dims"),
        ],
    )
    def test_what_exceeds_a_limit(self, every_message: list[Message], limits: Limits, name: str) -> None:
        with pytest.raises(LimitError, match=name):
            encode_message(every_message[2], codec=Codec.FP32, limits=limits)


class TestDecodeRefuses:
    def good(self, every_message: list[Message]) -> bytearray:
        return encode_message(every_message[2], codec=Codec.FP32)

    @pytest.mark.parametrize(
        ("limits", "name"),
        [
            (Limits(max_message_bytes=100), "max_message_bytes"),
            (Limits(max_list_items=1), "max_list_items"),
            (Limits(max_tensor_elements=39), "max_tensor_elements"),
            (Limits(max_tensor_dims=1), "max_tensor_dims"),
        ],
    )
    def test_what_exceeds_a_limit(self, every_message: list[Message], limits: Limits, name: str) -> None:
        with pytest.raises(LimitError, match=name):
            decoded(self.good(every_message), Activations, limits=limits)

    def test_a_long_list_before_it_is_read(self) -> None:
        buffer = bytearray(
            encode_message(TurnEnd(outcome=None, loss_sum=0.0, num_tokens=0), codec=Codec.FP32)
        )
        buffer[9:] = b"\1\xff\xff\xff\xff"
        with pytest.raises(LimitError, match=r"length of TurnEnd\.outcome\.norms_bottom is 4294967295"):
            decoded(buffer, TurnEnd)

    def test_the_other_sides_messages(self, every_message: list[Message]) -> None:
        for message in every_message:
            with pytest.raises(MessageError, match="against its direction"):
                decode_message(
                    encode_message(message, codec=Codec.FP32), direction=DIRECTIONS[type(message)].opposite
                )

    @pytest.mark.parametrize("number", [0, 15, 64, 80, 255])
    def test_an_unlisted_number(self, number: int) -> None:
        with pytest.raises(MessageError, match=f"number {number} is not on the list"):
            decode_message(bytes([number]) + bytes(100), direction=Direction.SILO_TO_TRUNK)

    def test_every_truncation(self, every_message: list[Message]) -> None:
        for message in every_message:
            buffer = bytes(encode_message(message, codec=Codec.INT8))
            for length in range(len(buffer)):
                with pytest.raises((MessageError, CodecError)):
                    decoded(buffer[:length], type(message))

    def test_every_trailing_byte(self, every_message: list[Message]) -> None:
        for message in every_message:
            with pytest.raises(MessageError, match="bytes were sent"):
                decoded(encode_message(message, codec=Codec.BF16) + b"\0", type(message))

    @pytest.mark.parametrize(
        ("position", "value", "reason"),
        [
            (9, 0, r"Activations\.phase is 0"),
            (9, 4, "knows one of train, eval, generate"),
            (30, 3, r"padding_side is 3"),
            (35, 2, r"outcome is 2, a bool is 0 or 1"),
            (13, 2, "micro_batch 2 is not among 2"),
            (29, 4, "lengths sum to 6, hidden has 5 rows"),
            (66, 1, "padding before Activations.hidden"),
            (129, 3, r"Activations\.hidden has \[5, 8, 0\], a tensor \[N, D\] is wanted"),
        ],
    )
    def test_a_byte_out_of_range(
        self, every_message: list[Message], position: int, value: int, reason: str
    ) -> None:
        buffer = self.good(every_message)
        assert buffer[position] != value
        buffer[position] = value
        with pytest.raises(MessageError, match=reason):
            decoded(buffer, Activations)

    def test_a_bit_of_an_unknown_phase(self, every_message: list[Message]) -> None:
        buffer = encode_message(every_message[0], codec=Codec.FP32)
        buffer[-1] = 0b1001
        with pytest.raises(MessageError, match="bits 0x9"):
            decoded(buffer, Ready)

    def test_a_codec_that_was_not_agreed(self, every_message: list[Message]) -> None:
        buffer = encode_message(every_message[2], codec=Codec.INT8)
        assert decoded(buffer, Activations, codec=Codec.INT8)
        with pytest.raises(MessageError, match="written in int8, bf16 was agreed"):
            decoded(buffer, Activations, codec=Codec.BF16)

    @settings(examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_mutated_bytes_with_a_wire_error_only(
        self, every_message: list[Message], data: st.DataObject
    ) -> None:
        message = data.draw(st.sampled_from(every_message))
        buffer = encode_message(message, codec=data.draw(st.sampled_from(Codec)))
        start = data.draw(st.integers(0, len(buffer)))
        buffer[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
        with contextlib.suppress(WireError):
            decoded(buffer, type(message))


class TestRepr:
    def secrets(self) -> Iterator[Message]:
        tensor = np.full((2, 2), 0.123456, np.float32)
        yield Hidden(micro_batch=1, hidden=tensor)
        yield GradHidden(micro_batch=1, loss_sum=2.0, grad=tensor)
        yield GradActivations(micro_batch=1, outcome=None, grad=tensor)

    def test_never_shows_a_tensors_contents(self) -> None:
        for message in self.secrets():
            assert "<float32 [2, 2]>" in repr(message)
            assert "0.123" not in repr(message) + str(message)

    def test_shows_the_rest_in_short(self) -> None:
        outcome = Outcome(norms_bottom=(1.0,), norms_trunk=(), norms_top=(), finite=True, num_tokens=3)
        assert repr(outcome) == (
            "Outcome(norms_bottom=<1 items>, norms_trunk=<0 items>, norms_top=<0 items>, finite=True, "
            "num_tokens=3)"
        )


class TestEquality:
    def test_compares_contents(self) -> None:
        one, other = (Hidden(micro_batch=0, hidden=rows_of(1, 2) * factor) for factor in (1, 2))
        assert one == Hidden(micro_batch=0, hidden=rows_of(1, 2))
        assert one != other
        assert RoundEnd(round=1) != RoundSaved(round=1)
