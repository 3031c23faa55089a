"""Questions and answers about standings over HTTP, and every way in which an answer is none."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backend.gateway import FeedError, HttpFeed, Role, Seat, Standing
from tests.unit.gateway.conftest import run

SEATS = [Seat("job", 1, Role.SILO, "clinic"), Seat("job", 1, Role.WORKER, "gpu-1")]


class Server:
    """Answers every request with the same body; keeps what it was asked."""

    def __init__(self, body: bytes, *, status: int = 200, delay_seconds: float = 0.0) -> None:
        self._body, self._status, self._delay_seconds = body, status, delay_seconds
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.lower().splitlines() if line.startswith("content-length"))
        self.asked.append(head + (await reader.readexactly(int(length.split(":")[1]))).decode())
        await asyncio.sleep(self._delay_seconds)
        head = f"HTTP/1.1 {self._status} X\r\nContent-Length: {len(self._body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + self._body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()


@asynccontextmanager
async def feed(server: Server) -> AsyncIterator[HttpFeed]:
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with HttpFeed(f"http://127.0.0.1:{port}/standings", token="word") as made:
            yield made


def answer(*standings: dict[str, object]) -> bytes:
    return json.dumps({"standings": standings}).encode()


class TestStandings:
    def test_asks_and_reads(self) -> None:
        async def test() -> None:
            seat = {"job": "job", "replica": 1}
            server = Server(
                answer(
                    {**seat, "role": "silo", "party": "clinic", "epoch": 4},
                    {**seat, "role": "worker", "party": "gpu-1", "epoch": 4, "revoked": True},
                )
            )
            async with feed(server) as made:
                told = await made.standings(SEATS)
            assert list(told) == [Standing(SEATS[0], 4), Standing(SEATS[1], 4, is_revoked=True)]
            [question] = server.asked
            head, _, body = question.partition("\r\n\r\n")
            assert "authorization: bearer word" in head.lower()
            assert json.loads(body) == {
                "seats": [
                    {**seat, "role": "silo", "party": "clinic"},
                    {**seat, "role": "worker", "party": "gpu-1"},
                ]
            }

        run(test())

    @pytest.mark.parametrize("status", [401, 403])
    def test_with_a_wrong_token_names_its_setting(self, status: int) -> None:
        async def test() -> None:
            async with feed(Server(b"", status=status)) as made:
                with pytest.raises(FeedError, match="set TRUNKLINE_GATEWAY_STANDINGS_TOKEN"):
                    await made.standings(SEATS)

        run(test())

    @pytest.mark.parametrize(("num_seats", "num_questions"), [(0, 1), (1000, 1), (1001, 2)])
    def test_asks_in_pieces(self, num_seats: int, num_questions: int) -> None:
        async def test() -> None:
            server = Server(
                answer({"job": "job", "replica": 1, "role": "silo", "party": "clinic", "epoch": 4})
            )
            async with feed(server) as made:
                await made.standings([Seat(f"job-{n}", 0, Role.SILO, "clinic") for n in range(num_seats)])
            assert len(server.asked) == num_questions

        run(test())

    @pytest.mark.parametrize(
        "server",
        [
            Server(answer(), status=503),
            Server(b"<html>"),
            Server(b"{}"),
            Server(answer({"job": "job"})),
            Server(answer({"job": "j", "replica": 1, "role": "king", "party": "p", "epoch": 4})),
            Server(b" " * (2 << 20)),
            Server(answer(), delay_seconds=3),
        ],
        ids=["status", "html", "empty", "partial", "role", "large", "slow"],
    )
    def test_a_bad_answer_is_one_error(self, server: Server) -> None:
        async def test() -> None:
            async with feed(server) as made:
                with pytest.raises(FeedError):
                    await made.standings(SEATS)

        run(test())

    def test_nobody_there_is_the_same_error(self) -> None:
        async def test() -> None:
            async with HttpFeed("http://127.0.0.1:9/standings") as made:
                with pytest.raises(FeedError, match=r"127\.0\.0\.1:9"):
                    await made.standings(SEATS)

        run(test())
