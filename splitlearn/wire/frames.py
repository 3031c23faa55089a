"""A byte stream cut into frames. Sans-I/O: bytes in, frames out."""

from dataclasses import dataclass, field

from splitlearn.errors import LocalProtocolError
from splitlearn.wire.envelope import ENVELOPE_BYTES, Buffer, Envelope
from splitlearn.wire.errors import FrameError
from splitlearn.wire.limits import Limits


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as received.

    Attributes:
        envelope: The header, read.
        header: The header's 64 bytes, which the seal authenticates.
        body: The bytes behind it. A view: of the chunk if that held the whole frame, so the chunk must
            not be overwritten while the frame is in use.
    """

    envelope: Envelope
    header: bytes
    body: memoryview = field(repr=False)


class FrameDecoder:
    """Cuts a stream into frames, whatever chunks it arrives in.

    Args:
        limits: ``max_frame_bytes`` and ``max_message_bytes`` are compared with each envelope before
            anything of that size is held.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._partial = bytearray()
        self._filled = 0
        self._envelope: Envelope | None = None
        self._spoiled = False

    def feed(self, chunk: Buffer) -> list[Frame]:
        """Take the next bytes of the stream.

        Returns:
            The frames that they complete, in order. A frame that lies whole in the chunk is not copied.

        Raises:
            FrameError: No envelope of ours; the peer's fault. The stream is of no use any more: close
                the connection. Frames of the same chunk before the fault are dropped with it, and are
                sent again after reconnection like all that was not opened.
            LimitError: A frame or message larger than the limits.
            LocalProtocolError: Called again after such an error; our fault.
        """
        if self._spoiled:
            raise LocalProtocolError("this stream was refused before; open another connection")
        self._spoiled = True
        view = memoryview(chunk).cast("B")
        frames, offset = [], 0
        while offset < len(view):
            frame, offset = self._next(view, offset)
            if frame is not None:
                frames.append(frame)
        self._spoiled = False
        return frames

    def finish(self) -> None:
        """Declare the stream ended.

        Raises:
            FrameError: It ended inside a frame.
        """
        if self._filled:
            raise FrameError(
                f"the stream ends {self._filled} bytes into a frame of {self._wanted} bytes or more"
            )

    @property
    def _wanted(self) -> int:
        return ENVELOPE_BYTES + (self._envelope.body_bytes if self._envelope else 0)

    def _next(self, view: memoryview, offset: int) -> tuple[Frame | None, int]:
        """Take one step: a whole frame from the chunk, or a piece of the partial one."""
        if not self._filled and len(view) - offset >= ENVELOPE_BYTES:
            envelope = self._judged(view[offset : offset + ENVELOPE_BYTES])
            end = offset + ENVELOPE_BYTES + envelope.body_bytes
            if end <= len(view):
                return _frame(envelope, view[offset:end]), end
        offset = self._gather(view, offset)
        if self._filled == ENVELOPE_BYTES and self._envelope is None:
            self._envelope = self._judged(memoryview(self._partial)[:ENVELOPE_BYTES])
        if self._envelope is None or self._filled < self._wanted:
            return None, offset
        frame = _frame(self._envelope, memoryview(self._partial))
        self._partial, self._filled, self._envelope = bytearray(), 0, None
        return frame, offset

    def _gather(self, view: memoryview, offset: int) -> int:
        """Copy from the chunk what the partial frame still lacks; return where the chunk goes on."""
        if len(self._partial) < self._wanted:
            whole = bytearray(self._wanted)
            whole[: self._filled] = self._partial[: self._filled]
            self._partial = whole
        taken = min(self._wanted - self._filled, len(view) - offset)
        self._partial[self._filled : self._filled + taken] = view[offset : offset + taken]
        self._filled += taken
        return offset + taken

    def _judged(self, header: memoryview) -> Envelope:
        envelope = Envelope.unpack(header)
        size = ENVELOPE_BYTES + envelope.body_bytes
        self._limits.check("max_frame_bytes", size, what="the size of a frame in bytes")
        self._limits.check("max_message_bytes", envelope.message_bytes, what="the size of a message in bytes")
        return envelope


def _frame(envelope: Envelope, whole: memoryview) -> Frame:
    return Frame(envelope=envelope, header=bytes(whole[:ENVELOPE_BYTES]), body=whole[ENVELOPE_BYTES:])
