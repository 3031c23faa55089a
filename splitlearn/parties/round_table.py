"""The worker's conversations with all silos, as one place to listen and speak."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from splitlearn.errors import LocalProtocolError, ProtocolError, TrainingError, TrunklineError
from splitlearn.exchange import Exchange, PeerAwayError
from splitlearn.protocol import State
from splitlearn.wire import Goodbye, Message, TurnRequest

M = TypeVar("M", bound=Message)


class SiloAwayError(TrainingError):
    """A silo made no progress within patience, or could not be reached for so long.

    Args:
        message: What was seen, and the remedy.
        silos: Their names.
    """

    code = "silo_away"
    public = "a silo made no progress for too long"

    def __init__(self, message: str, *, silos: Collection[str]) -> None:
        super().__init__(message)
        self.silos = tuple(sorted(silos))


class SiloLeftError(TrainingError):
    """A silo took its leave before the end; it tells the control plane why."""

    code = "silo_left"
    public = "a silo left the job"


class RoundTable:
    """Listens to every silo at once; an async context manager.

    Args:
        exchanges: The conversation with each silo, begun, by name.
        patience_seconds: Longest wait for a message that is due.
    """

    def __init__(self, exchanges: Mapping[str, Exchange], *, patience_seconds: float) -> None:
        self._exchanges = exchanges
        self._patience_seconds = patience_seconds
        self._heard: asyncio.Queue[tuple[str, Message | Exception]] = asyncio.Queue()
        self._early: deque[tuple[str, Message]] = deque()
        self._listeners: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        self._listeners = [
            asyncio.create_task(self._listen(name, exchange)) for name, exchange in self._exchanges.items()
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        for listener in self._listeners:
            listener.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)

    async def send(self, name: str, message: Message) -> None:
        """Say something to one silo.

        Raises:
            TrainingError: It has left the job, or was away for longer than patience (``SiloAwayError``).
            TrunklineError: Its conversation failed for good.
        """
        exchange = self._exchanges[name]
        try:
            await exchange.send(message)
        except PeerAwayError as error:
            raise SiloAwayError(error.message, silos=[name]) from error
        except LocalProtocolError:
            if exchange.protocol.state is not State.OVER:
                raise
            await self._learn_why_it_left(name)

    async def send_all(self, names: Iterable[str], message: Message) -> None:
        """Say the same to several silos."""
        for name in names:
            await self.send(name, message)

    async def next(self, due: Collection[str]) -> tuple[str, Message]:
        """Return the next message of any of the silos that are due.

        Args:
            due: Silos whose message is awaited now. What another says keeps until it is due.

        Raises:
            SiloAwayError: None of them said anything within patience.
            TrainingError: A silo left the job.
            TrunklineError: A conversation failed for good.
        """
        for index, (name, message) in enumerate(self._early):
            if name in due:
                del self._early[index]
                return name, message
        while True:
            name, message = await self._hear(due)
            if name in due:
                return name, message
            if isinstance(message, Goodbye):
                raise unexpected(name, message)
            self._early.append((name, message))

    async def collect(self, names: Iterable[str], kind: type[M]) -> dict[str, M]:
        """Wait until each silo has said a message of one kind; returned in the order of ``names``.

        Raises:
            ProtocolError: A silo said another.
            TrainingError: A silo is late, or left the job.
        """
        roster = tuple(names)
        collected: dict[str, M] = {}
        while len(collected) < len(roster):
            name, message = await self.next([name for name in roster if name not in collected])
            if not isinstance(message, kind):
                raise unexpected(name, message)
            collected[name] = message
        return {name: collected[name] for name in roster}

    async def _listen(self, name: str, exchange: Exchange) -> None:
        try:
            while True:
                message = (await exchange.receive()).message
                if not isinstance(message, TurnRequest):  # the protocol has answered it
                    self._heard.put_nowait((name, message))
        except Exception as error:  # noqa: BLE001 - raised again where the messages are awaited
            self._heard.put_nowait((name, error))

    async def _learn_why_it_left(self, name: str) -> NoReturn:
        """A silo left while we computed: its goodbye is among what has come, not yet taken."""
        while True:
            _, message = await self.next({name})
            if isinstance(message, Goodbye):
                raise unexpected(name, message)

    async def _hear(self, due: Collection[str]) -> tuple[str, Message]:
        try:
            async with asyncio.timeout(self._patience_seconds):
                name, heard = await self._heard.get()
        except TimeoutError as error:
            missing = [f"silo {name!r}{self._exchanges[name].last_refusal}" for name in sorted(due)]
            raise SiloAwayError(
                f"no progress for {self._patience_seconds:g} seconds (patience_seconds): waiting for "
                f"{'; '.join(missing)}; see that it runs, then resume the job",
                silos=due,
            ) from error
        if isinstance(heard, PeerAwayError):
            raise SiloAwayError(heard.message, silos=[name]) from heard
        if isinstance(heard, Exception):
            raise heard
        return name, heard


def unexpected(name: str, message: Message) -> TrunklineError:
    """Return the error for a message that the conversation allows but this moment does not await."""
    if isinstance(message, Goodbye):
        return SiloLeftError(
            f"silo {name!r} left the job ({message.reason.name.lower()}); see its log, then resume the job"
        )
    return ProtocolError(f"silo {name!r} sent {type(message).__name__} where none was awaited")
