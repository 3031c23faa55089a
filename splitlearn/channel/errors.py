"""What the channel refuses. Each reason has a class of its own; each closes the handshake or session.

::

    ChannelError
    ├── MalformedHandshakeError    lengths or fields that no handshake message has
    ├── UnexpectedKindError        a frame of another kind than the one due now
    ├── ReflectedMessageError      our own message, sent back
    ├── ReplayedHandshakeError     a handshake message that was received before
    ├── UnknownSuiteError          algorithms that this version does not know
    ├── DowngradedSuiteError       algorithms that are known and too weak
    ├── LowOrderShareError         an X25519 share that makes the shared secret all zero
    ├── WrongJobError              another job
    ├── WrongReplicaError          another replica of the trunk
    ├── WrongSpecError             another job specification
    ├── WrongPeerError             the peer names other parties than we do
    ├── StaleEpochError            the peer runs under a lower epoch than we do
    ├── SupersededError            the peer runs under a higher epoch: we are superseded
    ├── TamperedHandshakeError     the sealed part of a handshake message does not open
    ├── MisboundIdentityError      a certificate that was not bound to this handshake's keys
    ├── WrongKeyError              a signature that the certificate's key did not make
    ├── WrongDirectionError        a sealed frame that travels the wrong way
    ├── RepeatedFrameError         a sealed frame that was opened before
    ├── ReorderedFrameError        a sealed frame that is not the next one
    ├── TruncatedFrameError        a body shorter or longer than its envelope says
    ├── OversizedFragmentError     a fragment that reaches beyond its message
    ├── TamperedFrameError         a sealed frame that does not open
    └── ClosedSessionError         the session was closed
"""

from splitlearn.errors import ChannelError


class MalformedHandshakeError(ChannelError):
    """A handshake message has lengths or fields that none has."""

    code = "malformed_handshake"


class UnexpectedKindError(ChannelError):
    """A frame is of another kind than the one due now."""

    code = "unexpected_kind"


class ReflectedMessageError(ChannelError):
    """Our own message, or our own share, came back."""

    code = "reflected_message"


class ReplayedHandshakeError(ChannelError):
    """This handshake message was received before."""

    code = "replayed_handshake"


class UnknownSuiteError(ChannelError):
    """The peer offers algorithms that this version does not know."""

    code = "unknown_suite"


class DowngradedSuiteError(ChannelError):
    """The peer offers algorithms that are known and too weak: somebody may have rewritten the offer."""

    code = "downgraded_suite"


class LowOrderShareError(ChannelError):
    """An X25519 share makes the shared secret all zero (RFC 7748, section 6.1)."""

    code = "low_order_share"


class WrongJobError(ChannelError):
    """The frame belongs to another job."""

    code = "wrong_job"


class WrongReplicaError(ChannelError):
    """The frame belongs to another replica of the trunk."""

    code = "wrong_replica"


class WrongSpecError(ChannelError):
    """The peer was given another job specification."""

    code = "wrong_spec"


class WrongPeerError(ChannelError):
    """The peer names other parties than we do."""

    code = "wrong_peer"


class StaleEpochError(ChannelError):
    """The peer runs under a lower epoch than we do: it was superseded."""

    code = "stale_epoch"


class SupersededError(ChannelError):
    """The peer runs under a higher epoch than we do: we were superseded."""

    code = "superseded"


class TamperedHandshakeError(ChannelError):
    """The sealed part of a handshake message does not open: changed, or sealed with other keys."""

    code = "tampered_handshake"


class MisboundIdentityError(ChannelError):
    """The certificate was not bound to this handshake's keys by whoever made them (SIGMA, section 3.1)."""

    code = "misbound_identity"


class WrongKeyError(ChannelError):
    """The certificate is good, but its key did not sign this handshake."""

    code = "wrong_key"


class WrongDirectionError(ChannelError):
    """A sealed frame travels the wrong way: our own, sent back."""

    code = "wrong_direction"


class RepeatedFrameError(ChannelError):
    """A sealed frame has a counter that was opened already."""

    code = "repeated_frame"


class ReorderedFrameError(ChannelError):
    """A sealed frame has a counter ahead of the next: one before it was lost or overtaken."""

    code = "reordered_frame"


class TruncatedFrameError(ChannelError):
    """A sealed frame's body is not as long as its envelope says, or too short to hold a tag."""

    code = "truncated_frame"


class OversizedFragmentError(ChannelError):
    """A fragment reaches beyond the end of its message."""

    code = "oversized_fragment"


class TamperedFrameError(ChannelError):
    """A sealed frame does not open: envelope, ciphertext or tag was changed, or the key is another."""

    code = "tampered_frame"


class ClosedSessionError(ChannelError):
    """The session was closed, by us or by a refusal; open another with a new handshake."""

    code = "closed_session"
