"""What the gateway looks at in a frame: its envelope, and nothing behind it."""

from backend.gateway.refusal import Refusal
from backend.gateway.tickets import Ticket
from splitlearn.link import CloseReason
from splitlearn.wire import ENVELOPE_BYTES, Envelope, FrameError, job_tag


class FrameCheck:
    """Compares the envelopes of one side's frames with its ticket.

    Args:
        ticket: Of the side that sends.
    """

    def __init__(self, ticket: Ticket) -> None:
        told = ticket.conversation
        self._due = (ticket.role.direction, told.replica, told.epoch, job_tag(told.job))

    def check(self, frame: bytes) -> None:
        """Let one whole frame pass.

        Raises:
            Refusal: ``BAD_FRAME``: no envelope of ours, another length than announced, or the direction,
                job, replica or epoch is not the ticket's.
        """
        try:
            envelope = Envelope.unpack(memoryview(frame)[:ENVELOPE_BYTES])
        except FrameError as error:
            raise Refusal(CloseReason.BAD_FRAME, error.message) from error
        if envelope.body_bytes != len(frame) - ENVELOPE_BYTES:
            raise Refusal(
                CloseReason.BAD_FRAME,
                f"it announces {envelope.body_bytes} bytes and brings {len(frame) - ENVELOPE_BYTES}",
            )
        found = (envelope.direction, envelope.replica, envelope.epoch, envelope.job_tag)
        if found != self._due:
            raise Refusal(CloseReason.BAD_FRAME, "its direction, job, replica or epoch is not the ticket's")
