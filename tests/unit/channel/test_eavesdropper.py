"""A peer silo that recorded everything, and has a good certificate of its own, opens nothing."""

from dataclasses import replace
from itertools import product

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from splitlearn.channel import TamperedFrameError
from splitlearn.channel.handshake import exchange_hash
from splitlearn.channel.messages import Answer, Hello
from splitlearn.channel.schedule import KeySchedule, Use
from splitlearn.errors import ChannelError
from splitlearn.identity import CertificateKind, Identity
from splitlearn.wire import ENVELOPE_BYTES, Direction
from tests.unit.channel.conftest import TERMS, Federation, Met, Side, as_frame, meet

SECRET_TEXT = b"the patient was given" * 50


@pytest.fixture
def traffic(met: Met) -> list[bytes]:
    """Frames of both directions, as a relay records them."""
    return [
        bytes(side.session.seal(SECRET_TEXT, round_number=1, step=step, message_seq=step))
        for step, side in product((1, 2), (met.silo, met.trunk))
    ]


@pytest.fixture
def east(federation: Federation) -> Identity:
    return federation.identity(CertificateKind.SILO, "east", seed=12)


class TestPeerSilo:
    def test_opens_nothing_with_its_own_sessions(
        self, federation: Federation, east: Identity, traffic: list[bytes]
    ) -> None:
        """East's own handshake with the same worker in the same job is perfectly good, and of no help."""
        terms = replace(TERMS, silo_name="east")
        own = Side(identity=east, trust=federation.trust, terms=terms)
        worker = Side(identity=federation.worker, trust=federation.trust, terms=terms)
        for recorded in map(as_frame, traffic):
            met = meet(own.but(), worker.but())
            receiver = {Direction.SILO_TO_TRUNK: met.trunk, Direction.TRUNK_TO_SILO: met.silo}
            due = replace(recorded.envelope, counter=0).pack()
            with pytest.raises(TamperedFrameError):
                receiver[recorded.envelope.direction].session.open(as_frame(due + bytes(recorded.body)))

    def test_derives_no_key_from_what_it_sees_and_holds(
        self, met: Met, east: Identity, traffic: list[bytes]
    ) -> None:
        hello, reply, confirm = met.recorded
        offer = Hello.from_bytes(hello[ENVELOPE_BYTES:])
        answer, _ = Answer.split(reply[ENVELOPE_BYTES:])
        private = X25519PrivateKey.from_private_bytes(east.signing_key.private_bytes())
        secrets = [
            private.exchange(X25519PublicKey.from_public_bytes(share))
            for share in (offer.share, answer.share)
        ]
        secrets += [bytes(32), east.signing_key.private_bytes(), offer.random, answer.random]
        exchanged = exchange_hash(hello, reply)
        for first, second in product(secrets, repeat=2):
            keys = KeySchedule(x25519_secret=first, mlkem_secret=second, exchange_hash=exchanged)
            candidates = [keys.key(use, exchanged) for use in Use] + [first, second]
            assert not any(_opens(key, frame) for key in candidates for frame in (*traffic, reply, confirm))

    def test_gets_no_session_by_playing_the_recording(
        self, met: Met, silo_side: Side, trunk_side: Side
    ) -> None:
        hello, reply, confirm = met.recorded
        trunk, silo = trunk_side.but().trunk(), silo_side.but().silo()
        trunk.receive_hello(as_frame(hello))
        with pytest.raises(ChannelError):
            trunk.receive_confirm(as_frame(confirm))
        silo.hello()
        with pytest.raises(ChannelError):
            silo.receive_reply(as_frame(reply))

    def test_sees_no_certificate(self, met: Met, federation: Federation) -> None:
        """Certificates cross sealed: a relay learns the names in the hello, no keys."""
        wire = b"".join(met.recorded)
        for identity in (federation.silo, federation.worker):
            assert identity.certificate.public_key.raw not in wire
            assert identity.certificate.signature not in wire


def _opens(key: bytes, frame: bytes) -> bool:
    body = frame[ENVELOPE_BYTES:] if frame[4] == 4 else frame[ENVELOPE_BYTES + 1152 :]
    try:
        AESGCM(key).decrypt(bytes(12), body, frame[:ENVELOPE_BYTES])
    except InvalidTag:
        return False
    return True
