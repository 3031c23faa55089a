"""The sans-I/O conversation: bytes in, commands in; events out, bytes out.

Neither socket nor clock nor thread: the program that runs it opens connections, hands received bytes
to :meth:`Conversation.receive_data`, sends what :meth:`Conversation.data_to_send` returns, and acts on
:meth:`Conversation.events`.
"""

from abc import ABC, abstractmethod
from collections import deque
from datetime import datetime

from splitlearn.channel import Established as Handshaken
from splitlearn.channel import ResumePoint, SealedSession, UnexpectedKindError
from splitlearn.errors import LocalProtocolError, TrunklineError, WireError
from splitlearn.protocol.delivery import Inbox, Kept, Outbox, Position, fragments
from splitlearn.protocol.errors import MalformedMessageError
from splitlearn.protocol.events import Established, Event, Received
from splitlearn.protocol.rules import Rules
from splitlearn.protocol.states import State
from splitlearn.wire import (
    TAG_BYTES,
    Codec,
    Direction,
    Frame,
    FrameDecoder,
    Kind,
    Limits,
    Message,
    Phase,
    decode_message,
    encode_message,
    set_ack,
)

DEFAULT_WINDOW = 16
SERVED_PHASES = frozenset({Phase.TRAIN, Phase.EVAL})
"""What either side serves in a job."""
GENERATION_PHASES = frozenset({Phase.GENERATE})
"""What both sides of a conversation for generation serve."""


