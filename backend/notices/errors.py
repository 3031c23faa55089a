"""What notices refuse, and why one did not arrive."""

from backend.errors import ConflictError, InvalidRequestError


class ChannelNameTakenError(ConflictError):
    """The organisation has a channel of this name."""

    code = "name_taken"
    remedy = "choose another name, or remove the other channel first"


class TooManyChannelsError(ConflictError):
    """The organisation has as many channels as it may have."""

    code = "too_many_channels"
    remedy = "remove one first"


class TargetRefusedError(InvalidRequestError):
    """The address is none, or one that notices do not go to."""

    code = "target_refused"
    remedy = "give an e-mail address, or an https:// URL of a public host"


class MailOffError(ConflictError):
    """This server sends no e-mail."""

    code = "mail_off"
    remedy = "an operator sets TRUNKLINE_SMTP_HOST and TRUNKLINE_SMTP_FROM"


class DeliveryError(Exception):
    """A notice did not arrive; it is tried again.

    Args:
        reason: A sentence for the organisation's admins: no secret, and nothing of what a host answered.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
