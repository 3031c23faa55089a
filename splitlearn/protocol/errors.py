"""What can go wrong in a conversation, by whose fault."""

from splitlearn.errors import ProtocolError


class IllegalMessageError(ProtocolError):
    """The peer sent a message that the conversation's state does not allow."""

    code = "illegal_message"


class MalformedMessageError(ProtocolError):
    """An authentic message of the peer is not of the closed list, or exceeds a limit."""

    code = "malformed_message"


class WrongStepError(ProtocolError):
    """The peer's message is placed at another round or step than the conversation is at."""

    code = "wrong_step"


class WindowExceededError(ProtocolError):
    """The peer sent more than the agreed window without waiting for an answer."""

    code = "window_exceeded"


class ResumeImpossibleError(ProtocolError):
    """The peer's resume point lies outside what this side still holds.

    One of the two processes lost its state: both go back to their last common round, in a new epoch.
    """

    code = "resume_impossible"


class PhaseRefusedError(ProtocolError):
    """The peer does not serve the phase that was asked for."""

    code = "phase_refused"
    public = "the phase is not served"
