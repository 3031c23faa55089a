"""Whole jobs whose links go through a gateway of its own process: same digits, whatever happens to it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from backend.gateway import Conversation, Role, issue_ticket
from splitlearn.link import CloseReason, Connect, GatewayClosedError, Link, connect_gateway
from splitlearn.parties import Progress, StepDone
from splitlearn.protocol import conversation
from splitlearn.simulation.federation import Lines
from splitlearn.simulation.roster import WORKER_NAME
from splitlearn.wire import ENVELOPE_BYTES, Kind, encode_message
from tests.integration.conftest import Job, NewJob, assert_same, silo_rows
from tests.unit.gateway.conftest import CONTROL_PLANE, TALK, run, silo_ticket, worker_ticket

Frame = bytes | bytearray | memoryview
START_SECONDS = 30.0
SHAPE: dict[str, Any] = {"rounds": 2, "steps_per_round": 4, "batch_size": 2, "patience_seconds": 60}


class GatewayProcess:
    """``python -m backend.gateway`` on a port of its own.

    Args:
        settings: Further settings, as in the environment.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = {
            "TRUNKLINE_GATEWAY_PORT": "0",
            "TRUNKLINE_GATEWAY_TICKET_PUBLIC_KEY": CONTROL_PLANE.public_key.raw.hex(),
            **{f"TRUNKLINE_GATEWAY_{name.upper()}": value for name, value in settings.items()},
        }
        self.events: list[dict[str, Any]] = []
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it, at the port that it had before if it ran before."""
        inherited = {"PATH": os.environ["PATH"]}  # noqa: TID251 - a child needs a PATH like anybody
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backend.gateway"],
            env={**inherited, **self._settings},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, args=(self.process,))
        self._is_listening = threading.Event()
        self._listener.start()

    def await_start(self) -> None:
        """Wait until it listens."""
        assert self._is_listening.wait(START_SECONDS), "the gateway did not start"
        self._settings["TRUNKLINE_GATEWAY_PORT"] = self.url.removesuffix("/relay").rsplit(":", 1)[1]

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line) if line.startswith("{") else {"event": "said", "text": line}
            self.events.append(event)
            if event["event"] == "gateway_listening":
                self.url = event["url"]
                self._is_listening.set()
        process.stderr.close()

    def end(self, number: signal.Signals) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; return the exit code."""
        code = self.process.wait(timeout=START_SECONDS)
        self._listener.join(timeout=10)
        return code


@contextmanager
def gateway_process(**settings: str) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(**settings)
    try:
        gateway.await_start()
        yield gateway
    finally:
        if gateway.process.poll() is None:
            gateway.end(signal.SIGKILL)


class GatewayLines(Lines):
    """Both sides of every conversation dial the gateway, each time with a new ticket.

    Args:
        names: Silos.
        gateway: Where.
        job: The job's name.
        cuts: After so many frames of all, the sender's connection is dropped.
    """

    def __init__(
        self, names: Sequence[str], *, gateway: GatewayProcess, job: str, cuts: Sequence[int] = ()
    ) -> None:
        super().__init__(names)
        self._gateway = gateway
        self._job = job
        self.tape = Tape(cuts)

    def dial(self, name: str) -> Connect:
        return self._through(name, Role.SILO)

    def answer(self, name: str) -> Connect:
        return self._through(name, Role.WORKER)

    def _through(self, name: str, role: Role) -> Connect:
        talk = Conversation(self._job, 0, name, WORKER_NAME, epoch=1)

        async def connect() -> Link:
            now = datetime.now(tz=UTC)
            text = issue_ticket(talk, role=role, now=now, seconds=60, key=CONTROL_PLANE)
            return _TapedLink(await connect_gateway(self._gateway.url, ticket=text), self.tape)

        return connect


class Tape:
    """Keeps what the gateway gets: websockets mask what a client sends, the gateway unmasks it."""

    def __init__(self, cuts: Sequence[int]) -> None:
        self.frames: list[bytes] = []
        self._cuts = cuts

    def keep(self, frame: Frame) -> bool:
        """Return whether the connection is to be dropped instead of sending this frame."""
        self.frames.append(bytes(frame))
        return len(self.frames) in self._cuts


