"""What a party may be told by the control plane, and what of it the party acts on.

::

    TrunklineError
    ├── SettingError                a setting of this program is wrong                        exit 2
    └── RefusedError                the control plane refuses; `code` is its own word         exit 12
        ├── SupersededError         another process speaks for this party now
        ├── RevokedError            the party's certificate is revoked or expired
        ├── PendingError            a person has yet to sign the certificate
        ├── LeaseLostError          the lease is another's, or of a higher epoch
        ├── JobOverError            the job has ended
        ├── NoLeaseError            no worker hosts the trunk yet: wait
        └── NotFoundError           no such thing, or not for this party
    LinkError
    └── UnreachableError            the control plane cannot be reached: it may be later
    StorageError
    └── FolderInUseError            another process holds the state folder
"""

from splitlearn.errors import LinkError, StorageError, TrunklineError


class SettingError(TrunklineError):
    """A setting of this program is wrong; the message names it."""

    code = "setting"
    exit_code = 2
    public = "the other side is set up wrongly"


class RefusedError(TrunklineError):
    """The control plane refused a request.

    Args:
        message: Its sentence and remedy.
        code: Its word for the reason.
        status: Of the HTTP answer.
    """

    code = "refused"
    exit_code = 12
    public = "the control plane refused"

    def __init__(self, message: str, *, code: str = "refused", status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class SupersededError(RefusedError):
    """Another process speaks for this party; this one must end."""


class RevokedError(RefusedError):
    """The certificate of this party counts no more."""


class PendingError(RefusedError):
    """The enrolment waits for a person with the offline root."""


class LeaseLostError(RefusedError):
    """The lease belongs to another epoch; end quietly."""


class JobOverError(RefusedError):
    """The job has ended."""


class NoLeaseError(RefusedError):
    """No worker hosts the trunk yet; ask again later."""


class NotFoundError(RefusedError):
    """There is no such thing, or it is not for this party."""


class UnreachableError(LinkError):
    """The control plane cannot be reached; it may be later."""

    code = "unreachable"
    public = "the control plane cannot be reached"


class FolderInUseError(StorageError):
    """Another process holds the state folder."""

    code = "folder_in_use"


_BY_CODE: dict[str, type[RefusedError]] = {
    "identity_in_use": SupersededError,
    "party_revoked": RevokedError,
    "certificate_expired": RevokedError,
    "party_pending": PendingError,
    "lease_lost": LeaseLostError,
    "job_over": JobOverError,
    "no_lease": NoLeaseError,
    "not_found": NotFoundError,
}


def refusal(message: str, *, code: str, status: int) -> RefusedError:
    """Return the error of a refusal's word."""
    return _BY_CODE.get(code, RefusedError)(message, code=code, status=status)
