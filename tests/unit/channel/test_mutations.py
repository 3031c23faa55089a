"""Whatever happens to the bytes on the way: refused with a declared error, never accepted."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from splitlearn.channel.messages import Answer, Hello, Proof
from splitlearn.errors import ChannelError, IdentityError, WireError
from splitlearn.wire import ENVELOPE_BYTES, Envelope, Frame, FrameDecoder, FrameError, Limits
from tests.unit.channel.conftest import Federation, Side, meet

DECLARED = (IdentityError, ChannelError, WireError)
LIMITS = Limits(max_frame_bytes=1 << 16, max_message_bytes=1 << 16)

# The fixtures are frozen or copied with `but`: no example sees what another one did.
reused_fixtures = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Mutation:
    """Replaces some bytes somewhere by others, of the same or another length.

    Attributes:
        position: Where, as a fraction of the length.
        removed: How many bytes go.
        inserted: What comes in their place.
        reframed: Whether the envelope is made to fit the new length, so that the change passes the framing.
    """

    position: float
    removed: int
    inserted: bytes
    reframed: bool

    def __call__(self, data: bytes) -> bytes:
        start = int(self.position * len(data))
        changed = data[:start] + self.inserted + data[start + self.removed :]
        assume(changed != data)
        return _reframed(changed) if self.reframed and len(changed) >= ENVELOPE_BYTES else changed


def _reframed(data: bytes) -> bytes:
    try:
        envelope = Envelope.unpack(data[:ENVELOPE_BYTES])
    except WireError:
        return data
    return replace(envelope, body_bytes=len(data) - ENVELOPE_BYTES).pack() + data[ENVELOPE_BYTES:]


flips = st.builds(
    Mutation,
    position=st.floats(0, 1, exclude_max=True),
    removed=st.just(1),
    inserted=st.binary(min_size=1, max_size=1),
    reframed=st.sampled_from([False]),
)
edits = st.builds(
    Mutation,
    position=st.floats(0, 1),
    removed=st.integers(0, 40),
    inserted=st.binary(max_size=40),
    reframed=st.booleans(),
)
mutations = flips | edits


def decoded(data: bytes) -> Frame:
    """Return the one frame of a connection's bytes, as a driver would feed it."""
    decoder = FrameDecoder(LIMITS)
    frames = decoder.feed(data)
    decoder.finish()
    if not frames:
        raise FrameError("the connection ended before a whole frame")
    (frame,) = frames
    return frame


def handshake(silo_side: Side, trunk_side: Side, *, target: int, mutation: Mutation) -> None:
    """Run a handshake over a wire that changes the message number ``target``."""

    def wire(number: int, data: bytes) -> Frame:
        return decoded(mutation(data) if number == target else data)

    silo, trunk = silo_side.but().silo(), trunk_side.but().trunk()
    reply = trunk.receive_hello(wire(0, silo.hello()))
    confirm = silo.receive_reply(wire(1, reply))
    trunk.receive_confirm(wire(2, confirm))


class TestHandshake:
    @reused_fixtures
    @given(target=st.integers(0, 2), mutation=mutations)
    def test_never_completes_on_changed_bytes(
        self, silo_side: Side, trunk_side: Side, target: int, mutation: Mutation
    ) -> None:
        with pytest.raises(DECLARED):
            handshake(silo_side, trunk_side, target=target, mutation=mutation)

    def test_completes_on_unchanged_bytes(self, silo_side: Side, trunk_side: Side) -> None:
        """The property above can fail: without a mutation the same wire works."""
        nothing = Mutation(position=0, removed=0, inserted=b"", reframed=False)
        handshake(silo_side, trunk_side, target=3, mutation=nothing)


class TestSealedFrame:
    @reused_fixtures
    @given(plaintext=st.binary(max_size=200), mutation=mutations)
    def test_never_opens_changed_bytes(
        self, silo_side: Side, trunk_side: Side, plaintext: bytes, mutation: Mutation
    ) -> None:
        met = meet(silo_side.but(), trunk_side.but())
        frame = met.silo.session.seal(plaintext, round_number=1, step=2, message_seq=3)
        with pytest.raises(DECLARED):
            met.trunk.session.open(decoded(mutation(bytes(frame))))

    @reused_fixtures
    @given(chosen=st.lists(st.integers(0, 4), min_size=1, max_size=8))
    def test_opens_only_the_order_of_sealing(
        self, silo_side: Side, trunk_side: Side, chosen: list[int]
    ) -> None:
        """Any drop, swap or repetition of whole frames: everything opened is a prefix of what was sealed."""
        met = meet(silo_side.but(), trunk_side.but())
        frames = [
            bytes(met.silo.session.seal(bytes([number]), round_number=1, step=1, message_seq=1))
            for number in range(5)
        ]
        opened = []
        for number in chosen:
            try:
                opened.append(met.trunk.session.open(decoded(frames[number]))[0])
            except ChannelError:
                break
        in_order = 0
        while in_order < len(chosen) and chosen[in_order] == in_order:
            in_order += 1
        assert opened == list(range(in_order))


class TestParsers:
    """Below the seal: what a dishonest peer with good keys may put there."""

    @pytest.mark.parametrize("parse", [Hello.from_bytes, Answer.split, Proof.from_bytes])
    @settings(max_examples=200, deadline=None)
    @given(data=st.binary(max_size=2048))
    def test_random_bytes(self, parse: Callable[[bytes], object], data: bytes) -> None:
        try:
            parse(data)
        except DECLARED:
            pass
        else:
            assert parse == Answer.split
            assert len(data) >= 1152

    @reused_fixtures
    @given(position=st.integers(0, 400), new=st.integers(0, 255), cut=st.integers(0, 300))
    def test_changed_proof(self, federation: Federation, position: int, new: int, cut: int) -> None:
        """A proof has one encoding: what still parses encodes to the same bytes again."""
        certificate = federation.silo.certificate.to_bytes()
        proof = bytes([len(certificate)]) + certificate + bytes(64) + bytes(32) + bytes(8)
        changed = bytearray(proof[: max(len(proof) - cut, 0)] if cut % 2 else proof)
        if position < len(changed):
            changed[position] = new
        try:
            parsed = Proof.from_bytes(bytes(changed))
        except DECLARED:
            return
        assert parsed.to_bytes() == changed