class _TapedLink:
    def __init__(self, inner: Link, tape: Tape) -> None:
        self._inner, self._tape = inner, tape

    async def send(self, frame: Frame) -> None:
        if self._tape.keep(frame):
            await self._inner.close()
        await self._inner.send(frame)

    async def receive(self) -> Frame:
        return await self._inner.receive()

    async def close(self) -> None:
        await self._inner.close()


def two_silos(new_job: NewJob) -> Job:
    return new_job("llama", silo_rows("a"), silo_rows("b", longest=7), **SHAPE)


@pytest.fixture(scope="module")
def _undisturbed() -> dict[str, Any]:
    return {}


@pytest.fixture
def expected(new_job: NewJob, _undisturbed: dict[str, Any]) -> dict[str, Any]:
    """The job over memory links, run once."""
    if not _undisturbed:
        job = two_silos(new_job)
        _undisturbed["eval_loss"] = job.run().eval_loss
        _undisturbed["everything"] = job.everything()
    return _undisturbed


class TestJob:
    def test_ends_as_over_memory_and_shows_the_gateway_nothing(
        self, new_job: NewJob, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plaintexts: list[bytes] = []

        def overheard(*arguments: Any, **named: Any) -> bytearray:
            encoded = encode_message(*arguments, **named)
            plaintexts.append(bytes(encoded))
            return encoded

        monkeypatch.setattr(conversation, "encode_message", overheard)
        made: list[GatewayLines] = []
        job = two_silos(new_job)
        with gateway_process() as gateway:

            def lines(names: Sequence[str]) -> Lines:
                made.append(GatewayLines(names, gateway=gateway, job=job.spec.name))
                return made[0]

            result = job.run(make_lines=lines)
            assert gateway.end(signal.SIGTERM) == 0
        assert result.eval_loss == expected["eval_loss"]
        assert_same(job.everything(), expected["everything"])

        tape = made[0].tape.frames
        assert sum(frame[4] == Kind.SEALED for frame in tape) >= len(plaintexts) > 50
        relayed = b"".join(frame[ENVELOPE_BYTES:] for frame in tape)
        words = words_of(plaintexts)
        assert len(words) > 10_000
        assert found_in(relayed, words) == 0
        assert found_in(relayed + max(plaintexts, key=len), words) > 100  # the search can find

    def test_survives_the_gateways_death_in_mid_round(
        self, new_job: NewJob, expected: dict[str, Any]
    ) -> None:
        job = two_silos(new_job)
        with gateway_process() as gateway:
            deaths: list[int] = []

            def kill(progress: Progress) -> None:
                if isinstance(progress, StepDone) and progress.step in {2, 6} and progress.silo == "a":
                    deaths.append(gateway.end(signal.SIGKILL))
                    gateway.start()

            def lines(names: Sequence[str]) -> Lines:
                return GatewayLines(names, gateway=gateway, job=job.spec.name)

            result = job.run(make_lines=lines, on_progress=kill)
        assert deaths == [-signal.SIGKILL] * 2
        assert [event["event"] for event in gateway.events].count("gateway_listening") == 3
        assert result.eval_loss == expected["eval_loss"]
        assert_same(job.everything(), expected["everything"])

    def test_survives_the_loss_of_one_side_at_a_time(self, new_job: NewJob, expected: dict[str, Any]) -> None:
        job, cuts = two_silos(new_job), (7, 40, 41, 90)
        with gateway_process() as gateway:

            def lines(names: Sequence[str]) -> Lines:
                return GatewayLines(names, gateway=gateway, job=job.spec.name, cuts=cuts)

            result = job.run(make_lines=lines)
            gateway.end(signal.SIGTERM)
        assert result.eval_loss == expected["eval_loss"]
        assert_same(job.everything(), expected["everything"])
        ends = [event["reason"] for event in gateway.events if event["event"] == "connection_ended"]
        assert ends.count("peer_gone") >= len(cuts)


def words_of(plaintexts: Sequence[bytes]) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Every aligned 8 bytes of tensors and fields, but for the few that hold hardly anything.

    A fixed word is found in random bytes at a given place with probability 2^-64: with 10^6 places and
    10^5 words that happens once in 10^8 runs.
    """
    whole = b"".join(text[: len(text) // 8 * 8] for text in plaintexts)
    words = np.unique(np.frombuffer(whole, dtype=np.uint64))
    distinct = np.array([len(set(word.tobytes())) for word in words])
    return words[distinct >= 6]


def found_in(tape: bytes, words: "np.ndarray[Any, np.dtype[np.uint64]]") -> int:
    """How many places of the tape, at any offset, hold one of the words."""
    hits = 0
    for offset in range(8):
        length = (len(tape) - offset) // 8
        hits += int(np.isin(np.frombuffer(tape, np.uint64, length, offset), words).sum())
    return hits


class TestProcess:
    def test_says_goodbye_on_sigterm(self) -> None:
        with gateway_process() as gateway:
            links: list[Link] = []

            async def test() -> None:
                links.extend(
                    await asyncio.gather(
                        connect_gateway(gateway.url, ticket=silo_ticket()),
                        connect_gateway(gateway.url, ticket=worker_ticket()),
                    )
                )
                for _ in range(2):  # an impatient supervisor
                    gateway.process.send_signal(signal.SIGTERM)
                for link in links:
                    with pytest.raises(GatewayClosedError) as closed:
                        await link.receive()
                    assert closed.value.reason is CloseReason.GOING_AWAY

            run(test())
            assert gateway.wait() == 0
        ends = [event["reason"] for event in gateway.events if event["event"] == "connection_ended"]
        assert ends == ["going_away", "going_away"]

    def test_its_log_holds_no_ticket_and_no_content(self) -> None:
        text, other = silo_ticket(), silo_ticket(seconds=-60)
        with gateway_process(pairing_seconds="0.2") as gateway:

            async def test() -> None:
                for ticket in (text, other, "a-secret-that-is-no-ticket"):
                    with pytest.raises(GatewayClosedError):
                        await connect_gateway(gateway.url, ticket=ticket)

            run(test())
            gateway.end(signal.SIGTERM)
        log = json.dumps(gateway.events)
        assert [event["reason"] for event in gateway.events if event["event"] == "connection_ended"] == [
            "peer_absent",
            "expired_ticket",
            "malformed_ticket",
        ]
        for secret in (text, other, text[:40], "a-secret"):
            assert secret not in log

    def test_a_port_in_use_is_a_sentence_and_an_exit_code(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            gateway = GatewayProcess(port=str(port))
            assert gateway.wait() == 10
        assert f"cannot listen on 127.0.0.1:{port}" in gateway.events[-1]["text"]

    def test_a_wrong_setting_is_named(self) -> None:
        gateway = GatewayProcess(ticket_public_key="zz")
        assert gateway.wait() == 2
        assert "TRUNKLINE_GATEWAY_TICKET_PUBLIC_KEY" in gateway.events[-1]["text"]

    def test_closes_what_the_control_plane_supersedes(self) -> None:
        epoch = {"now": TALK.epoch}

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told = [{**seat, "epoch": epoch["now"]} for seat in question["seats"]]
                body = json.dumps({"standings": told}).encode()
                self.send_response(200 if self.headers["Authorization"] == "Bearer word" else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        with (
            http_server(Answers) as url,
            gateway_process(standings_url=url, standings_token="word") as gateway,
        ):

            async def test() -> None:
                silo, worker = await asyncio.gather(
                    connect_gateway(gateway.url, ticket=silo_ticket()),
                    connect_gateway(gateway.url, ticket=worker_ticket()),
                )
                await asyncio.sleep(1.5)  # longer than from one question to the next
                epoch["now"] += 1
                async with asyncio.timeout(5):
                    for link in (silo, worker):
                        with pytest.raises(GatewayClosedError) as closed:
                            await link.receive()
                        assert closed.value.reason is CloseReason.SUPERSEDED
                with pytest.raises(GatewayClosedError) as refused:
                    await connect_gateway(gateway.url, ticket=silo_ticket())
                assert refused.value.reason is CloseReason.SUPERSEDED

            run(test())


@contextmanager
def http_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/standings"
        finally:
            server.shutdown()
            thread.join()
