"""The sealed channel between one silo and one trunk: handshake, then AES-256-GCM frames in order.

Sans-I/O and torch-free. ``docs/protocol.md`` is normative for every byte. In short::

    silo = SiloHandshake(terms, ...)                trunk = TrunkHandshake(terms, ...)
    silo.hello()                 ── message 1 ──▶   trunk.receive_hello(frame)
    silo.receive_reply(frame)    ◀── message 2 ──
                                 ── message 3 ──▶   trunk.receive_confirm(frame) -> Established
    silo.established() -> Established
    session.seal(...)            ══ sealed ═══▶    session.open_into(frame, out)
"""

from splitlearn.channel.entropy import Entropy
from splitlearn.channel.errors import (
    ClosedSessionError,
    DowngradedSuiteError,
    LowOrderShareError,
    MalformedHandshakeError,
    MisboundIdentityError,
    OversizedFragmentError,
    ReflectedMessageError,
    ReorderedFrameError,
    RepeatedFrameError,
    ReplayedHandshakeError,
    StaleEpochError,
    SupersededError,
    TamperedFrameError,
    TamperedHandshakeError,
    TruncatedFrameError,
    UnexpectedKindError,
    UnknownSuiteError,
    WrongDirectionError,
    WrongJobError,
    WrongKeyError,
    WrongPeerError,
    WrongReplicaError,
    WrongSpecError,
)
from splitlearn.channel.handshake import Established
from splitlearn.channel.seen import SeenHandshakes
from splitlearn.channel.session import SealedSession
from splitlearn.channel.silo import SiloHandshake
from splitlearn.channel.terms import ResumePoint, Terms
from splitlearn.channel.trunk import TrunkHandshake

__all__ = [
    "ClosedSessionError",
    "DowngradedSuiteError",
    "Entropy",
    "Established",
    "LowOrderShareError",
    "MalformedHandshakeError",
    "MisboundIdentityError",
    "OversizedFragmentError",
    "ReflectedMessageError",
    "ReorderedFrameError",
    "RepeatedFrameError",
    "ReplayedHandshakeError",
    "ResumePoint",
    "SealedSession",
    "SeenHandshakes",
    "SiloHandshake",
    "StaleEpochError",
    "SupersededError",
    "TamperedFrameError",
    "TamperedHandshakeError",
    "Terms",
    "TruncatedFrameError",
    "TrunkHandshake",
    "UnexpectedKindError",
    "UnknownSuiteError",
    "WrongDirectionError",
    "WrongJobError",
    "WrongKeyError",
    "WrongPeerError",
    "WrongReplicaError",
    "WrongSpecError",
]
