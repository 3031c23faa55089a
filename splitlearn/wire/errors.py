"""What can be wrong with received bytes, and what we refuse to send.

::

    WireError                     (splitlearn.errors) the peer's bytes are refused
    ├── FrameError                no envelope of ours, or a stream that ends inside a frame
    ├── MessageError              no message of the closed list, or a field that is out of its range
    ├── CodecError                no tensor block of ours
    └── LimitError                well-formed so far, but larger than a limit allows
    LocalProtocolError            (splitlearn.errors) our own code asked for something wrong
    └── UnlistedError             a type, field or value that the closed list does not hold
"""

from splitlearn.errors import LocalProtocolError, WireError


class FrameError(WireError):
    """The bytes are no frame of this protocol; the peer's fault, close the connection."""

    code = "frame"


class MessageError(WireError):
    """The plaintext is no message of the closed list; the peer's fault, close the session."""

    code = "message"


class CodecError(WireError):
    """A tensor block is malformed; the peer's fault, close the session."""

    code = "codec"


class LimitError(WireError):
    """A size exceeds a limit. Raised before anything of that size is allocated, on either side.

    The message names the quantity, the value, the limit and the field of
    :class:`~splitlearn.wire.limits.Limits` that raises it.
    """

    code = "limit"
    public = "a message is larger than this side accepts"


class UnlistedError(LocalProtocolError):
    """What was to be sent is not on the closed list of message types and fields; a bug on our side."""
