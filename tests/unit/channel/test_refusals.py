"""Every way in which a handshake is refused, each with an error of its own."""

from dataclasses import replace
from datetime import timedelta

import pytest

from splitlearn.channel import (
    DowngradedSuiteError,
    LowOrderShareError,
    MalformedHandshakeError,
    MisboundIdentityError,
    ReflectedMessageError,
    ReplayedHandshakeError,
    SeenHandshakes,
    StaleEpochError,
    SupersededError,
    TamperedHandshakeError,
    UnexpectedKindError,
    UnknownSuiteError,
    WrongJobError,
    WrongKeyError,
    WrongPeerError,
    WrongReplicaError,
    WrongSpecError,
)
from splitlearn.channel.schedule import KeySchedule, Stage, Use, transcript_hash
from splitlearn.errors import ChannelError, IdentityError, LocalProtocolError
from splitlearn.identity import (
    CertificateKind,
    ExpiredCertificateError,
    FederationRoot,
    NotYetValidError,
    RevokedCertificateError,
    TrustStore,
    UntrustedCertificateError,
    WrongKindError,
    WrongNameError,
)
from splitlearn.wire import ENVELOPE_BYTES, Envelope, Kind
from tests.unit.channel.conftest import (
    NOW,
    TERMS,
    Federation,
    Gullible,
    Met,
    Side,
    Stolen,
    as_frame,
    meet,
    seeded_key,
)

SUITE = ENVELOPE_BYTES
HELLO_SHARE = ENVELOPE_BYTES + 2 + 32
HELLO_KEM_KEY = HELLO_SHARE + 32
REPLY_SHARE = ENVELOPE_BYTES + 32
TOLERANCE = timedelta(hours=48)
SECOND = timedelta(seconds=1)


def patched(data: bytes, position: int, new: bytes) -> bytes:
    return data[:position] + new + data[position + len(new) :]


def gullible(federation: Federation) -> TrustStore:
    return Gullible(federation.root.public_key)


class TestWrongKey:
    """A copied certificate without its key."""

    def test_silo(self, silo_side: Side, trunk_side: Side, federation: Federation) -> None:
        thief = Stolen(certificate=federation.silo.certificate, signing_key=seeded_key(99)).as_identity()
        with pytest.raises(WrongKeyError):
            meet(silo_side.but(identity=thief), trunk_side)

    def test_worker(self, silo_side: Side, trunk_side: Side, federation: Federation) -> None:
        thief = Stolen(certificate=federation.worker.certificate, signing_key=seeded_key(99)).as_identity()
        with pytest.raises(WrongKeyError):
            meet(silo_side, trunk_side.but(identity=thief))


class TestWrongPeer:
    def test_hello_for_another_worker(self, silo_side: Side, trunk_side: Side) -> None:
        with pytest.raises(WrongPeerError, match="gpu-1"):
            meet(silo_side.but(terms=replace(TERMS, worker_name="gpu-1")), trunk_side)

    def test_hello_of_another_silo(self, silo_side: Side, trunk_side: Side, federation: Federation) -> None:
        east = federation.identity(CertificateKind.SILO, "east", seed=12)
        with pytest.raises(WrongPeerError, match="east"):
            meet(silo_side.but(identity=east, terms=replace(TERMS, silo_name="east")), trunk_side)

    def test_another_silo_under_this_ones_name(
        self, silo_side: Side, trunk_side: Side, federation: Federation
    ) -> None:
        east = federation.identity(CertificateKind.SILO, "east", seed=12)
        with pytest.raises(WrongNameError, match="east"):
            meet(silo_side.but(identity=east, trust=gullible(federation)), trunk_side)

    def test_another_worker_under_this_ones_name(
        self, silo_side: Side, trunk_side: Side, federation: Federation
    ) -> None:
        other = federation.identity(CertificateKind.WORKER, "gpu-1", seed=22)
        with pytest.raises(WrongNameError, match="gpu-1"):
            meet(silo_side, trunk_side.but(identity=other, trust=gullible(federation)))

    def test_a_silo_that_plays_the_worker(
        self, silo_side: Side, trunk_side: Side, federation: Federation
    ) -> None:
        silo = federation.identity(CertificateKind.SILO, "gpu-0", seed=23)
        with pytest.raises(WrongKindError):
            meet(silo_side, trunk_side.but(identity=silo, trust=gullible(federation)))


