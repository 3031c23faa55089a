"""Every transport passes the same suite."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from splitlearn.errors import LinkError
from splitlearn.link import Link, WebsocketListener, connect_websocket, memory_pair
from splitlearn.wire import Limits

MAX_FRAME_BYTES = 1 << 20
Ends = tuple[Link, Link]
OpenEnds = Callable[[], AbstractAsyncContextManager[Ends]]


@asynccontextmanager
async def memory_ends() -> AsyncIterator[Ends]:
    near, far = memory_pair(max_queued_frames=4, max_frame_bytes=MAX_FRAME_BYTES)
    yield near, far
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
        yield near, await answered
        await near.close()
        over.set()


@pytest.fixture(params=[memory_ends, websocket_ends])
def open_ends(request: pytest.FixtureRequest) -> OpenEnds:
    ends: OpenEnds = request.param
    return ends


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=20))


class TestCarry:
    @pytest.mark.parametrize("size", [1, 64, 4096, MAX_FRAME_BYTES])
    def test_keeps_content_and_boundaries_both_ways(self, open_ends: OpenEnds, size: int) -> None:
        async def test() -> None:
            frames = [bytes([i]) * size for i in range(3)]
            async with open_ends() as (near, far):
                for here, there in ((near, far), (far, near)):
                    for frame in frames:
                        await here.send(frame)
                    assert [bytes(await there.receive()) for _ in frames] == frames

        run(test())

    def test_carries_any_buffer(self, open_ends: OpenEnds) -> None:
        async def test() -> None:
            async with open_ends() as (near, far):
                for buffer in (b"abc", bytearray(b"abc"), memoryview(bytearray(b"abc"))):
                    await near.send(buffer)
                    assert bytes(await far.receive()) == b"abc"

        run(test())

    def test_holds_back_a_sender_whose_receiver_is_slow(self, open_ends: OpenEnds) -> None:
        async def test() -> None:
            async with open_ends() as (near, far):
                sent = 0

                async def send_many() -> None:
                    nonlocal sent
                    for _ in range(200):
                        await near.send(bytes(MAX_FRAME_BYTES))
                        sent += 1

                sender = asyncio.create_task(send_many())
                await asyncio.sleep(0.5)
                assert sent < 200
                for _ in range(200):
                    await far.receive()
                await sender

        run(test())


class TestBreak:
    @pytest.mark.parametrize("closer", [0, 1])
    def test_close_is_seen_at_both_ends(self, open_ends: OpenEnds, closer: int) -> None:
        async def test() -> None:
            async with open_ends() as ends:
                waiting = asyncio.create_task(_receive(ends[1 - closer]))
                await asyncio.sleep(0)
                await ends[closer].close()
                await ends[closer].close()
                with pytest.raises(LinkError):
                    await waiting
                for end in ends:
                    with pytest.raises(LinkError):
                        await end.receive()
                    with pytest.raises(LinkError):
                        await _send_until_refused(end)

        run(test())

    def test_a_frame_over_the_limit_is_a_link_error(self, open_ends: OpenEnds) -> None:
        async def test() -> None:
            async with open_ends() as (near, far):
                with pytest.raises(LinkError, match=r"1048577|larger than|1009"):
                    await _exchange(near, far, bytes(MAX_FRAME_BYTES + 1))

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


async def _send_until_refused(link: Link) -> None:
    for _ in range(100):
        await link.send(bytes(1024))
        await asyncio.sleep(0)


async def _exchange(near: Link, far: Link, frame: bytes) -> None:
    await near.send(frame)
    await far.receive()
