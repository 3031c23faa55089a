"""The one way in which the gateway says no."""

from splitlearn.link import CloseReason


class Refusal(Exception):  # noqa: N818 - it is told to the peer as a close reason, not reported as a failure
    """A connection is not admitted, or not served any longer.

    Attributes:
        reason: What the peer is told.
        detail: What only the log is told.
    """

    def __init__(self, reason: CloseReason, detail: str = "") -> None:
        super().__init__(f"{reason.word}: {detail}")
        self.reason = reason
        self.detail = detail
