"""What both sides of the handshake share: the order of steps, the transcript, the session at the end."""

from dataclasses import dataclass
from enum import Enum

from splitlearn.channel.errors import MalformedHandshakeError
from splitlearn.channel.framing import handshake_body
from splitlearn.channel.messages import ANSWER_BYTES
from splitlearn.channel.proof import VerifiedProof
from splitlearn.channel.schedule import KeySchedule, Stage, transcript_hash
from splitlearn.channel.session import SealedSession
from splitlearn.channel.setting import SILO, WORKER, Setting
from splitlearn.channel.terms import ResumePoint
from splitlearn.channel.traffic import TrafficKey
from splitlearn.errors import LocalProtocolError
from splitlearn.identity import Certificate
from splitlearn.wire import ENVELOPE_BYTES, Frame, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Established:
    """What a finished handshake leaves.

    Attributes:
        session: Sealed, counters at 0.
        peer_resume: The last message that the peer has opened from us: send again what came after it.
        peer_certificate: Who the peer is, verified.
    """

    session: SealedSession
    peer_resume: ResumePoint
    peer_certificate: Certificate


class Step(Enum):
    """What a handshake may be asked for next."""

    HELLO = "hello()"
    RECEIVE_HELLO = "receive_hello()"
    RECEIVE_REPLY = "receive_reply()"
    RECEIVE_CONFIRM = "receive_confirm()"
    ESTABLISHED = "established()"
    NOTHING = "nothing, it is spent"


class Steps:
    """Lets each step be taken once and in order; a handshake that failed in a step stays spent."""

    __slots__ = ("_due",)

    def __init__(self, first: Step) -> None:
        self._due = first

    def take(self, step: Step) -> None:
        """Begin a step. Nothing more may be asked until :meth:`allow` is called at its end.

        Raises:
            LocalProtocolError: Our own code called the methods in another order.
        """
        if self._due is not step:
            raise LocalProtocolError(f"{step.value} was called on a handshake; due is {self._due.value}")
        self._due = Step.NOTHING

    def allow(self, step: Step) -> None:
        """Say what comes next."""
        self._due = step


def accept(frame: Frame, *, kind: Kind, setting: Setting) -> bytes:
    """Return the body of the handshake message that is due, seen for the first time.

    Raises:
        ChannelError: It is another message, of another job, reflected, malformed, or replayed.
    """
    direction = setting.role.sending.opposite
    body = handshake_body(frame, kind=kind, direction=direction, terms=setting.terms)
    setting.seen.refuse_again(frame)
    return body


def exchange_hash(hello_frame: bytes, reply_frame: bytes) -> bytes:
    """Return the transcript hash of the hello and the reply's clear part.

    Raises:
        MalformedHandshakeError: The reply has no whole clear part.
    """
    clear = reply_frame[: ENVELOPE_BYTES + ANSWER_BYTES]
    if len(clear) != ENVELOPE_BYTES + ANSWER_BYTES:
        raise MalformedHandshakeError(f"a reply of {len(reply_frame)} bytes is too short")
    return transcript_hash(Stage.EXCHANGE, hello_frame, clear)


def replied_hash(bound: bytes, sealed: bytes) -> bytes:
    """Return the transcript hash of the whole reply.

    Args:
        bound: What the worker signed.
        sealed: The worker's proof as it crossed the wire.
    """
    return transcript_hash(Stage.REPLIED, bound, sealed)


def establish(
    setting: Setting, keys: KeySchedule, *, confirm_bound: bytes, confirm_frame: bytes, peer: VerifiedProof
) -> Established:
    """Spend a handshake's keys to make its session.

    Args:
        setting: Ours.
        keys: Of this handshake.
        confirm_bound: What the silo signed.
        confirm_frame: Message 3, whole.
        peer: The peer's proof.
    """
    transcript = transcript_hash(Stage.TRAFFIC, confirm_bound, confirm_frame)
    other = WORKER if setting.role is SILO else SILO
    session = SealedSession(
        setting.terms,
        sending=setting.role.sending,
        seal_key=TrafficKey(keys.key(setting.role.traffic_use, transcript)),
        open_key=TrafficKey(keys.key(other.traffic_use, transcript)),
    )
    return Established(session=session, peer_resume=peer.resume, peer_certificate=peer.certificate)
