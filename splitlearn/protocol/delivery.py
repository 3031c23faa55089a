"""Every message is delivered once and in order, over as many connections as it takes.

The sender keeps a message, encoded, until the receiver is known to have opened it: a later message
of the receiver says so (``ack``), or its resume point after a reconnection. Nothing is ever computed
a second time for a connection that broke.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from splitlearn.errors import LocalProtocolError
from splitlearn.protocol.errors import (
    IllegalMessageError,
    MalformedMessageError,
    ResumeImpossibleError,
    WindowExceededError,
)
from splitlearn.wire import Envelope, Limits


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the job a message belongs; stands in the clear on its envelope.

    Attributes:
        round: Round, counted from 1; 0 before the first.
        step: Global optimiser step of a training turn; number of the batch in an evaluation.
    """

    round: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """One sent message, kept until it is known to be opened."""

    message_seq: int
    position: Position
    encoded: bytearray


class Outbox:
    """The sender's side of one direction.

    Args:
        window: Messages that may be on their way at once.
    """

    def __init__(self, *, window: int) -> None:
        self._window = window
        self._kept: deque[Kept] = deque()
        self.last_sent = 0

    @property
    def has_room(self) -> bool:
        """Another message may be sent before the peer is heard of."""
        return len(self._kept) < self._window

    @property
    def kept(self) -> tuple[Kept, ...]:
        """The messages that the peer may not have opened yet, oldest first."""
        return tuple(self._kept)

    def keep(self, encoded: bytearray, position: Position) -> Kept:
        """Number a message and keep it.

        Raises:
            LocalProtocolError: The window is full; wait for the peer before sending.
        """
        if not self.has_room:
            raise LocalProtocolError(f"{self._window} messages are unanswered; wait before sending more")
        self.last_sent += 1
        kept = Kept(self.last_sent, position, encoded)
        self._kept.append(kept)
        return kept

    def acknowledge(self, last_opened: int) -> None:
        """Let go of every message up to ``last_opened``.

        Raises:
            IllegalMessageError: The peer claims to have opened what was never sent.
        """
        if last_opened > self.last_sent:
            raise IllegalMessageError(f"message {last_opened} was acknowledged, {self.last_sent} were sent")
        while self._kept and self._kept[0].message_seq <= last_opened:
            self._kept.popleft()

    def resume(self, last_opened: int) -> tuple[Kept, ...]:
        """Return, in order, exactly the messages that the peer has not opened.

        Raises:
            ResumeImpossibleError: The peer has lost messages that it had opened, or claims others.
        """
        first_kept = self._kept[0].message_seq if self._kept else self.last_sent + 1
        if not first_kept - 1 <= last_opened <= self.last_sent:
            raise ResumeImpossibleError(
                f"the peer resumes after message {last_opened}, but {first_kept - 1} to {self.last_sent} "
                "is what can be resumed; both sides go back to their last common round in a new epoch"
            )
        self.acknowledge(last_opened)
        return self.kept


class Inbox:
    """The receiver's side of one direction: puts a message together from its fragments.

    Args:
        limits: Its ``max_message_bytes`` bounds the memory that a peer can make us take.
        window: Messages that the peer may send before it hears from us.
    """

    def __init__(self, *, limits: Limits, window: int) -> None:
        self._limits = limits
        self._window = window
        self._told = 0
        self._message = bytearray()
        self._filled = 0
        self._first: Envelope | None = None
        self.last_opened = 0

    def room_for(self, envelope: Envelope, plaintext_bytes: int) -> memoryview:
        """Return the place that this fragment's plaintext belongs to.

        Raises:
            IllegalMessageError: It is not the next fragment of the next message.
            WindowExceededError: The peer did not wait for us.
            MalformedMessageError: Its message is larger than the limit, or it overruns its message.
        """
        if envelope.message_seq != self.last_opened + 1:
            raise IllegalMessageError(
                f"message {envelope.message_seq} arrived, the next is {self.last_opened + 1}"
            )
        if envelope.message_seq > self._told + self._window:
            raise WindowExceededError(
                f"message {envelope.message_seq} arrived, of {self._told} the peer was told, "
                f"the window is {self._window}"
            )
        if self._first is None:
            self._begin(envelope)
        self._check_continues(envelope, plaintext_bytes)
        return memoryview(self._message)[self._filled : self._filled + plaintext_bytes]

    def fill(self, plaintext_bytes: int) -> bytearray | None:
        """Note that the place was filled; returns the message once it is whole."""
        self._filled += plaintext_bytes
        if self._filled < len(self._message):
            return None
        message = self._message
        self.last_opened += 1
        self.forget_fragments()
        return message

    def tell(self) -> int:
        """Return the last message opened, and note that the peer is being told."""
        self._told = self.last_opened
        return self.last_opened

    def forget_fragments(self) -> None:
        """The connection broke inside a message: it will be sent again from its beginning."""
        self._message, self._filled, self._first = bytearray(), 0, None

    def _begin(self, envelope: Envelope) -> None:
        if not 0 < envelope.message_bytes <= self._limits.max_message_bytes:
            raise MalformedMessageError(
                f"a message of {envelope.message_bytes} bytes, the limit is {self._limits.max_message_bytes}"
            )
        self._first = envelope
        self._message = bytearray(envelope.message_bytes)

    def _check_continues(self, envelope: Envelope, plaintext_bytes: int) -> None:
        first = self._first
        assert first is not None
        same = (first.round, first.step, first.message_bytes)
        if (envelope.round, envelope.step, envelope.message_bytes) != same:
            raise IllegalMessageError("a fragment changed its message's round, step or size")
        if envelope.fragment_offset != self._filled:
            raise IllegalMessageError(
                f"a fragment begins at byte {envelope.fragment_offset}, the next byte is {self._filled}"
            )
        if plaintext_bytes == 0 or self._filled + plaintext_bytes > envelope.message_bytes:
            raise MalformedMessageError(f"a fragment of {plaintext_bytes} bytes does not fit its message")


def fragments(encoded: bytearray, *, max_bytes: int) -> Iterator[tuple[int, memoryview]]:
    """Yield ``(offset, piece)`` over an encoded message, each piece at most ``max_bytes`` long."""
    whole = memoryview(encoded)
    for offset in range(0, len(encoded), max_bytes):
        yield offset, whole[offset : offset + max_bytes]
