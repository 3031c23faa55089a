import contextlib

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from splitlearn.errors import LocalProtocolError, WireError
from splitlearn.wire import (
    ENVELOPE_BYTES,
    TAG_BYTES,
    Direction,
    Envelope,
    Frame,
    FrameDecoder,
    FrameError,
    Kind,
    LimitError,
    Limits,
)

# No deadline: the tests may share their machine, and none of them measures time.
examples = settings(deadline=None, max_examples=100)
LIMITS = Limits(max_frame_bytes=ENVELOPE_BYTES + TAG_BYTES + 200, max_message_bytes=1000)


def frame_bytes(body: bytes, *, counter: int = 0, message_bytes: int = 0) -> bytes:
    envelope = Envelope(
        kind=Kind.SEALED,
        direction=Direction.SILO_TO_TRUNK,
        body_bytes=len(body),
        epoch=1,
        job_tag=bytes(16),
        counter=counter,
        message_bytes=message_bytes,
    )
    return envelope.pack() + body


def contents(frames: list[Frame]) -> list[tuple[Envelope, bytes, bytes]]:
    return [(frame.envelope, frame.header, bytes(frame.body)) for frame in frames]


class TestFeed:
    @examples
    @given(bodies=st.lists(st.binary(max_size=200), max_size=5), data=st.data())
    def test_gives_the_same_frames_for_any_chunking(self, bodies: list[bytes], data: st.DataObject) -> None:
        stream = b"".join(frame_bytes(body, counter=index) for index, body in enumerate(bodies))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
        decoder, frames = FrameDecoder(LIMITS), []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            frames += decoder.feed(stream[start:end])
        decoder.finish()
        assert [body for _, _, body in contents(frames)] == bodies
        assert [frame.envelope.counter for frame in frames] == list(range(len(bodies)))
        assert all(frame.header == frame.envelope.pack() for frame in frames)

    def test_gives_the_same_frames_byte_by_byte(self) -> None:
        stream = frame_bytes(b"one") + frame_bytes(b"") + frame_bytes(b"three")
        whole, bytewise = FrameDecoder(LIMITS), FrameDecoder(LIMITS)
        single = [frame for byte in stream for frame in bytewise.feed(bytes([byte]))]
        assert contents(single) == contents(whole.feed(stream))

    def test_does_not_copy_a_whole_frame(self) -> None:
        chunk = bytearray(frame_bytes(b"abc") + frame_bytes(b"def"))
        _, second = FrameDecoder(LIMITS).feed(chunk)
        chunk[-1] ^= 0xFF
        assert bytes(second.body) == bytes(chunk[-3:])

    def test_keeps_a_gathered_frame_apart_from_the_next(self) -> None:
        decoder, stream = FrameDecoder(LIMITS), frame_bytes(b"first") + frame_bytes(b"other")
        (first,) = decoder.feed(stream[:-1])
        (second,) = decoder.feed(stream[-1:])
        assert (bytes(first.body), bytes(second.body)) == (b"first", b"other")

    @examples
    @given(st.binary(max_size=300), st.booleans())
    def test_refuses_random_bytes_with_a_wire_error_only(self, noise: bytes, begins_well: bool) -> None:  # noqa: FBT001
        stream = frame_bytes(b"ok")[: 32 if begins_well else 0] + noise
        decoder = FrameDecoder(LIMITS)
        with contextlib.suppress(WireError):
            decoder.feed(stream)
            decoder.finish()

    def test_is_of_no_use_after_a_refusal(self) -> None:
        decoder = FrameDecoder(LIMITS)
        with pytest.raises(FrameError):
            decoder.feed(b"HTTP/1.1 400 Bad Request".ljust(64))
        with pytest.raises(LocalProtocolError, match="refused before"):
            decoder.feed(frame_bytes(b"ok"))


class TestLimits:
    def test_accepts_the_largest_frame(self) -> None:
        (frame,) = FrameDecoder(LIMITS).feed(frame_bytes(bytes(200 + TAG_BYTES), message_bytes=1000))
        assert len(frame.body) == 216

    def test_refuses_a_larger_frame_at_its_envelope(self) -> None:
        with pytest.raises(LimitError, match="frame in bytes is 281, the limit is 280"):
            FrameDecoder(LIMITS).feed(frame_bytes(bytes(217))[:ENVELOPE_BYTES])

    def test_refuses_a_larger_message_at_its_envelope(self) -> None:
        with pytest.raises(LimitError, match="message in bytes is 1001, the limit is 1000"):
            FrameDecoder(LIMITS).feed(frame_bytes(b"", message_bytes=1001))

    def test_fragment_is_a_frame_without_envelope_and_tag(self) -> None:
        assert LIMITS.max_fragment_bytes == 200
        assert Limits().max_fragment_bytes == 4 * 1024 * 1024

    @pytest.mark.parametrize(
        "wrong", [{"max_list_items": 0}, {"max_message_bytes": 1 << 32}, {"max_frame_bytes": 80}]
    )
    def test_cannot_be_senseless(self, wrong: dict[str, int]) -> None:
        with pytest.raises(LocalProtocolError, match=next(iter(wrong))):
            Limits(**wrong)


class TestFinish:
    @pytest.mark.parametrize("length", [1, 63, 64, 66])
    def test_refuses_a_truncated_tail(self, length: int) -> None:
        decoder = FrameDecoder(LIMITS)
        decoder.feed(frame_bytes(b"abc")[:length])
        with pytest.raises(FrameError, match=f"ends {length} bytes into"):
            decoder.finish()

    def test_accepts_an_empty_stream(self) -> None:
        FrameDecoder(LIMITS).finish()
