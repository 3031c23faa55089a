import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from splitlearn.errors import LocalProtocolError
from splitlearn.wire import ENVELOPE_BYTES, Direction, Envelope, FrameError, Kind, job_tag

# No deadline: the tests may share their machine, and none of them measures time.
examples = settings(deadline=None, max_examples=100)
U16, U32, U64 = ((1 << bits) - 1 for bits in (16, 32, 64))
envelopes = st.builds(
    Envelope,
    kind=st.sampled_from(Kind),
    direction=st.sampled_from(Direction),
    replica=st.integers(0, U16),
    body_bytes=st.integers(0, U32),
    epoch=st.integers(0, U32),
    job_tag=st.binary(min_size=16, max_size=16),
    round=st.integers(0, U32),
    step=st.integers(0, U32),
    counter=st.integers(0, U64),
    message_seq=st.integers(0, U64),
    fragment_offset=st.integers(0, 1000),
    message_bytes=st.integers(1000, U32),
)


class TestPack:
    def test_lays_fields_out_as_documented(self) -> None:
        envelope = Envelope(
            kind=Kind.SEALED,
            direction=Direction.TRUNK_TO_SILO,
            replica=0x0102,
            body_bytes=0x03040506,
            epoch=0x0708090A,
            job_tag=bytes(range(0x10, 0x20)),
            round=0x21222324,
            step=0x25262728,
            counter=0x3132333435363738,
            message_seq=0x4142434445464748,
            fragment_offset=0x51525354,
            message_bytes=0x61626364,
        )
        assert envelope.pack().hex(" ", 8) == (
            "54524b3104010102 030405060708090a 1011121314151617 18191a1b1c1d1e1f "
            "2122232425262728 3132333435363738 4142434445464748 5152535461626364"
        )

    @examples
    @given(envelopes)
    def test_is_undone_by_unpack(self, envelope: Envelope) -> None:
        assert len(envelope.pack()) == ENVELOPE_BYTES
        assert Envelope.unpack(envelope.pack()) == envelope

    @pytest.mark.parametrize("wrong", [{"replica": 1 << 16}, {"counter": -1}, {"epoch": 1 << 32}])
    def test_refuses_a_number_that_does_not_fit(self, wrong: dict[str, int]) -> None:
        facts = {"epoch": 1} | wrong
        envelope = Envelope(
            kind=Kind.HELLO, direction=Direction.SILO_TO_TRUNK, body_bytes=0, job_tag=bytes(16), **facts
        )
        with pytest.raises(LocalProtocolError, match="does not fit"):
            envelope.pack()

    def test_refuses_a_job_tag_that_would_be_padded(self) -> None:
        with pytest.raises(LocalProtocolError, match="15 bytes"):
            Envelope(
                kind=Kind.HELLO, direction=Direction.SILO_TO_TRUNK, body_bytes=0, epoch=1, job_tag=bytes(15)
            )


class TestUnpack:
    GOOD = Envelope(
        kind=Kind.SEALED, direction=Direction.SILO_TO_TRUNK, body_bytes=9, epoch=1, job_tag=bytes(16)
    ).pack()

    @pytest.mark.parametrize(
        ("position", "value", "reason"),
        [(0, 0x55, "begins with"), (4, 0, "0 is not a valid Kind"), (4, 5, "5 is not"), (5, 2, "Direction")],
    )
    def test_refuses_a_byte_out_of_range(self, position: int, value: int, reason: str) -> None:
        wrong = bytearray(self.GOOD)
        wrong[position] = value
        with pytest.raises(FrameError, match=reason):
            Envelope.unpack(wrong)

    @pytest.mark.parametrize("length", [0, 63, 65])
    def test_refuses_another_length(self, length: int) -> None:
        with pytest.raises(FrameError, match=f"not {length}"):
            Envelope.unpack(self.GOOD.ljust(65, b"\0")[:length])

    def test_refuses_a_fragment_behind_its_message(self) -> None:
        wrong = bytearray(self.GOOD)
        wrong[59] = 1
        with pytest.raises(FrameError, match="begins at 1 of a message of 0"):
            Envelope.unpack(wrong)


class TestJobTag:
    def test_is_the_documented_hash(self) -> None:
        # printf 'trunkline/job-tag/v1\0job-1' | sha256sum
        assert job_tag("job-1").hex() == "20783b84b70a81fad028d3d90ba7c76d"

    def test_differs_between_jobs(self) -> None:
        assert job_tag("job-1") != job_tag("job-2")