class Conversation(ABC):
    """What both sides share; use :class:`SiloProtocol` or :class:`TrunkProtocol`.

    Args:
        rules: This side's rules.
        sends: The direction this side sends in.
        codec: How both sides encode tensors; a message in another is refused.
        limits: What this side accepts; larger input is refused before memory is given to it.
        window: Messages that may be on their way unopened, per direction.
    """

    def __init__(
        self, *, rules: Rules, sends: Direction, codec: Codec, limits: Limits | None, window: int
    ) -> None:
        self._rules = rules
        self._sends = sends
        self._codec = codec
        self._limits = limits or Limits()
        self._outbox = Outbox(window=window)
        self._inbox = Inbox(limits=self._limits, window=window)
        self._decoder = FrameDecoder(self._limits)
        self._session: SealedSession | None = None
        self._last_sealed = 0
        self._outgoing: deque[bytearray | bytes] = deque()
        self._events: deque[Event] = deque()

    @property
    def state(self) -> State:
        """Where this side stands."""
        return self._rules.state

    @property
    def phase(self) -> Phase | None:
        """The phase of the current turn, or of the last one of this round; None between rounds."""
        return self._rules.phase

    @property
    def is_established(self) -> bool:
        """A sealed session stands on the current connection."""
        return self._session is not None

    @property
    def has_room(self) -> bool:
        """Another message may be sent."""
        return self._outbox.has_room

    @property
    def is_answered(self) -> bool:
        """The peer is known to have opened every message of ours."""
        return not self._outbox.kept

    def connection_made(self, now: datetime) -> None:
        """A new connection stands: begin a new handshake on it.

        Args:
            now: Time against which certificates are checked; timezone-aware.
        """
        self.connection_lost()
        self._begin_handshake(now)

    def connection_lost(self) -> None:
        """The connection is gone; messages keep until the next one."""
        if self._session is not None:
            self._session.close()
        self._session = None
        self._decoder = FrameDecoder(self._limits)
        self._inbox.forget_fragments()
        self._outgoing.clear()

    def receive_data(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take in received bytes, cut anywhere.

        Raises:
            WireError: The bytes are no frames of ours, or over a limit; nobody knows yet who sent them.
            ChannelError, IdentityError: The handshake or a frame is refused.
            ProtocolError: The peer broke the conversation's rules.

        After any of these the session is closed; only ``connection_made`` helps.
        """
        try:
            for frame in self._decoder.feed(chunk):
                if frame.envelope.kind is Kind.SEALED:
                    self._receive_sealed(frame)
                else:
                    self._receive_handshake(frame)
        except TrunklineError:
            self.connection_lost()
            raise

    def receive_whole(self, frames: bytes | bytearray | memoryview) -> None:
        """Take in what a link delivered at once: whole frames. Else as :meth:`receive_data`.

        Raises:
            FrameError: The last frame says that it is longer. Its sender would wait with us for the rest.
        """
        self.receive_data(frames)
        try:
            self._decoder.finish()
        except WireError:
            self.connection_lost()
            raise

    def send(self, message: Message) -> None:
        """Say something; it is delivered on this connection or a later one.

        Raises:
            LocalProtocolError: It may not be said now, or the window is full.
        """
        if not self._outbox.has_room:
            raise LocalProtocolError("the window is full; wait for has_room")
        encoded = encode_message(message, codec=self._codec, ack=self._inbox.last_opened, limits=self._limits)
        position = self._rules.send(message)
        self._inbox.tell()
        kept = self._outbox.keep(encoded, position)
        if self._session is not None:
            self._seal(kept)

    def data_to_send(self) -> list[bytearray | bytes]:
        """Return the frames that are ready, each to be sent whole and in order, and forget them."""
        frames = list(self._outgoing)
        self._outgoing.clear()
        return frames

    def events(self) -> list[Event]:
        """Return what has happened since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    @abstractmethod
    def _begin_handshake(self, now: datetime) -> None:
        """Make this side ready for a handshake on a new connection."""

    @abstractmethod
    def _receive_handshake(self, frame: Frame) -> None:
        """Take one of the peer's handshake frames."""

    @abstractmethod
    def _on_received(self, message: Message) -> None:
        """React to a message by the rules of this side."""

    def _resume_point(self) -> ResumePoint:
        return ResumePoint(last_opened=self._inbox.tell())

    def _establish(self, handshaken: Handshaken) -> None:
        again = self._outbox.resume(handshaken.peer_resume.last_opened)
        self._session = handshaken.session
        resent = sum(kept.message_seq <= self._last_sealed for kept in again)
        self._events.append(Established(resent_messages=resent))
        for kept in again:
            set_ack(kept.encoded, self._inbox.tell())
            self._seal(kept)

    def _seal(self, kept: Kept) -> None:
        assert self._session is not None
        self._last_sealed = max(self._last_sealed, kept.message_seq)
        for offset, piece in fragments(kept.encoded, max_bytes=self._limits.max_fragment_bytes):
            frame = self._session.seal(
                piece,
                round_number=kept.position.round,
                step=kept.position.step,
                message_seq=kept.message_seq,
                fragment_offset=offset,
                message_bytes=len(kept.encoded),
            )
            self._outgoing.append(frame)

    def _receive_sealed(self, frame: Frame) -> None:
        if self._session is None:
            raise UnexpectedKindError("a sealed frame arrived before the handshake was finished")
        plaintext_bytes = max(len(frame.body) - TAG_BYTES, 0)
        try:
            place = self._inbox.room_for(frame.envelope, plaintext_bytes)
        except TrunklineError:
            self._session.open(frame)  # a frame that is not the peer's own is not the peer's fault
            raise
        self._session.open_into(frame, place)
        place.release()
        encoded = self._inbox.fill(plaintext_bytes)
        if encoded is not None:
            self._open(encoded, Position(round=frame.envelope.round, step=frame.envelope.step))

    def _open(self, encoded: bytearray, position: Position) -> None:
        receives = (
            Direction.TRUNK_TO_SILO if self._sends is Direction.SILO_TO_TRUNK else Direction.SILO_TO_TRUNK
        )
        try:
            message, ack = decode_message(encoded, limits=self._limits, direction=receives, codec=self._codec)
        except WireError as error:
            raise MalformedMessageError(f"an authentic message cannot be read: {error}") from error
        self._outbox.acknowledge(ack)
        if self._rules.receive(message, position):
            self._events.append(Received(message, position))
            self._on_received(message)
