"""The handshake between honest parties, and the order of its steps."""

import pytest

from splitlearn.channel import Entropy, ResumePoint, Terms
from splitlearn.errors import LocalProtocolError
from splitlearn.identity import CertificateKind, KeyMismatchError, WrongKindError, WrongNameError
from splitlearn.wire import Direction
from tests.unit.channel.conftest import TERMS, Federation, Met, Side, as_frame, meet


class TestEstablished:
    def test_each_side_learns_who_the_other_is(self, met: Met, federation: Federation) -> None:
        assert met.silo.peer_certificate == federation.worker.certificate
        assert met.trunk.peer_certificate == federation.silo.certificate

    def test_each_side_learns_where_the_other_resumes(self, silo_side: Side, trunk_side: Side) -> None:
        met = meet(silo_side.but(resume=ResumePoint(5)), trunk_side.but(resume=ResumePoint(2**64 - 1)))
        assert met.silo.peer_resume == ResumePoint(2**64 - 1)
        assert met.trunk.peer_resume == ResumePoint(5)

    def test_sessions_open_what_the_other_seals(self, met: Met) -> None:
        for sender, receiver in ((met.silo, met.trunk), (met.trunk, met.silo)):
            frame = sender.session.seal(b"tensor", round_number=1, step=2, message_seq=3)
            assert receiver.session.open(as_frame(frame)) == b"tensor"

    def test_sessions_know_their_direction_and_terms(self, met: Met) -> None:
        assert met.silo.session.sending is Direction.SILO_TO_TRUNK
        assert met.trunk.session.sending is Direction.TRUNK_TO_SILO
        assert met.silo.session.terms == met.trunk.session.terms == TERMS

    def test_no_two_handshakes_share_keys(self, silo_side: Side, trunk_side: Side) -> None:
        first, second = (meet(silo_side.but(), trunk_side.but()) for _ in range(2))
        frames = [
            met.silo.session.seal(b"tensor", round_number=1, step=2, message_seq=3) for met in (first, second)
        ]
        assert frames[0] != frames[1]

    def test_even_the_same_entropy_on_both_sides_gives_fresh_keys(
        self, silo_side: Side, trunk_side: Side
    ) -> None:
        fixed = Entropy(random=bytes(32), x25519_private=b"\1" * 32, mlkem_seed=b"\2" * 64)
        other = Entropy(random=bytes(32), x25519_private=b"\3" * 32, mlkem_seed=b"\4" * 64)
        first, second = (meet(silo_side.but(entropy=fixed), trunk_side.but(entropy=other)) for _ in range(2))
        # The encapsulation is random inside the library, whatever entropy is injected.
        assert first.recorded[0] == second.recorded[0]
        assert first.recorded[1] != second.recorded[1]


class TestOrderOfSteps:
    def test_a_hello_is_made_once(self, silo_side: Side) -> None:
        silo = silo_side.silo()
        silo.hello()
        with pytest.raises(LocalProtocolError, match="due is receive_reply"):
            silo.hello()

    def test_no_session_before_the_reply_verifies(self, silo_side: Side) -> None:
        silo = silo_side.silo()
        silo.hello()
        with pytest.raises(LocalProtocolError, match="due is receive_reply"):
            silo.established()

    def test_no_reply_before_the_hello(self, silo_side: Side, met: Met) -> None:
        with pytest.raises(LocalProtocolError, match="due is hello"):
            silo_side.silo().receive_reply(as_frame(met.recorded[1]))

    def test_no_confirm_before_the_hello(self, trunk_side: Side, met: Met) -> None:
        with pytest.raises(LocalProtocolError, match="due is receive_hello"):
            trunk_side.trunk().receive_confirm(as_frame(met.recorded[2]))

    def test_a_finished_handshake_is_spent(self, silo_side: Side, trunk_side: Side) -> None:
        silo, trunk = silo_side.silo(), trunk_side.trunk()
        confirm = silo.receive_reply(as_frame(trunk.receive_hello(as_frame(silo.hello()))))
        trunk.receive_confirm(as_frame(confirm))
        silo.established()
        with pytest.raises(LocalProtocolError, match="spent"):
            silo.established()
        with pytest.raises(LocalProtocolError, match="spent"):
            trunk.receive_confirm(as_frame(confirm))


class TestOwnIdentity:
    """A party that would be refused hears it before it sends anything."""

    def test_refuses_a_certificate_of_another_kind(self, silo_side: Side, federation: Federation) -> None:
        worker = federation.identity(CertificateKind.WORKER, "north", seed=12)
        with pytest.raises(WrongKindError):
            silo_side.but(identity=worker).silo()

    def test_refuses_a_certificate_of_another_name(self, trunk_side: Side, federation: Federation) -> None:
        other = federation.identity(CertificateKind.WORKER, "gpu-1", seed=22)
        with pytest.raises(WrongNameError):
            trunk_side.but(identity=other).trunk()

    def test_refuses_a_key_that_is_not_the_certificates(self, federation: Federation) -> None:
        with pytest.raises(KeyMismatchError):
            type(federation.silo)(federation.silo.certificate, federation.worker.signing_key)


class TestTerms:
    @pytest.mark.parametrize(
        "changes",
        [
            {"job_id": ""},
            {"job_id": "Job"},
            {"silo_name": "n" * 65},
            {"worker_name": "a/b"},
            {"replica": 1 << 16},
            {"replica": -1},
            {"epoch": 1 << 32},
            {"spec_digest": bytes(31)},
        ],
    )
    def test_refuses_what_does_not_fit(self, changes: dict[str, object]) -> None:
        fields = {name: getattr(TERMS, name) for name in Terms.__slots__}
        with pytest.raises(LocalProtocolError):
            Terms(**(fields | changes))

    @pytest.mark.parametrize("last_opened", [-1, 1 << 64])
    def test_refuses_a_resume_point_that_does_not_fit(self, last_opened: int) -> None:
        with pytest.raises(LocalProtocolError):
            ResumePoint(last_opened)


class TestSecrecy:
    def test_no_repr_shows_a_secret(self, silo_side: Side, trunk_side: Side) -> None:
        entropy = Entropy.fresh()
        met = meet(silo_side.but(entropy=entropy), trunk_side)
        shown = repr([entropy, silo_side, met, met.silo.session._seal_key, met.silo.session._open_key])
        for secret in (
            entropy.x25519_private,
            entropy.mlkem_seed,
            silo_side.identity.signing_key.private_bytes(),
        ):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown
