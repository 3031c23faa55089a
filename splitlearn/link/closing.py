"""Why a gateway closes a connection, as both ends of it know."""

from enum import IntEnum
from typing import Self

from splitlearn.errors import LinkError


class CloseReason(IntEnum):
    """A websocket close code (RFC 6455, section 7.4; 4000 to 4999 are private) and what to do about it.

    ``is_final`` tells that another connection with the same ticket cannot help.
    """

    remedy: str
    is_final: bool

    GOING_AWAY = 1001, "the gateway stops; connect again in a moment", False
    FRAME_TOO_LARGE = 1009, "send smaller frames, or raise max_frame_bytes on all sides", False
    MALFORMED_TICKET = (
        4400,
        "send the ticket as the control plane gave it: 'Authorization: Bearer TICKET'",
        True,
    )
    WRONG_SIGNATURE = (
        4401,
        "another control plane signed this ticket, or none; see whose gateway this is",
        True,
    )
    REVOKED = 4403, "the control plane ended this party's part in the job; ask its admin", True
    PEER_ABSENT = 4404, "the other side did not come; see that it runs, and connect again", False
    EXPIRED_TICKET = 4408, "ask the control plane for another ticket", True
    SUPERSEDED = 4409, "a newer epoch runs; ask the control plane for its ticket, or end", True
    REPLACED = 4410, "a newer connection of this party took the place; only one can be served", False
    PEER_GONE = 4411, "the other side's connection ended; connect again", False
    IDLE = 4412, "nothing was said for too long; connect again when there is something to say", False
    BAD_FRAME = (
        4422,
        "a frame did not fit its ticket or was none of ours; see that both run one version",
        False,
    )
    TOO_MANY = 4429, "the gateway is full, or this party holds too many connections; try again later", False

    def __new__(cls, code: int, remedy: str, is_final: bool) -> Self:  # noqa: FBT001 - a row of the table
        """Make a member from its row."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.remedy = remedy
        member.is_final = is_final
        return member

    @classmethod
    def of(cls, code: int) -> Self | None:
        """Return the reason of this close code; None if it is not a gateway's."""
        return next((reason for reason in cls if reason.value == code), None)

    @property
    def word(self) -> str:
        """The stable word that is sent beside the code, and counted and logged."""
        return self.name.lower()


class GatewayClosedError(LinkError):
    """The gateway refused or closed the connection, and said why.

    Attributes:
        reason: Why.
    """

    code = "gateway_closed"
    public = "the relay closed the connection"

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(f"the gateway closed the connection ({reason.value} {reason.word}): {reason.remedy}")
        self.reason = reason
