"""Sealed frames: opened once, in order, unchanged, the right way; or the session is closed."""

from dataclasses import replace

import pytest

from splitlearn.channel import (
    ClosedSessionError,
    OversizedFragmentError,
    ReorderedFrameError,
    RepeatedFrameError,
    SealedSession,
    StaleEpochError,
    SupersededError,
    TamperedFrameError,
    TruncatedFrameError,
    UnexpectedKindError,
    WrongDirectionError,
    WrongJobError,
    WrongReplicaError,
)
from splitlearn.channel.traffic import TrafficKey
from splitlearn.errors import ChannelError, LocalProtocolError
from splitlearn.wire import ENVELOPE_BYTES, TAG_BYTES, Envelope, Frame, Kind, job_tag
from tests.unit.channel.conftest import TERMS, Met, Side, as_frame, meet

PLAINTEXT = b"activations of one step"


@pytest.fixture
def silo(met: Met) -> SealedSession:
    return met.silo.session


@pytest.fixture
def trunk(met: Met) -> SealedSession:
    return met.trunk.session


def sealed(session: SealedSession, plaintext: bytes = PLAINTEXT) -> bytearray:
    return session.seal(plaintext, round_number=1, step=2, message_seq=3)


def with_envelope(frame: bytearray, **changes: object) -> bytes:
    envelope = replace(Envelope.unpack(frame[:ENVELOPE_BYTES]), **changes)  # type: ignore[arg-type]
    return envelope.pack() + bytes(frame[ENVELOPE_BYTES:])


def refused(session: SealedSession, frame: Frame, error: type[ChannelError]) -> None:
    """The frame is refused with this very error, and the session closed for good."""
    with pytest.raises(ChannelError) as caught:
        session.open(frame)
    assert type(caught.value) is error
    assert session.closed
    with pytest.raises(ClosedSessionError):
        session.open(frame)
    with pytest.raises(ClosedSessionError):
        sealed(session)


class TestSeal:
    def test_envelope_says_where_the_frame_belongs(self, silo: SealedSession) -> None:
        sealed(silo)
        frame = silo.seal(b"cde", round_number=4, step=5, message_seq=6, fragment_offset=2, message_bytes=9)
        assert Envelope.unpack(frame[:ENVELOPE_BYTES]) == Envelope(
            kind=Kind.SEALED,
            direction=silo.sending,
            replica=TERMS.replica,
            body_bytes=3 + TAG_BYTES,
            epoch=TERMS.epoch,
            job_tag=job_tag(TERMS.job_id),
            round=4,
            step=5,
            counter=1,
            message_seq=6,
            fragment_offset=2,
            message_bytes=9,
        )

    def test_plaintext_does_not_show(self, silo: SealedSession) -> None:
        assert PLAINTEXT[:8] not in bytes(sealed(silo, PLAINTEXT * 100))

    def test_equal_plaintexts_seal_differently(self, silo: SealedSession, trunk: SealedSession) -> None:
        bodies = [bytes(sealed(session)[ENVELOPE_BYTES:]) for session in (silo, silo, trunk)]
        assert len(set(bodies)) == 3

    def test_into_a_buffer_of_the_caller(self, silo: SealedSession, trunk: SealedSession) -> None:
        buffer = bytearray(200)
        for plaintext in (b"one", b"two two"):
            length = silo.seal_into(plaintext, buffer, round_number=1, step=1, message_seq=1)
            assert bytes(trunk.open(as_frame(bytes(buffer[:length])))) == plaintext

    def test_refuses_a_fragment_beyond_its_message(self, silo: SealedSession, trunk: SealedSession) -> None:
        with pytest.raises(LocalProtocolError, match="exceeds"):
            silo.seal(b"abc", round_number=1, step=1, message_seq=1, fragment_offset=8, message_bytes=10)
        assert trunk.open(as_frame(sealed(silo))) == PLAINTEXT, "our mistake costs no counter"

    @pytest.mark.parametrize("buffer", [bytearray(70), bytes(200)], ids=["short", "read-only"])
    def test_refuses_a_useless_buffer(self, silo: SealedSession, buffer: bytes) -> None:
        with pytest.raises(LocalProtocolError, match="writable"):
            silo.seal_into(PLAINTEXT, buffer, round_number=1, step=1, message_seq=1)

    def test_refuses_numbers_that_do_not_fit(self, silo: SealedSession) -> None:
        with pytest.raises(LocalProtocolError):
            silo.seal(b"", round_number=1 << 32, step=1, message_seq=1)


