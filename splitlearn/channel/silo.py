"""The silo's side of the handshake: it speaks first."""

from datetime import datetime

from splitlearn.channel.entropy import Entropy
from splitlearn.channel.exchange import Ephemeral
from splitlearn.channel.framing import handshake_header
from splitlearn.channel.handshake import (
    Established,
    Step,
    Steps,
    accept,
    establish,
    exchange_hash,
    replied_hash,
)
from splitlearn.channel.messages import Answer, Hello, sealed_proof_bytes
from splitlearn.channel.proof import VerifiedProof, check_proof, make_proof
from splitlearn.channel.schedule import KeySchedule
from splitlearn.channel.seen import SeenHandshakes
from splitlearn.channel.setting import SILO, WORKER, Setting
from splitlearn.channel.terms import ResumePoint, Terms
from splitlearn.identity import Identity, TrustStore
from splitlearn.wire import Frame, Kind


class SiloHandshake:
    """One handshake as the silo: :meth:`hello`, :meth:`receive_reply`, :meth:`established`, each once.

    Any refusal spends the object; open a new connection and make another.

    Args:
        terms: What both sides must agree on.
        identity: The silo's certificate and key.
        trust: Whose certificates are believed.
        resume: The last message of the trunk that this silo has opened.
        now: The current moment, with a time zone.
        seen: Memory of handshake messages, shared by all handshakes of the process.
        entropy: Fresh randomness when left out; given only by tests and vectors.

    Raises:
        IdentityError: The trunk would refuse the silo's own certificate.
    """

    __slots__ = ("_ephemeral", "_established", "_hello_frame", "_setting", "_steps")

    def __init__(
        self,
        terms: Terms,
        *,
        identity: Identity,
        trust: TrustStore,
        resume: ResumePoint,
        now: datetime,
        seen: SeenHandshakes,
        entropy: Entropy | None = None,
    ) -> None:
        self._setting = Setting(
            role=SILO, terms=terms, identity=identity, trust=trust, resume=resume, now=now, seen=seen
        )
        self._ephemeral: Ephemeral | None = Ephemeral(entropy or Entropy.fresh())
        self._established: Established | None = None
        self._hello_frame = b""
        self._steps = Steps(Step.HELLO)

    def hello(self) -> bytes:
        """Return message 1, framed.

        Raises:
            LocalProtocolError: Not the step that is due.
        """
        self._steps.take(Step.HELLO)
        ephemeral, terms = self._ephemeral, self._setting.terms
        assert ephemeral is not None, "kept until the reply"
        hello = Hello(random=ephemeral.random, share=ephemeral.share, kem_key=ephemeral.kem_key, terms=terms)
        body = hello.to_bytes()
        self._hello_frame = handshake_header(Kind.HELLO, SILO.sending, terms, body_bytes=len(body)) + body
        self._steps.allow(Step.RECEIVE_REPLY)
        return self._hello_frame

    def receive_reply(self, frame: Frame) -> bytes:
        """Verify message 2 and return message 3, framed. Send it before anything sealed.

        Raises:
            ChannelError: The reply is refused; the subclass says why.
            IdentityError: The worker's certificate is refused.
            LocalProtocolError: Not the step that is due.
        """
        self._steps.take(Step.RECEIVE_REPLY)
        body = accept(frame, kind=Kind.REPLY, setting=self._setting)
        header = bytes(frame.header)
        before = exchange_hash(self._hello_frame, header + body)
        answer, sealed = Answer.split(body)
        keys = self._agree(answer, before)
        worker = check_proof(self._setting, keys, before, peer=WORKER, header=header, sealed=sealed)
        confirm_frame = self._confirm(keys, replied_hash(worker.bound, sealed), worker)
        self._steps.allow(Step.ESTABLISHED)
        return confirm_frame

    def established(self) -> Established:
        """Return the session. The handshake is spent.

        Raises:
            LocalProtocolError: Not the step that is due.
        """
        self._steps.take(Step.ESTABLISHED)
        established, self._established = self._established, None
        assert established is not None, "made by receive_reply"
        return established

    def _agree(self, answer: Answer, before: bytes) -> KeySchedule:
        ephemeral, self._ephemeral = self._ephemeral, None
        assert ephemeral is not None, "dropped only here"
        return KeySchedule(
            x25519_secret=ephemeral.agree(answer.share),
            mlkem_secret=ephemeral.decapsulate(answer.kem_ciphertext),
            exchange_hash=before,
        )

    def _confirm(self, keys: KeySchedule, before: bytes, worker: VerifiedProof) -> bytes:
        setting = self._setting
        body_bytes = sealed_proof_bytes(setting.identity.certificate)
        header = handshake_header(Kind.CONFIRM, SILO.sending, setting.terms, body_bytes=body_bytes)
        proof = make_proof(setting, keys, before, header=header)
        confirm_frame = header + proof.sealed
        self._established = establish(
            setting, keys, confirm_bound=proof.bound, confirm_frame=confirm_frame, peer=worker
        )
        return confirm_frame