class TestSwappedKey:
    """A control plane that issues its own certificate for a party's name."""

    def test_worker(self, silo_side: Side, trunk_side: Side) -> None:
        forged = Federation(FederationRoot(seeded_key(66)))
        with pytest.raises(UntrustedCertificateError):
            meet(silo_side, trunk_side.but(identity=forged.worker, trust=gullible(forged)))

    def test_silo(self, silo_side: Side, trunk_side: Side) -> None:
        forged = Federation(FederationRoot(seeded_key(66)))
        with pytest.raises(UntrustedCertificateError):
            meet(silo_side.but(identity=forged.silo, trust=gullible(forged)), trunk_side)


class TestMisbinding:
    def test_a_mac_over_another_certificate(
        self,
        silo_side: Side,
        trunk_side: Side,
        federation: Federation,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The certificate and signature are replaced, the MAC still vouches for the first certificate."""
        honest = federation.silo.certificate
        second = federation.identity(CertificateKind.SILO, "north", seed=12)
        silo, trunk = silo_side.but(identity=second).silo(), trunk_side.trunk()
        reply = trunk.receive_hello(as_frame(silo.hello()))
        real = KeySchedule.mac

        def mac_for_honest(keys: KeySchedule, use: Use, transcript: bytes, message: bytes) -> bytes:
            if use is Use.CONFIRM_MAC:
                resume = silo_side.resume.to_bytes()
                message = transcript_hash(Stage.CONFIRM, transcript, honest.to_bytes(), resume)
            return real(keys, use, transcript, message)

        with monkeypatch.context() as patch:
            patch.setattr(KeySchedule, "mac", mac_for_honest)
            confirm = silo.receive_reply(as_frame(reply))
        with pytest.raises(MisboundIdentityError):
            trunk.receive_confirm(as_frame(confirm))

    def test_a_hello_whose_name_was_rewritten_on_the_way(self, silo_side: Side, trunk_side: Side) -> None:
        """South passes north's offer on as its own; the trunk's reply for south must not satisfy north."""
        silo = silo_side.silo()
        trunk = trunk_side.but(terms=replace(TERMS, silo_name="south")).trunk()
        reply = trunk.receive_hello(as_frame(silo.hello().replace(b"north", b"south")))
        with pytest.raises(TamperedHandshakeError):
            silo.receive_reply(as_frame(reply))


class TestReflection:
    def test_hello_as_reply(self, silo_side: Side) -> None:
        silo = silo_side.silo()
        with pytest.raises(ReflectedMessageError):
            silo.receive_reply(as_frame(silo.hello()))

    def test_own_share_in_a_reply(self, silo_side: Side, met: Met) -> None:
        silo = silo_side.but().silo()
        share = silo.hello()[HELLO_SHARE : HELLO_SHARE + 32]
        with pytest.raises(ReflectedMessageError):
            silo.receive_reply(as_frame(patched(met.recorded[1], REPLY_SHARE, share)))

    def test_reply_as_confirm(self, silo_side: Side, trunk_side: Side) -> None:
        trunk = trunk_side.trunk()
        reply = trunk.receive_hello(as_frame(silo_side.silo().hello()))
        with pytest.raises(ReflectedMessageError):
            trunk.receive_confirm(as_frame(reply))


class TestReplay:
    def test_hello_is_remembered(self, met: Met, trunk_side: Side) -> None:
        with pytest.raises(ReplayedHandshakeError, match="hello"):
            trunk_side.trunk().receive_hello(as_frame(met.recorded[0]))

    def test_reply_is_remembered(self, met: Met, silo_side: Side) -> None:
        silo = silo_side.silo()
        silo.hello()
        with pytest.raises(ReplayedHandshakeError, match="reply"):
            silo.receive_reply(as_frame(met.recorded[1]))

    def test_confirm_is_remembered(self, met: Met, silo_side: Side, trunk_side: Side) -> None:
        trunk = trunk_side.trunk()
        trunk.receive_hello(as_frame(silo_side.silo().hello()))
        with pytest.raises(ReplayedHandshakeError, match="confirm"):
            trunk.receive_confirm(as_frame(met.recorded[2]))

    def test_hello_and_confirm_are_refused_without_memory(self, met: Met, trunk_side: Side) -> None:
        trunk = trunk_side.but().trunk()
        trunk.receive_hello(as_frame(met.recorded[0]))
        with pytest.raises(TamperedHandshakeError):
            trunk.receive_confirm(as_frame(met.recorded[2]))

    def test_reply_is_refused_without_memory(self, met: Met, silo_side: Side) -> None:
        silo = silo_side.but().silo()
        silo.hello()
        with pytest.raises(TamperedHandshakeError):
            silo.receive_reply(as_frame(met.recorded[1]))

    def test_memory_is_bounded_and_forgets_the_oldest(self, met: Met) -> None:
        seen = SeenHandshakes(max_entries=2)
        for message in met.recorded:
            seen.refuse_again(as_frame(message))
        assert len(seen) == 2
        seen.refuse_again(as_frame(met.recorded[0]))
        with pytest.raises(ReplayedHandshakeError):
            seen.refuse_again(as_frame(met.recorded[2]))


class TestSuite:
    @pytest.mark.parametrize("suite", [0, 1])
    def test_downgraded(self, silo_side: Side, trunk_side: Side, suite: int) -> None:
        hello = patched(silo_side.silo().hello(), SUITE, suite.to_bytes(2, "big"))
        with pytest.raises(DowngradedSuiteError):
            trunk_side.trunk().receive_hello(as_frame(hello))

    @pytest.mark.parametrize("suite", [3, 0xFFFF])
    def test_unknown(self, silo_side: Side, trunk_side: Side, suite: int) -> None:
        hello = patched(silo_side.silo().hello(), SUITE, suite.to_bytes(2, "big"))
        with pytest.raises(UnknownSuiteError):
            trunk_side.trunk().receive_hello(as_frame(hello))


class TestOtherTerms:
    def test_lower_epoch(self, silo_side: Side, trunk_side: Side) -> None:
        with pytest.raises(StaleEpochError):
            meet(silo_side.but(terms=replace(TERMS, epoch=TERMS.epoch - 1)), trunk_side)

    def test_higher_epoch(self, silo_side: Side, trunk_side: Side) -> None:
        with pytest.raises(SupersededError):
            meet(silo_side.but(terms=replace(TERMS, epoch=TERMS.epoch + 1)), trunk_side)

    def test_reply_of_a_lower_epoch(self, silo_side: Side, trunk_side: Side) -> None:
        """A superseded trunk answers a silo that knows better."""
        silo = silo_side.silo()
        silo.hello()
        old = replace(TERMS, epoch=TERMS.epoch - 1)
        stale_hello = silo_side.but(terms=old).silo().hello()
        reply = trunk_side.but(terms=old).trunk().receive_hello(as_frame(stale_hello))
        with pytest.raises(StaleEpochError):
            silo.receive_reply(as_frame(reply))

    def test_epoch_that_differs_only_inside_the_hello(self, silo_side: Side, trunk_side: Side) -> None:
        """The envelope is raised by a relay; the terms under the signature still say the old epoch."""
        old = silo_side.but(terms=replace(TERMS, epoch=TERMS.epoch - 1)).silo().hello()
        envelope = replace(Envelope.unpack(old[:ENVELOPE_BYTES]), epoch=TERMS.epoch)
        with pytest.raises(StaleEpochError):
            trunk_side.trunk().receive_hello(as_frame(envelope.pack() + old[ENVELOPE_BYTES:]))

    def test_job(self, silo_side: Side, trunk_side: Side) -> None:
        with pytest.raises(WrongJobError):
            meet(silo_side.but(terms=replace(TERMS, job_id="radiology-2")), trunk_side)

    def test_job_that_differs_only_inside_the_hello(self, silo_side: Side, trunk_side: Side) -> None:
        hello = silo_side.silo().hello().replace(b"radiology-1", b"radiology-2")
        with pytest.raises(WrongJobError):
            trunk_side.trunk().receive_hello(as_frame(hello))

    def test_replica(self, silo_side: Side, trunk_side: Side) -> None:
        with pytest.raises(WrongReplicaError):
            meet(silo_side.but(terms=replace(TERMS, replica=1)), trunk_side)

    def test_spec(self, silo_side: Side, trunk_side: Side) -> None:
        with pytest.raises(WrongSpecError):
            meet(silo_side.but(terms=replace(TERMS, spec_digest=bytes(32))), trunk_side)


@pytest.mark.parametrize("refused", ["silo", "worker"])
class TestCertificate:
    """Either side's certificate, judged by the other."""

    def meet_with(self, refused: str, silo_side: Side, trunk_side: Side, **changes: object) -> Met:
        if refused == "silo":
            return meet(silo_side.but(**changes), trunk_side)
        return meet(silo_side, trunk_side.but(**changes))

    def changes(self, refused: str, federation: Federation, **validity: object) -> dict[str, object]:
        kind, name = {
            "silo": (CertificateKind.SILO, "north"),
            "worker": (CertificateKind.WORKER, "gpu-0"),
        }[refused]
        identity = federation.identity(kind, name, seed=31, **validity)  # type: ignore[arg-type]  # dates only
        return {"identity": identity, "trust": gullible(federation)}

    def test_expired(self, refused: str, silo_side: Side, trunk_side: Side, federation: Federation) -> None:
        begin, end = NOW - timedelta(days=90), NOW - TOLERANCE
        accepted = self.changes(refused, federation, not_before=begin, not_after=end)
        assert self.meet_with(refused, silo_side, trunk_side, **accepted)
        expired = self.changes(refused, federation, not_before=begin, not_after=end - SECOND)
        with pytest.raises(ExpiredCertificateError):
            self.meet_with(refused, silo_side, trunk_side, **expired)

    def test_not_yet_valid(
        self, refused: str, silo_side: Side, trunk_side: Side, federation: Federation
    ) -> None:
        accepted = self.changes(refused, federation, not_before=NOW + TOLERANCE)
        assert self.meet_with(refused, silo_side, trunk_side, **accepted)
        early = self.changes(refused, federation, not_before=NOW + TOLERANCE + SECOND)
        with pytest.raises(NotYetValidError):
            self.meet_with(refused, silo_side, trunk_side, **early)

    def test_revoked(self, refused: str, silo_side: Side, trunk_side: Side, federation: Federation) -> None:
        changes = self.changes(refused, federation)
        revocations = federation.root.revoke([31], issued_at=NOW)
        for judge in (silo_side, trunk_side):
            judge.trust.update(revocations)
        with pytest.raises(RevokedCertificateError):
            self.meet_with(refused, silo_side, trunk_side, **changes)


LOW_ORDER_POINTS = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 19 - 1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 19 + 1).to_bytes(32, "little"),
]


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:8])
class TestLowOrderShare:
    """X25519 shares that give an all-zero secret whatever the other key is (RFC 7748, section 6.1)."""

    def test_in_hello(self, silo_side: Side, trunk_side: Side, point: bytes) -> None:
        hello = patched(silo_side.silo().hello(), HELLO_SHARE, point)
        with pytest.raises(LowOrderShareError):
            trunk_side.trunk().receive_hello(as_frame(hello))

    def test_in_reply(self, silo_side: Side, trunk_side: Side, point: bytes) -> None:
        silo = silo_side.silo()
        reply = trunk_side.trunk().receive_hello(as_frame(silo.hello()))
        with pytest.raises(LowOrderShareError):
            silo.receive_reply(as_frame(patched(reply, REPLY_SHARE, point)))