class TestOpen:
    @pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 4096])
    def test_returns_what_was_sealed(self, silo: SealedSession, trunk: SealedSession, length: int) -> None:
        plaintext = bytes(range(256)) * 16
        assert trunk.open(as_frame(sealed(silo, plaintext[:length]))) == plaintext[:length]

    def test_fragments_land_in_one_message_buffer(self, silo: SealedSession, trunk: SealedSession) -> None:
        message = bytes(range(251)) * 7
        out = bytearray(len(message))
        for offset in range(0, len(message), 300):
            frame = as_frame(
                silo.seal(
                    memoryview(message)[offset : offset + 300],
                    round_number=1,
                    step=1,
                    message_seq=1,
                    fragment_offset=offset,
                    message_bytes=len(message),
                )
            )
            written = trunk.open_into(frame, memoryview(out)[frame.envelope.fragment_offset :])
            assert written == frame.envelope.body_bytes - TAG_BYTES
        assert out == message

    def test_writes_nothing_behind_the_fragment(self, silo: SealedSession, trunk: SealedSession) -> None:
        out = bytearray(b"x" * 64)
        assert trunk.open_into(as_frame(sealed(silo, b"abc")), out) == 3
        assert out == b"abc" + b"x" * 61

    def test_directions_do_not_disturb_each_other(self, silo: SealedSession, trunk: SealedSession) -> None:
        for turn in range(5):
            assert trunk.open(as_frame(sealed(silo, b"up%d" % turn))) == b"up%d" % turn
            assert silo.open(as_frame(sealed(trunk, b"down%d" % turn))) == b"down%d" % turn

    @pytest.mark.parametrize("buffer", [bytearray(3), bytes(200)], ids=["short", "read-only"])
    def test_a_useless_buffer_is_our_fault(
        self, silo: SealedSession, trunk: SealedSession, buffer: bytes
    ) -> None:
        frame = as_frame(sealed(silo))
        with pytest.raises(LocalProtocolError, match="writable"):
            trunk.open_into(frame, buffer)
        assert trunk.open(frame) == PLAINTEXT


