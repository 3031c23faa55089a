"""Proxies of the tests' own on the loopback: what lies between sites, with all its faults."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from splitlearn.processes import free_port

_CHUNK_BYTES = 1 << 16
_LONG_LENGTH, _LONGER_LENGTH, _MASKED, _BINARY = 126, 127, 0x80, 0x82
_HTML = b"<html><body><h1>upstream</h1></body></html>"


class _Proxy:
    """Listens on a free port in a thread of its own; a context manager.

    Args:
        target_port: Of the program behind it.
    """

    def __init__(self, target_port: int) -> None:
        self.port, self._target_port = free_port(), target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def drop_all(self) -> None:
        """Break every connection that stands."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        await self._drop()

    async def _drop(self) -> None:
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def _upstream(self) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def _both(*directions: Any) -> None:
    """Run both directions until one ends."""
    tasks = [asyncio.ensure_future(each) for each in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()


@dataclass(frozen=True)
class Weather:
    """What a line does to the bytes of websockets.

    Attributes:
        cuts: The connection breaks at a random byte; None never.
        delay_seconds: Every chunk is late by so much.
        bytes_per_second: The line's rate, per direction; None for what the machine gives.
        repeat_every: Every so many binary messages one comes twice; 0 for none.
    """

    cuts: tuple[int, int] | None = None
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    repeat_every: int = 0


class Line(_Proxy):
    """What lies before the gateway; :attr:`weather` may change at any time.

    Attributes:
        num_cut: Connections that it has broken.
        num_repeated: Messages that it has sent twice.
    """

    def __init__(self, target_port: int, *, seed: int = 7) -> None:
        super().__init__(target_port)
        self.weather = Weather()
        self.num_cut = self.num_repeated = 0
        self._chance = random.Random(seed)
        self._num_messages = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._upstream() as (from_gateway, to_gateway):
            cuts = self.weather.cuts
            left = [self._chance.randint(*cuts)] if cuts else None
            await _both(
                self._carry(reader, to_gateway, left),
                self._carry(from_gateway, writer, left),
            )

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int] | None
    ) -> None:
        await self._forward(await reader.readuntil(b"\r\n\r\n"), writer, left)
        while True:
            frame = await _read_frame(reader)
            times = 2 if self._is_to_repeat(frame) else 1
            for _ in range(times):
                await self._forward(frame, writer, left)

    def _is_to_repeat(self, frame: bytes) -> bool:
        every = self.weather.repeat_every
        if not every or frame[0] != _BINARY:
            return False
        self._num_messages += 1
        is_to_repeat = self._num_messages % every == 0
        self.num_repeated += is_to_repeat
        return is_to_repeat

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, left: list[int] | None) -> None:
        if left is not None and self.weather.cuts and len(data) >= left[0]:
            writer.write(data[: left[0]])
            await writer.drain()
            self.num_cut += 1
            raise ConnectionResetError("the line broke")
        if left is not None:
            left[0] -= len(data)
        rate = self.weather.bytes_per_second
        await asyncio.sleep(self.weather.delay_seconds + (len(data) / rate if rate else 0))
        writer.write(data)
        await writer.drain()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return one websocket frame (RFC 6455, section 5.2), as it is."""
    head = await reader.readexactly(2)
    length = head[1] & ~_MASKED
    more = {_LONG_LENGTH: 2, _LONGER_LENGTH: 8}.get(length, 0)
    extended = await reader.readexactly(more)
    if more:
        length = int.from_bytes(extended, "big")
    mask = await reader.readexactly(4 if head[1] & _MASKED else 0)
    return head + extended + mask + await reader.readexactly(length)


Mood = Literal["pass", "502", "503", "504", "truncated", "hung"]


class Front(_Proxy):
    """What stands before the API; :attr:`mood` says what it answers.

    ``truncated`` passes the question on, and half of the answer: whatever was asked for was done.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._mood: Mood = "pass"
        self.num_answered = 0

    @property
    def mood(self) -> Mood:
        """What it does now."""
        return self._mood

    @mood.setter
    def mood(self, mood: Mood) -> None:
        self._mood, self.num_answered = mood, 0
        self.drop_all()  # so that the next question on every connection meets it

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handle: dict[Mood, Callable[..., Any]] = {
            "pass": self._pass,
            "truncated": self._truncate,
            "hung": self._hang,
        }
        await handle.get(self._mood, self._answer)(reader, writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._upstream() as (from_api, to_api):
            await _both(_pass_on(reader, to_api), _pass_on(from_api, writer))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.num_answered += 1
        head = f"HTTP/1.1 {self._mood} Upstream\r\nContent-Type: text/html\r\nConnection: close\r\n"
        writer.write(head.encode() + f"Content-Length: {len(_HTML)}\r\n\r\n".encode() + _HTML)
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(1)  # time to read it, before the connection is broken off

    async def _truncate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._upstream() as (from_api, to_api):
            asking = asyncio.ensure_future(_pass_on(reader, to_api))
            try:
                answer = await from_api.readuntil(b"\r\n\r\n") + await from_api.read(_CHUNK_BYTES)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            self.num_answered += 1
            writer.write(answer[: len(answer) - max(1, len(answer) // 4)])
            await writer.drain()

    async def _hang(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.num_answered += 1
        await asyncio.Event().wait()  # until the mood changes, and the connection is broken off
