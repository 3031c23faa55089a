"""Every transport passes the same suite."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from backend.gateway import Gateway, Role
from splitlearn.errors import LinkError
from splitlearn.link import Link, WebsocketListener, connect_gateway, connect_websocket, memory_pair
from splitlearn.wire import ENVELOPE_BYTES, Direction, Limits
from tests.unit.gateway.conftest import frame as gateway_frame
from tests.unit.gateway.conftest import gateway_settings, silo_ticket, worker_ticket

MAX_FRAME_BYTES = 1 << 20
MAX_CONTENT_BYTES = MAX_FRAME_BYTES - ENVELOPE_BYTES


def bare(content: bytes, direction: Direction) -> bytes:  # noqa: ARG001 - see enveloped
    """A frame of a link that carries any bytes."""
    return content


def enveloped(content: bytes, direction: Direction) -> bytes:
    """A frame of a link that looks at envelopes."""
    role = Role.SILO if direction is Direction.SILO_TO_TRUNK else Role.WORKER
    return gateway_frame(role, content)


@dataclass(frozen=True)
class Ends:
    """Both ends of a link; the near one is the silo's."""

    near: Link
    far: Link
    wrap: Callable[[bytes, Direction], bytes] = bare

    def both_ways(self) -> list[tuple[Link, Link, Direction]]:
        return [
            (self.near, self.far, Direction.SILO_TO_TRUNK),
            (self.far, self.near, Direction.TRUNK_TO_SILO),
        ]

    def frame(self, content: bytes) -> bytes:
        """A frame for the near end to send."""
        return self.wrap(content, Direction.SILO_TO_TRUNK)


OpenEnds = Callable[[], AbstractAsyncContextManager[Ends]]


@asynccontextmanager
async def memory_ends() -> AsyncIterator[Ends]:
    near, far = memory_pair(max_queued_frames=4, max_frame_bytes=MAX_FRAME_BYTES)
    yield Ends(near, far)
    await near.close()


@asynccontextmanager
async def websocket_ends() -> AsyncIterator[Ends]:
    answered: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def accept(link: Link) -> None:
        answered.set_result(link)
        await over.wait()

    limits = Limits(max_frame_bytes=MAX_FRAME_BYTES)
    async with WebsocketListener(accept, limits=limits) as listener:
        near = await connect_websocket(listener.url, limits=limits)
        yield Ends(near, await answered)
        await near.close()
        over.set()


@asynccontextmanager
async def gateway_ends() -> AsyncIterator[Ends]:
    limits = Limits(max_frame_bytes=MAX_FRAME_BYTES)
    async with Gateway(gateway_settings(max_frame_bytes=MAX_FRAME_BYTES)) as gateway:
        near, far = await asyncio.gather(
            connect_gateway(gateway.url, ticket=silo_ticket(), limits=limits),
            connect_gateway(gateway.url, ticket=worker_ticket(), limits=limits),
        )
        yield Ends(near, far, enveloped)
        await near.close()
        await far.close()


@pytest.fixture(params=[memory_ends, websocket_ends, gateway_ends])
def open_ends(request: pytest.FixtureRequest) -> OpenEnds:
    ends: OpenEnds = request.param
    return ends


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=20))


class TestCarry:
    @pytest.mark.parametrize("size", [1, 64, 4096, MAX_CONTENT_BYTES])
    def test_keeps_content_and_boundaries_both_ways(self, open_ends: OpenEnds, size: int) -> None:
        async def test() -> None:
            async with open_ends() as ends:
                for here, there, direction in ends.both_ways():
                    frames = [ends.wrap(bytes([i]) * size, direction) for i in range(3)]
                    for frame in frames:
                        await here.send(frame)
                    assert [bytes(await there.receive()) for _ in frames] == frames

        run(test())

    def test_carries_any_buffer(self, open_ends: OpenEnds) -> None:
        async def test() -> None:
            async with open_ends() as ends:
                frame = ends.frame(b"abc")
                for buffer in (frame, bytearray(frame), memoryview(bytearray(frame))):
                    await ends.near.send(buffer)
                    assert bytes(await ends.far.receive()) == frame

        run(test())

    def test_holds_back_a_sender_whose_receiver_is_slow(self, open_ends: OpenEnds) -> None:
        async def test() -> None:
            async with open_ends() as ends:
                frame = ends.frame(bytes(MAX_CONTENT_BYTES))
                sent = 0

                async def send_many() -> None:
                    nonlocal sent
                    for _ in range(200):
                        await ends.near.send(frame)
                        sent += 1

                sender = asyncio.create_task(send_many())
                await asyncio.sleep(0.5)
                assert sent < 200
                for _ in range(200):
                    await ends.far.receive()
                await sender

        run(test())


class TestBreak:
    @pytest.mark.parametrize("closer", [0, 1])
    def test_close_is_seen_at_both_ends(self, open_ends: OpenEnds, closer: int) -> None:
        async def test() -> None:
            async with open_ends() as ends:
                one, other, _ = ends.both_ways()[closer]
                waiting = asyncio.create_task(_receive(other))
                await asyncio.sleep(0)
                await one.close()
                await one.close()
                with pytest.raises(LinkError):
                    await waiting
                for end, _, direction in ends.both_ways():
                    with pytest.raises(LinkError):
                        await end.receive()
                    with pytest.raises(LinkError):
                        await _send_until_refused(end, ends.wrap(bytes(1024), direction))

        run(test())

    def test_a_frame_over_the_limit_is_a_link_error(self, open_ends: OpenEnds) -> None:
        async def test() -> None:
            async with open_ends() as ends:
                with pytest.raises(LinkError, match=r"1048577|1048641|larger than|1009"):
                    await _exchange(ends.near, ends.far, ends.frame(bytes(MAX_FRAME_BYTES + 1)))

        run(test())


class TestConnect:
    def test_nobody_there(self) -> None:
        async def test() -> None:
            with pytest.raises(LinkError, match="check the address"):
                await connect_websocket("ws://127.0.0.1:9/")

        run(test())

    def test_a_port_in_use(self) -> None:
        async def accept(link: Link) -> None:
            await link.receive()

        async def test() -> None:
            async with WebsocketListener(accept) as listener:
                port = int(listener.url.rsplit(":", 1)[1].strip("/"))
                with pytest.raises(LinkError, match=f"{port}.*choose another port"):
                    await WebsocketListener(accept, port=port).__aenter__()

        run(test())


async def _receive(link: Link) -> object:
    return await link.receive()


async def _send_until_refused(link: Link, frame: bytes) -> None:
    for _ in range(100):
        await link.send(frame)
        await asyncio.sleep(0)


async def _exchange(near: Link, far: Link, frame: bytes) -> None:
    await near.send(frame)
    await far.receive()