class TestRefusals:
    def test_rejects_repeated_frame(self, silo: SealedSession, trunk: SealedSession) -> None:
        frame = as_frame(sealed(silo))
        trunk.open(frame)
        refused(trunk, frame, RepeatedFrameError)

    def test_rejects_reordered_frame(self, silo: SealedSession, trunk: SealedSession) -> None:
        sealed(silo)
        refused(trunk, as_frame(sealed(silo)), ReorderedFrameError)

    def test_rejects_renumbered_frame(self, silo: SealedSession, trunk: SealedSession) -> None:
        """The relay drops frame 0 and lets frame 1 pass for it."""
        sealed(silo)
        refused(trunk, as_frame(with_envelope(sealed(silo), counter=0)), TamperedFrameError)

    def test_rejects_own_frame_sent_back(self, silo: SealedSession) -> None:
        refused(silo, as_frame(sealed(silo)), WrongDirectionError)

    def test_rejects_own_frame_turned_round(self, silo: SealedSession) -> None:
        turned = with_envelope(sealed(silo), direction=silo.sending.opposite)
        refused(silo, as_frame(turned), TamperedFrameError)

    def test_rejects_frame_with_a_bit_flipped_anywhere(
        self, silo: SealedSession, trunk: SealedSession
    ) -> None:
        frame = sealed(silo)
        for position in range(ENVELOPE_BYTES, len(frame)):
            twin = _twin(trunk)
            changed = bytearray(frame)
            changed[position] ^= 0x80
            refused(twin, as_frame(changed), TamperedFrameError)

    @pytest.mark.parametrize("field", ["round", "step", "message_seq", "message_bytes", "fragment_offset"])
    def test_rejects_changed_envelope(self, silo: SealedSession, trunk: SealedSession, field: str) -> None:
        frame = silo.seal(b"abc", round_number=4, step=5, message_seq=6, fragment_offset=2, message_bytes=9)
        value = getattr(Envelope.unpack(frame[:ENVELOPE_BYTES]), field)
        refused(trunk, as_frame(with_envelope(frame, **{field: value + 1})), TamperedFrameError)

    def test_rejects_truncated_body(self, silo: SealedSession, trunk: SealedSession) -> None:
        whole = as_frame(sealed(silo))
        refused(trunk, replace(whole, body=whole.body[:-1]), TruncatedFrameError)

    def test_rejects_truncated_frame_that_admits_it(self, silo: SealedSession, trunk: SealedSession) -> None:
        frame = sealed(silo)
        shorter = with_envelope(frame, body_bytes=len(frame) - ENVELOPE_BYTES - 1)[:-1]
        refused(trunk, as_frame(shorter), TamperedFrameError)

    @pytest.mark.parametrize("body_bytes", [0, TAG_BYTES - 1])
    def test_rejects_body_without_room_for_a_tag(
        self, silo: SealedSession, trunk: SealedSession, body_bytes: int
    ) -> None:
        frame = with_envelope(sealed(silo), body_bytes=body_bytes)[: ENVELOPE_BYTES + body_bytes]
        refused(trunk, as_frame(frame), TruncatedFrameError)

    def test_rejects_fragment_beyond_its_message(self, silo: SealedSession, trunk: SealedSession) -> None:
        frame = with_envelope(sealed(silo), message_bytes=3)
        refused(trunk, as_frame(frame), OversizedFragmentError)

    def test_rejects_handshake_message(self, trunk: SealedSession, met: Met) -> None:
        refused(trunk, as_frame(met.recorded[2]), UnexpectedKindError)

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"job_tag": bytes(16)}, WrongJobError),
            ({"replica": 1}, WrongReplicaError),
            ({"epoch": TERMS.epoch - 1}, StaleEpochError),
            ({"epoch": TERMS.epoch + 1}, SupersededError),
        ],
    )
    def test_rejects_frame_of_another_job(
        self, silo: SealedSession, trunk: SealedSession, changes: dict[str, object], error: type[ChannelError]
    ) -> None:
        refused(trunk, as_frame(with_envelope(sealed(silo), **changes)), error)

    def test_rejects_frame_of_an_earlier_session(
        self, silo: SealedSession, silo_side: Side, trunk_side: Side
    ) -> None:
        later = meet(silo_side, trunk_side).trunk.session
        refused(later, as_frame(sealed(silo)), TamperedFrameError)

    def test_leaves_nothing_unverified_in_the_buffer(self, silo: SealedSession, trunk: SealedSession) -> None:
        frame = sealed(silo, b"p" * 1000)
        frame[-1] ^= 1
        out = bytearray(b"x" * 1000)
        with pytest.raises(TamperedFrameError):
            trunk.open_into(as_frame(frame), out)
        assert out == bytes(1000)


class TestClose:
    def test_drops_the_keys(self, trunk: SealedSession) -> None:
        assert not trunk.closed
        trunk.close()
        trunk.close()
        assert trunk.closed
        for key in (trunk._seal_key, trunk._open_key):
            assert key._aead is None
            assert key._chain == bytes(32)

    def test_refuses_every_later_call(self, silo: SealedSession, trunk: SealedSession) -> None:
        frame = as_frame(sealed(silo))
        trunk.close()
        with pytest.raises(ClosedSessionError):
            trunk.open(frame)
        with pytest.raises(ClosedSessionError):
            sealed(trunk)

    def test_shows_in_repr(self, trunk: SealedSession) -> None:
        assert "open" in repr(trunk)
        trunk.close()
        assert "closed" in repr(trunk)


def _twin(session: SealedSession) -> SealedSession:
    """A session that is due to open the same frame, for trying a refusal more than once."""
    return SealedSession(
        session.terms,
        sending=session.sending,
        seal_key=TrafficKey(bytes(session._seal_key._chain)),
        open_key=TrafficKey(bytes(session._open_key._chain)),
    )