class TestMalformed:
    def test_kem_key_that_is_none(self, silo_side: Side, trunk_side: Side) -> None:
        hello = patched(silo_side.silo().hello(), HELLO_KEM_KEY, b"\xff" * 1184)
        with pytest.raises(MalformedHandshakeError, match="encapsulation key"):
            trunk_side.trunk().receive_hello(as_frame(hello))

    def test_confirm_where_the_reply_is_due(self, silo_side: Side, met: Met) -> None:
        silo = silo_side.but().silo()
        silo.hello()
        envelope = replace(Envelope.unpack(met.recorded[1][:ENVELOPE_BYTES]), kind=Kind.CONFIRM)
        with pytest.raises(UnexpectedKindError):
            silo.receive_reply(as_frame(envelope.pack() + met.recorded[1][ENVELOPE_BYTES:]))

    def test_tensor_before_the_confirm(self, silo_side: Side, trunk_side: Side, met: Met) -> None:
        trunk = trunk_side.but().trunk()
        trunk.receive_hello(as_frame(silo_side.but().silo().hello()))
        sealed = met.silo.session.seal(b"tensor", round_number=1, step=1, message_seq=1)
        with pytest.raises(UnexpectedKindError):
            trunk.receive_confirm(as_frame(sealed))

    @pytest.mark.parametrize("body_bytes", [0, 1, 1151, 1152, 1153, 4096])
    def test_reply_of_another_length(self, silo_side: Side, met: Met, body_bytes: int) -> None:
        silo = silo_side.but().silo()
        silo.hello()
        envelope = replace(Envelope.unpack(met.recorded[1][:ENVELOPE_BYTES]), body_bytes=body_bytes)
        body = met.recorded[1][ENVELOPE_BYTES:].ljust(body_bytes, b"\0")[:body_bytes]
        with pytest.raises((MalformedHandshakeError, TamperedHandshakeError)):
            silo.receive_reply(as_frame(envelope.pack() + body))

    def test_hello_longer_than_any(self, silo_side: Side, trunk_side: Side) -> None:
        hello = silo_side.silo().hello().ljust(ENVELOPE_BYTES + 2049, b"\0")
        longer = replace(Envelope.unpack(hello[:ENVELOPE_BYTES]), body_bytes=2049)
        with pytest.raises(MalformedHandshakeError, match="above the limit of 2048"):
            trunk_side.trunk().receive_hello(as_frame(longer.pack() + hello[ENVELOPE_BYTES:]))

    def test_hello_with_trailing_bytes(self, silo_side: Side, trunk_side: Side) -> None:
        hello = silo_side.silo().hello() + b"\0"
        envelope = Envelope.unpack(hello[:ENVELOPE_BYTES])
        longer = replace(envelope, body_bytes=envelope.body_bytes + 1).pack() + hello[ENVELOPE_BYTES:]
        with pytest.raises(MalformedHandshakeError):
            trunk_side.trunk().receive_hello(as_frame(longer))

    def test_envelope_fields_of_sealed_frames(self, silo_side: Side, trunk_side: Side) -> None:
        hello = silo_side.silo().hello()
        envelope = replace(Envelope.unpack(hello[:ENVELOPE_BYTES]), message_seq=1)
        with pytest.raises(MalformedHandshakeError):
            trunk_side.trunk().receive_hello(as_frame(envelope.pack() + hello[ENVELOPE_BYTES:]))


