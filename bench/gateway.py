"""How fast does the gateway relay frames of 4 MiB, and what do connections cost it that only wait?

The gateway and a plain echo server, which only receives and sends by the same library, are each a process
of their own; this process is all agents and workers. In turn, a burst of frames goes from silo to worker
through the gateway, and one from each connection to itself through the echo. GB/s are 10^9 bytes that
arrived per second, the median burst; the ratio is the gateway's over the echo's.

Then agents connect and wait for their workers, and the workers come: what the gateway's memory grew by,
for each agent.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from backend.gateway import Conversation, Role, issue_ticket
from backend.gateway.process import allow_files
from bench.machine import describe_machine
from bench.processes import Child, child
from bench.relaying import Kind, RelayListens, RelayRequest
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.identity import SigningKey
from splitlearn.link import Link, connect_gateway, connect_websocket
from splitlearn.wire import ENVELOPE_BYTES, Envelope, Limits, job_tag
from splitlearn.wire import Kind as FrameKind

_INTERRUPTED = 130
_AT_ONCE = 50
"""Agents that connect at the same time."""
_RELAY_COLUMNS = ("pairs", "frame MiB", "gateway GB/s", "echo GB/s", "ratio", "gateway MiB")
IDLE_COLUMNS = (
    "agents",
    "start MiB",
    "all waiting MiB",
    "all paired MiB",
    "KiB per waiting",
    "KiB per pair",
)
_KEY = SigningKey.generate()
_EPOCH = 1
Ends = tuple[Link, Link]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    try:
        relay, idle = asyncio.run(measure(options))
    except KeyboardInterrupt:
        say("interrupted")
        return _INTERRUPTED
    print_table("Frames through the gateway and through a plain echo", _RELAY_COLUMNS, map(_cells, relay))
    if idle:
        print_table("Connections that only wait", IDLE_COLUMNS, map(idle_cells, idle))
    if options.json is not None:
        write_json(options.json, rows=[*relay, *idle], machine=describe_machine(threads=1))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateway",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=positive, action="append", help="1 and 8 by default")
    parser.add_argument("--frames", type=positive, default=32, help="of a burst, all pairs together")
    parser.add_argument("--bursts", type=positive, default=9, help="through each (default 9)")
    parser.add_argument("--frame-bytes", type=positive, default=Limits().max_frame_bytes)
    parser.add_argument("--agents", type=int, default=1000, help="that wait; 0 for none (default 1000)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    return parser.parse_args(arguments)


async def measure(options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Return the rows of the relay and those of the waiting agents."""
    allow_files(4 * options.agents)
    relay: list[Row] = []
    for num_pairs in options.pairs or (1, 8):
        say(f"{num_pairs} pairs, {options.bursts} bursts of {options.frames} frames through each ...")
        relay.append(await _relay_row(num_pairs, options))
    if not options.agents:
        return relay, []
    say(f"{options.agents} agents connect and wait ...")
    return relay, [await idle_row(options.agents, options.frame_bytes)]


