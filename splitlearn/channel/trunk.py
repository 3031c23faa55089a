"""The trunk's side of the handshake: it answers."""

from datetime import datetime

from splitlearn.channel.entropy import Entropy
from splitlearn.channel.exchange import Ephemeral, encapsulate
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
from splitlearn.channel.messages import ANSWER_BYTES, Answer, Hello, sealed_proof_bytes
from splitlearn.channel.proof import check_proof, make_proof
from splitlearn.channel.schedule import KeySchedule
from splitlearn.channel.seen import SeenHandshakes
from splitlearn.channel.setting import SILO, WORKER, Setting
from splitlearn.channel.terms import ResumePoint, Terms
from splitlearn.identity import Identity, TrustStore
from splitlearn.wire import Frame, Kind


class TrunkHandshake:
    """One handshake as the trunk: :meth:`receive_hello`, :meth:`receive_confirm`, each once.

    Any refusal spends the object; close the connection and wait for another.

    Args:
        terms: What both sides must agree on.
        identity: The worker's certificate and key.
        trust: Whose certificates are believed.
        resume: The last message of this silo that the trunk has opened.
        now: The current moment, with a time zone.
        seen: Memory of handshake messages, shared by all handshakes of the process.
        entropy: Fresh randomness when left out; given only by tests. The encapsulation stays random.

    Raises:
        IdentityError: The silo would refuse the worker's own certificate.
    """

    __slots__ = ("_before_confirm", "_ephemeral", "_keys", "_setting", "_steps")

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
            role=WORKER, terms=terms, identity=identity, trust=trust, resume=resume, now=now, seen=seen
        )
        self._ephemeral: Ephemeral | None = Ephemeral(entropy or Entropy.fresh())
        self._keys: KeySchedule | None = None
        self._before_confirm = b""
        self._steps = Steps(Step.RECEIVE_HELLO)

    def receive_hello(self, frame: Frame) -> bytes:
        """Compare message 1 with our terms and return message 2, framed.

        Raises:
            ChannelError: The hello is refused; the subclass says why.
            LocalProtocolError: Not the step that is due.
        """
        self._steps.take(Step.RECEIVE_HELLO)
        body = accept(frame, kind=Kind.HELLO, setting=self._setting)
        hello = Hello.from_bytes(body)
        self._setting.terms.refuse_others(hello.terms)
        reply_frame = self._reply(hello, bytes(frame.header) + body)
        self._steps.allow(Step.RECEIVE_CONFIRM)
        return reply_frame

    def receive_confirm(self, frame: Frame) -> Established:
        """Verify message 3 and return the session. The handshake is spent.

        Raises:
            ChannelError: The confirm is refused; the subclass says why.
            IdentityError: The silo's certificate is refused.
            LocalProtocolError: Not the step that is due.
        """
        self._steps.take(Step.RECEIVE_CONFIRM)
        keys, self._keys = self._keys, None
        assert keys is not None, "made by receive_hello"
        sealed = accept(frame, kind=Kind.CONFIRM, setting=self._setting)
        header = bytes(frame.header)
        silo = check_proof(self._setting, keys, self._before_confirm, peer=SILO, header=header, sealed=sealed)
        return establish(
            self._setting, keys, confirm_bound=silo.bound, confirm_frame=header + sealed, peer=silo
        )

    def _reply(self, hello: Hello, hello_frame: bytes) -> bytes:
        ephemeral, self._ephemeral = self._ephemeral, None
        assert ephemeral is not None, "dropped only here"
        x25519_secret = ephemeral.agree(hello.share)
        mlkem_secret, ciphertext = encapsulate(hello.kem_key)
        answer = Answer(random=ephemeral.random, share=ephemeral.share, kem_ciphertext=ciphertext)
        header = self._reply_header()
        before = exchange_hash(hello_frame, header + answer.to_bytes())
        keys = KeySchedule(x25519_secret=x25519_secret, mlkem_secret=mlkem_secret, exchange_hash=before)
        proof = make_proof(self._setting, keys, before, header=header)
        self._keys, self._before_confirm = keys, replied_hash(proof.bound, proof.sealed)
        return header + answer.to_bytes() + proof.sealed

    def _reply_header(self) -> bytes:
        setting = self._setting
        body_bytes = ANSWER_BYTES + sealed_proof_bytes(setting.identity.certificate)
        return handshake_header(Kind.REPLY, WORKER.sending, setting.terms, body_bytes=body_bytes)