class TestAfterARefusal:
    def test_the_silo_is_spent(self, silo_side: Side, trunk_side: Side) -> None:
        silo = silo_side.silo()
        reply = trunk_side.trunk().receive_hello(as_frame(silo.hello()))
        with pytest.raises(TamperedHandshakeError):
            silo.receive_reply(as_frame(patched(reply, len(reply) - 1, bytes([reply[-1] ^ 1]))))
        for call in (silo.hello, silo.established, lambda: silo.receive_reply(as_frame(reply))):
            with pytest.raises(LocalProtocolError, match="spent"):
                call()

    def test_the_trunk_is_spent(self, silo_side: Side, trunk_side: Side) -> None:
        silo, trunk = silo_side.silo(), trunk_side.trunk()
        confirm = silo.receive_reply(as_frame(trunk.receive_hello(as_frame(silo.hello()))))
        with pytest.raises(TamperedHandshakeError):
            trunk.receive_confirm(as_frame(patched(confirm, len(confirm) - 1, bytes([confirm[-1] ^ 1]))))
        with pytest.raises(LocalProtocolError, match="spent"):
            trunk.receive_confirm(as_frame(confirm))

    def test_a_peer_is_told_nothing_detailed(self) -> None:
        for error in (*ChannelError.__subclasses__(), *IdentityError.__subclasses__()):
            assert error.public in {ChannelError.public, IdentityError.public}

    def test_every_refusal_has_a_code_of_its_own(self) -> None:
        ours = [
            error
            for base in (ChannelError, IdentityError)
            for error in base.__subclasses__()
            if error.__module__.startswith(("splitlearn.channel", "splitlearn.identity"))
        ]
        codes = [error.code for error in ours]
        assert len(set(codes)) == len(codes)
