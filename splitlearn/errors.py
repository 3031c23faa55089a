"""The error tree.

::

    TrunklineError
    ├── SpecError                 the job specification is wrong                     exit 2
    │   └── UnservedError         right, but this version does not serve it
    ├── ModelError                the model folder, family, or cut is wrong          exit 3
    ├── DataError                 a data set, its columns or a row is wrong          exit 4
    ├── StorageError              a checkpoint or result cannot be written or read   exit 5
    │   └── NoSpaceError          for the disk is full
    ├── WireError                 bytes that are no frame or message of ours         exit 6
    ├── IdentityError             a key, certificate or signature is refused         exit 7
    ├── ChannelError              a handshake or sealed frame is refused             exit 8
    ├── ProtocolError             the peer broke the conversation's rules            exit 9
    ├── LinkError                 the connection is gone; another may be opened      exit 10
    ├── TrainingError             training cannot go on                              exit 11
    └── ProcessError              a process that we started failed or never came up  exit 13

Each folder that needs a finer error derives it from one of these in a module ``errors.py`` of its own.
A mistake of *ours* (a method called in the wrong state) is never one of these: it is an
``AssertionError`` or :class:`LocalProtocolError`, and a bug to report.
"""


class TrunklineError(Exception):
    """Base of every error that a user or operator may meet.

    Args:
        message: A sentence with the value seen, the limit and the remedy. It stays on this side of
            the wire.

    Attributes:
        code: Stable, machine-readable word for this kind of error.
        exit_code: What a command ends with when this error ends it.
        public: What a peer may be told. Never holds a detail.
    """

    code = "error"
    exit_code = 1
    public = "the other side reported an error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SpecError(TrunklineError):
    """A field of a job specification is missing, unknown, of a wrong type or out of range."""

    code = "spec"
    exit_code = 2
    public = "the job specification was refused"


class UnservedError(SpecError):
    """A valid field asks for what this version does not serve yet."""

    code = "unserved"
    public = "the job asks for what this version does not serve"


class ModelError(TrunklineError):
    """A model folder, its family, or a cut through it cannot be used."""

    code = "model"
    exit_code = 3
    public = "the model was refused"


class DataError(TrunklineError):
    """A data set is empty or malformed; the message names file and line."""

    code = "data"
    exit_code = 4
    public = "the silo's data set was refused"


class StorageError(TrunklineError):
    """A file of ours could not be written whole, or is not what its manifest says."""

    code = "storage"
    exit_code = 5
    public = "the other side could not store its state"


class NoSpaceError(StorageError):
    """A disk is full; the message names the file and the bytes, what others may know the bytes alone.

    Args:
        message: With the file, the bytes and the remedy.
        public: With the bytes and the remedy.
    """

    code = "no_space"
    public = "its disk is full"

    def __init__(self, message: str, *, public: str) -> None:
        super().__init__(message)
        self.public = public


class WireError(TrunklineError):
    """Received bytes are not a frame or message of this protocol, or exceed a limit."""

    code = "wire"
    exit_code = 6
    public = "malformed bytes"


class IdentityError(TrunklineError):
    """A key, certificate, revocation list or signature is refused."""

    code = "identity"
    exit_code = 7
    public = "the identity was refused"


class ChannelError(TrunklineError):
    """A handshake or a sealed frame is refused; the session is closed."""

    code = "channel"
    exit_code = 8
    public = "the channel was refused"


class ProtocolError(TrunklineError):
    """The peer sent a message that the conversation does not allow now."""

    code = "protocol"
    exit_code = 9
    public = "the conversation's rules were broken"


class LinkError(TrunklineError):
    """The connection is lost or refused. The conversation survives; open another link."""

    code = "link"
    exit_code = 10
    public = "the connection was lost"


class TrainingError(TrunklineError):
    """Training cannot go on; the message says who, what, where and what to do next."""

    code = "training"
    exit_code = 11
    public = "training stopped"


class ProcessError(TrunklineError):
    """A process that this one started has ended, or did not come up; its log says more."""

    code = "process"
    exit_code = 13
    public = "a process failed"


class LocalProtocolError(RuntimeError):
    """Our own code used a state machine wrongly: a bug here, never the peer's fault."""
