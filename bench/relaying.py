"""Child process of the gateway's benchmark: the gateway, or a plain websocket server that echoes.

Torch stays out of it, so that its memory is the gateway's.
"""

import asyncio
import contextlib
import sys
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from backend.gateway import Gateway, GatewaySettings
from backend.gateway.app import MAX_QUEUED_FRAMES
from backend.gateway.process import allow_files, configure_logs


class Kind(StrEnum):
    """What the child serves."""

    GATEWAY = "gateway"
    ECHO = "echo"


class RelayRequest(BaseModel):
    """What the child is asked for.

    Attributes:
        kind: Gateway or echo.
        ticket_public_key: The gateway's key for tickets, in hexadecimal digits.
        max_frame_bytes: Largest frame.
        max_connections: The gateway's limit, also for one party.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    ticket_public_key: str
    max_frame_bytes: int
    max_connections: int


class RelayListens(BaseModel):
    """The child's answer: where it listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str


async def run(request: RelayRequest) -> None:
    """Serve until standard input ends, which it does with the parent."""
    allow_files(2 * request.max_connections)
    over = asyncio.to_thread(sys.stdin.read)
    if request.kind is Kind.GATEWAY:
        settings: dict[str, Any] = request.model_dump(exclude={"kind"})
        settings["max_connections_per_party"] = request.max_connections
        settings["max_handshakes"] = request.max_connections
        async with Gateway(GatewaySettings(port=0, pairing_seconds=3600, **settings)) as gateway:
            _answer(gateway.url)
            await over
        return
    async with serve(
        _echo,
        "127.0.0.1",
        0,
        compression=None,
        max_size=request.max_frame_bytes,
        max_queue=MAX_QUEUED_FRAMES,
    ) as server:
        _answer(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/")
        await over


async def _echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.send(await connection.recv(decode=False))


def _answer(url: str) -> None:
    sys.stdout.write(RelayListens(url=url).model_dump_json() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    configure_logs()
    asyncio.run(run(RelayRequest.model_validate_json(sys.stdin.readline())))