async def _relay_row(num_pairs: int, options: argparse.Namespace) -> Row:
    limits = Limits(max_frame_bytes=options.frame_bytes)
    frame = _frame(options.frame_bytes)
    each = max(1, options.frames // num_pairs)
    async with AsyncExitStack() as stack:
        gateway, gateway_url = await stack.enter_async_context(_relay(Kind.GATEWAY, options.frame_bytes))
        _, echo_url = await stack.enter_async_context(_relay(Kind.ECHO, options.frame_bytes))
        paired = await asyncio.gather(
            *(_pair(gateway_url, number, limits=limits) for number in range(num_pairs))
        )
        echoed = [await connect_websocket(echo_url, limits=limits) for _ in range(num_pairs)]
        for link in (*(end for ends in paired for end in ends), *echoed):
            stack.push_async_callback(link.close)
        speeds = await _speeds(
            {"gateway": paired, "echo": [(link, link) for link in echoed]}, frame, each, options.bursts
        )
        resident_bytes = _resident_bytes(gateway)
    return {
        "pairs": num_pairs,
        "frame_bytes": len(frame),
        "ratio": speeds["gateway"] / speeds["echo"],
        "gateway_gb_per_second": speeds["gateway"],
        "echo_gb_per_second": speeds["echo"],
        "gateway_resident_bytes": resident_bytes,
    }


async def _speeds(ways: dict[str, Sequence[Ends]], frame: bytes, each: int, bursts: int) -> dict[str, float]:
    """Measure in turn, so that whatever else the machine does falls on all; the first burst is warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(bursts + 1):
        for name, ends in ways.items():
            start = time.perf_counter()
            await asyncio.gather(*(_burst(near, far, frame, each) for near, far in ends))
            seconds[name].append(time.perf_counter() - start)
    gigabytes = {name: len(ends) * each * len(frame) / 1e9 for name, ends in ways.items()}
    return {name: gigabytes[name] / statistics.median(values[1:]) for name, values in seconds.items()}


async def _burst(near: Link, far: Link, frame: bytes, number: int) -> None:
    async def send() -> None:
        for _ in range(number):
            await near.send(frame)

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        for _ in range(number):
            arrived = await far.receive()
            assert len(arrived) == len(frame)


async def idle_row(num_agents: int, frame_bytes: int) -> Row:
    """Return what a gateway holds at its start, with agents that wait, and with all of them paired."""
    async with _relay(Kind.GATEWAY, frame_bytes, max_connections=2 * num_agents) as (gateway, url):
        start = _resident_bytes(gateway)
        silos: list[asyncio.Task[Link]] = []
        while len(silos) < num_agents:
            numbers = range(len(silos), min(len(silos) + _AT_ONCE, num_agents))
            silos += [asyncio.create_task(_end(url, number, Role.SILO)) for number in numbers]
            await _served(url, len(silos))
        waiting = _resident_bytes(gateway)
        workers = [await _end(url, number, Role.WORKER) for number in range(num_agents)]
        links = [*workers, *(await asyncio.gather(*silos))]
        paired = _resident_bytes(gateway)
        await asyncio.gather(*(link.close() for link in links))
    return {
        "agents": num_agents,
        "start_resident_bytes": start,
        "waiting_resident_bytes": waiting,
        "paired_resident_bytes": paired,
    }


@contextlib.asynccontextmanager
async def _relay(
    kind: Kind, max_frame_bytes: int, *, max_connections: int = 256
) -> AsyncIterator[tuple[Child, str]]:
    request = RelayRequest(
        kind=kind,
        ticket_public_key=_KEY.public_key.raw.hex(),
        max_frame_bytes=max_frame_bytes,
        max_connections=max(2, max_connections),
    )
    environment = dict(os.environ)  # noqa: TID251 - the child needs a PATH like anybody
    async with child("bench.relaying", request, environment=environment) as running:
        yield running, (await running.receive(RelayListens)).url


async def _pair(url: str, number: int, *, limits: Limits) -> Ends:
    near, far = await asyncio.gather(
        _end(url, number, Role.SILO, limits=limits), _end(url, number, Role.WORKER, limits=limits)
    )
    return near, far


async def _end(url: str, number: int, role: Role, *, limits: Limits | None = None) -> Link:
    talk = Conversation("bench", 0, f"silo-{number}", "gpu-1", _EPOCH)
    ticket = issue_ticket(talk, role=role, now=datetime.now(tz=UTC), seconds=60, key=_KEY)
    return await connect_gateway(url, ticket=ticket, limits=limits)


async def _served(url: str, number: int) -> None:
    """Wait until the gateway serves so many connections, as its metrics say."""
    host, port = url.removeprefix("ws://").removesuffix("/relay").split(":")
    wanted = f"trunkline_gateway_open_connections {number}.0\n".encode()
    answer = b""
    while wanted not in answer:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n")
        answer = await reader.read()
        writer.close()


def _frame(frame_bytes: int) -> bytes:
    """Return a frame that fits the silo's tickets; what it holds looks sealed."""
    content = os.urandom(frame_bytes - ENVELOPE_BYTES)
    envelope = Envelope(
        kind=FrameKind.SEALED,
        direction=Role.SILO.direction,
        body_bytes=len(content),
        epoch=_EPOCH,
        job_tag=job_tag("bench"),
    )
    return envelope.pack() + content


def _resident_bytes(process: Child) -> int | None:
    """Return the memory that a process holds now (Linux); None where that cannot be asked."""
    file = Path(f"/proc/{process.pid}/statm")
    if not file.exists():
        return None
    return int(file.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cells(row: Row) -> list[str]:
    return [
        str(row["pairs"]),
        f"{row['frame_bytes'] / (1 << 20):.2f}",
        f"{row['gateway_gb_per_second']:.3f}",
        f"{row['echo_gb_per_second']:.3f}",
        f"{row['ratio']:.2f}",
        _mib(row["gateway_resident_bytes"]),
    ]


def idle_cells(row: Row) -> list[str]:
    """Return such a row as the table shows it."""
    start, waiting, paired = (row[f"{when}_resident_bytes"] for when in ("start", "waiting", "paired"))
    if start is None:
        return [str(row["agents"]), *["unknown"] * 5]
    each = [f"{(after - start) / row['agents'] / 1024:.1f}" for after in (waiting, paired)]
    return [str(row["agents"]), _mib(start), _mib(waiting), _mib(paired), *each]


def _mib(num_bytes: int | None) -> str:
    return "unknown" if num_bytes is None else f"{num_bytes / (1 << 20):.1f}"


if __name__ == "__main__":
    sys.exit(main())
