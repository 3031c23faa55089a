"""The bytes counted for a frame are those that a real websocket puts on its socket."""

import asyncio

import pytest

from bench.counting_link import CountingLink
from splitlearn.link import Link, WebsocketListener, connect_websocket


class _Tap:
    """A TCP relay that counts what passes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.num_bytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.num_bytes += len(data)
            writer.write(data)
        writer.close()


async def _counted_and_seen(size: int) -> tuple[int, int]:
    async def echo(link: Link) -> None:
        while True:
            await link.send(await link.receive())

    async with WebsocketListener(echo) as listener:
        tap = _Tap(int(listener.url.rsplit(":", 1)[1].strip("/")))
        async with await asyncio.start_server(tap.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            link = CountingLink(await connect_websocket(f"ws://127.0.0.1:{port}/"))
            opening = tap.num_bytes
            await link.send(bytes(size))
            await link.receive()
            seen = tap.num_bytes - opening
            await link.close()
    return link.socket_bytes, seen


class TestCountingLink:
    @pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 20])
    def test_counts_both_directions_as_the_socket_does(self, size: int) -> None:
        counted, seen = asyncio.run(asyncio.wait_for(_counted_and_seen(size), timeout=20))
        assert counted == seen
