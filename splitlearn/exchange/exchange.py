"""One conversation over as many connections as it takes.

The protocol object decides; this one only moves bytes: a reader and a writer per connection, and a
loop that opens the next connection when one is lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from splitlearn.channel import (
    DowngradedSuiteError,
    LowOrderShareError,
    MisboundIdentityError,
    StaleEpochError,
    SupersededError,
    UnknownSuiteError,
    WrongJobError,
    WrongKeyError,
    WrongPeerError,
    WrongReplicaError,
    WrongSpecError,
)
from splitlearn.errors import (
    ChannelError,
    IdentityError,
    LinkError,
    ProtocolError,
    TrunklineError,
    WireError,
)
from splitlearn.exchange.traffic import Traffic
from splitlearn.link import Connect, Link
from splitlearn.protocol import Conversation, Established, Received, TrunkProtocol
from splitlearn.wire import Message

DEFAULT_PATIENCE_SECONDS = 600.0
DEFAULT_HANDSHAKE_SECONDS = 30.0
_HOPELESS = (
    IdentityError,
    DowngradedSuiteError,
    LowOrderShareError,
    MisboundIdentityError,
    StaleEpochError,
    SupersededError,
    UnknownSuiteError,
    WrongJobError,
    WrongKeyError,
    WrongPeerError,
    WrongReplicaError,
    WrongSpecError,
)
_REFUSALS_KEPT = 16
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_IN_TOUCH_SECONDS = 0.5
"""After a session that was established: the peer is there, and long pauses would use up its patience."""


def _utc_now() -> datetime:
    return datetime.now(tz=UTC)


class PeerAwayError(LinkError):
    """The other side of a conversation was away for longer than patience."""

    code = "peer_away"
    public = "the other side was away for too long"


class Exchange:
    """Sends and receives the messages of one conversation; an async context manager.

    Args:
        protocol: The side's conversation.
        connect: Opens the next connection (a silo dials, a worker waits to be dialled).
        peer: Name of the other side, for messages to people.
        patience_seconds: Without a message for so long after a loss, the peer is given up; infinity where
            somebody else decides that.
        handshake_seconds: A connection without a session after so long is dropped for another.
        now: Time for certificates.
    """

    def __init__(
        self,
        protocol: Conversation,
        *,
        connect: Connect,
        peer: str,
        patience_seconds: float = DEFAULT_PATIENCE_SECONDS,
        handshake_seconds: float = DEFAULT_HANDSHAKE_SECONDS,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.protocol = protocol
        self.peer = peer
        self.traffic = Traffic()
        self.refusals: deque[TrunklineError] = deque(maxlen=_REFUSALS_KEPT)  # anybody may knock, for ever
        self._connect = connect
        self._patience_seconds = patience_seconds
        self._handshake_seconds = min(handshake_seconds, patience_seconds)
        self._now = now
        self._inbox: asyncio.Queue[Received] = asyncio.Queue()
        self._changed = asyncio.Condition()
        self._to_write = asyncio.Event()
        self._is_writing = False
        self._failure: Exception | None = None
        self._lost_at: float | None = None
        self._last_refusal: TrunklineError | None = None
        self._last_loss = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin connecting."""
        self._lost_at = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(), name=f"exchange with {self.peer}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the connection and stop."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def last_refusal(self) -> str:
        """What to add to a sentence about a peer that is missing: who was turned away, or why none came."""
        return f", last refused: {self.refusals[-1].message}" if self.refusals else self._last_loss

    async def send(self, message: Message) -> None:
        """Hand over a message; waits while the window is full, not for its delivery.

        Raises:
            TrunklineError: The conversation has failed for good.
            LocalProtocolError: It may not be said now: our fault, or a message that :attr:`has_received`
                tells of has changed what may be said.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or self.protocol.has_room)
            self._raise_failure()
            self.protocol.send(message)
        self._to_write.set()

    async def receive(self) -> Received:
        """Return the next message of the peer.

        Raises:
            TrunklineError: The conversation has failed for good, and every earlier message was taken.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or not self._inbox.empty())
            if not self._inbox.empty():
                return self._inbox.get_nowait()
            self._raise_failure()
            raise AssertionError("woken without a reason")

    @property
    def has_received(self) -> bool:
        """A message of the peer lies here that :meth:`receive` has not handed out."""
        return not self._inbox.empty()

    async def delivered(self) -> None:
        """Wait until the peer is known to have opened everything, or until there is no more hope.

        Only an answer can tell; after a last message (Goodbye) use :meth:`flushed`.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or self.protocol.is_answered)

    async def flushed(self) -> None:
        """Wait until everything is handed to the connection, if there is one."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    self._failure is not None
                    or not self.protocol.is_established
                    or not (self._to_write.is_set() or self._is_writing)
                )
            )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        try:
            pause_seconds = _FIRST_PAUSE_SECONDS
            while True:
                pause_seconds = min(pause_seconds, await self._live_on_one_connection())
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - whoever waits for a message must learn of a bug too
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        async with self._changed:
            self._failure = error
            self._changed.notify_all()

    async def _live_on_one_connection(self) -> float:
        """Return the longest pause that may follow it, in seconds."""
        link = await self._open_link()
        if link is None:
            return _LONGEST_PAUSE_SECONDS
        self.traffic.connections += 1
        self.protocol.connection_made(self._now())
        self._to_write.set()
        writer = asyncio.create_task(self._write(link))
        was_established = False
        try:
            was_established = await self._read(link)
        finally:
            writer.cancel()
            [outcome] = await asyncio.gather(writer, return_exceptions=True)
            self._is_writing = False
            await link.close()
            if isinstance(outcome, Exception):  # a bug of ours: a cancelled writer is no Exception
                raise outcome
        async with self._changed:
            self._changed.notify_all()  # nothing more can be handed to this connection
        if self._lost_at is None:  # a message came
            return _FIRST_PAUSE_SECONDS
        return _LONGEST_PAUSE_IN_TOUCH_SECONDS if was_established else _LONGEST_PAUSE_SECONDS

    async def _open_link(self) -> Link | None:
        remaining = self._remaining_seconds()
        if remaining <= 0:
            raise self._given_up()
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation, and close() would hang.
            async with asyncio.timeout(remaining):
                return await self._connect()
        except TimeoutError as error:
            raise self._given_up() from error
        except LinkError as error:
            self._last_loss = f", last tried: {error.message}"
            if self._remaining_seconds() <= 0:
                raise self._given_up() from error
            return None

    def _remaining_seconds(self) -> float:
        if self._lost_at is None:
            self._lost_at = asyncio.get_running_loop().time()
        return self._lost_at + self._patience_seconds - asyncio.get_running_loop().time()

    def _given_up(self) -> PeerAwayError:
        return PeerAwayError(
            f"{self.peer} was away for {self._patience_seconds:g} seconds (patience_seconds)"
            f"{self.last_refusal}; see that it runs and can be reached, "
            "then resume the job"
        )

    async def _read(self, link: Link) -> bool:
        """Read until the connection ends; return whether a session was established on it."""
        was_established = False
        try:
            async with asyncio.timeout(self._handshake_seconds) as handshake:
                while True:
                    data = await link.receive()
                    await self._take(data)
                    if self.protocol.is_established and not was_established:
                        was_established = True
                        handshake.reschedule(None)
        except (LinkError, TimeoutError):
            self.protocol.connection_lost()
        except (ChannelError, IdentityError, WireError, ProtocolError) as error:
            self._judge(error, was_established=was_established)
        return was_established

    async def _take(self, data: bytes | bytearray | memoryview) -> None:
        """Take in what came; whoever finds the protocol moved by it finds the message in the inbox, too."""
        async with self._changed:
            self.protocol.receive_whole(data)
            self.traffic.count(len(data), self.protocol.phase)
            self._to_write.set()
            self._publish()

    def _judge(self, error: TrunklineError, *, was_established: bool) -> None:
        """Decide whether another connection can help; raises ``error`` if not.

        What comes over a link is anybody's until it opens. Damage on the way is repaired by the next
        session, and at the worker anybody may knock. A peer that proved itself and then broke the rules,
        or whose proof or terms are twice not those that this silo was told, stays what it is.
        """
        self.refusals.append(error)
        if isinstance(error, ProtocolError):
            raise error
        if was_established or isinstance(self.protocol, TrunkProtocol) or not isinstance(error, _HOPELESS):
            return
        # Names and numbers of a handshake can be damaged as well, but hardly the same ones again.
        if type(error) is type(self._last_refusal):
            raise error
        self._last_refusal = error

    def _publish(self) -> None:
        for event in self.protocol.events():
            match event:
                case Established():
                    self.traffic.resent_messages += event.resent_messages
                case Received():
                    self._lost_at = self._last_refusal = None
                    self._last_loss = ""
                    self._inbox.put_nowait(event)
        self._changed.notify_all()

    async def _write(self, link: Link) -> None:
        try:
            while True:
                await self._to_write.wait()
                # Cleared first: what is said while a frame is on its way sets it again.
                self._to_write.clear()
                self._is_writing = True
                for frame in self.protocol.data_to_send():
                    self.traffic.count(len(frame), self.protocol.phase)
                    await link.send(frame)
                self._is_writing = False
                async with self._changed:
                    self._changed.notify_all()
        except LinkError:
            pass
        finally:
            await link.close()  # the reader learns there of whatever ended this
