"""Admission, pairing, relaying, limits and ends, over real websockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from backend.gateway import FeedError, Gateway, Role, Seat, Standing
from splitlearn.errors import LinkError
from splitlearn.link import PAIRED, CloseReason, GatewayClosedError, GatewayLink, Link, connect_gateway
from splitlearn.wire import Limits, job_tag
from tests.unit.gateway.conftest import TALK, frame, gateway_settings, run, silo_ticket, ticket, worker_ticket

Pair = tuple[GatewayLink, GatewayLink]


class ToldFeed:
    """A feed that says what the test wrote down."""

    def __init__(self) -> None:
        self.told: list[Standing] = []
        self.is_deaf = False
        self.asked: list[set[Seat]] = []

    async def standings(self, seats: Collection[Seat]) -> Collection[Standing]:
        self.asked.append(set(seats))
        if self.is_deaf:
            raise FeedError("deaf")
        return self.told


async def pair(gateway: Gateway, **changes: Any) -> Pair:
    silo, worker = await asyncio.gather(
        connect_gateway(gateway.url, ticket=silo_ticket(**changes)),
        connect_gateway(gateway.url, ticket=worker_ticket(**changes)),
    )
    return silo, worker


async def closed_for(link: Link) -> CloseReason:
    with pytest.raises(GatewayClosedError) as closed:
        await _receive_for_ever(link)
    return closed.value.reason


async def refused_for(gateway: Gateway, text: str) -> CloseReason:
    with pytest.raises(GatewayClosedError) as refused:
        await connect_gateway(gateway.url, ticket=text)
    return refused.value.reason


@contextlib.asynccontextmanager
async def bare_connection(gateway: Gateway, **settings: Any) -> AsyncIterator[ClientConnection]:
    async with connect(
        gateway.url, compression=None, max_size=None, close_timeout=0.2, **settings
    ) as connection:
        yield connection


def authorised(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for is inside the gateway, which sets no event
        await asyncio.sleep(0.01)


async def until_ready_is(gateway: Gateway, status: int) -> None:
    while (await _get(gateway, "/readyz"))[0] != status:  # noqa: ASYNC110 - an HTTP answer sets no event
        await asyncio.sleep(0.02)


class TestAdmission:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (lambda: "nonsense", CloseReason.MALFORMED_TICKET),
            (lambda: silo_ticket(seconds=-60), CloseReason.EXPIRED_TICKET),
            (lambda: silo_ticket()[:-3] + "AAA", CloseReason.WRONG_SIGNATURE),
        ],
    )
    def test_refuses_a_bad_ticket_and_says_why(self, text: Any, reason: CloseReason) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                assert await refused_for(gateway, text()) is reason
                assert gateway.counters.closed == {reason.word: 1}

        run(test())

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic YTpi"}])
    def test_refuses_a_connection_without_ticket(self, headers: dict[str, str]) -> None:
        async def test() -> None:
            async with (
                Gateway(gateway_settings()) as gateway,
                bare_connection(gateway, additional_headers=headers) as connection,
            ):
                with pytest.raises(ConnectionClosed) as closed:
                    await connection.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == CloseReason.MALFORMED_TICKET.value
                assert closed.value.rcvd.reason == "malformed_ticket"

        run(test())

    def test_refuses_a_lower_epoch_than_one_seen(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                links = await pair(gateway, epoch=8)
                assert await refused_for(gateway, silo_ticket(epoch=7)) is CloseReason.SUPERSEDED
                await links[0].send(frame(Role.SILO, epoch=8))
                await links[1].receive()  # the refused one disturbed nobody

        run(test())

    def test_refuses_more_than_the_limits(self) -> None:
        async def test() -> None:
            settings = gateway_settings(max_connections=3, max_connections_per_party=1)
            async with Gateway(settings) as gateway:
                links = await pair(gateway)
                again = ticket(Role.SILO, job="second")
                assert await refused_for(gateway, again) is CloseReason.TOO_MANY
                async with bare_connection(gateway, additional_headers=authorised(silo_ticket(silo="third"))):
                    await until(lambda: gateway.hall.num_guests == 3)
                    over = silo_ticket(silo="fourth")
                    assert await refused_for(gateway, over) is CloseReason.TOO_MANY
                await links[0].send(frame(Role.SILO))
                await links[1].receive()

        run(test())

    def test_a_party_at_its_limit_may_replace_its_own_connection(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings(max_connections_per_party=1)) as gateway:
                old = await pair(gateway)
                new = await pair(gateway)
                assert await closed_for(old[0]) is CloseReason.REPLACED
                await new[0].send(frame(Role.SILO))
                assert await new[1].receive() == frame(Role.SILO)

        run(test())


class TestHandshake:
    def test_compresses_nothing_even_if_asked(self) -> None:
        async def test() -> None:
            async with (
                Gateway(gateway_settings()) as gateway,
                connect(
                    gateway.url, compression="deflate", additional_headers=authorised(silo_ticket())
                ) as connection,
            ):
                assert connection.response is not None
                assert "Sec-WebSocket-Extensions" not in connection.response.headers

        run(test())


class TestPairing:
    def test_waits_no_longer_than_it_says(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings(pairing_seconds=0.1)) as gateway:
                assert await refused_for(gateway, silo_ticket()) is CloseReason.PEER_ABSENT

        run(test())

    @pytest.mark.parametrize(
        "changes",
        [{"job": "another"}, {"replica": 0}, {"epoch": 4}, {"silo": "another"}, {"worker": "another"}],
        ids=str,
    )
    def test_pairs_nobody_of_another_conversation(self, changes: dict[str, Any]) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings(pairing_seconds=0.2)) as gateway:
                reasons = tuple(
                    await asyncio.gather(
                        refused_for(gateway, silo_ticket()), refused_for(gateway, worker_ticket(**changes))
                    )
                )
                assert reasons == (CloseReason.PEER_ABSENT,) * 2

        run(test())

    def test_what_is_sent_early_waits_for_the_peer(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                headers = authorised(silo_ticket())
                async with bare_connection(gateway, additional_headers=headers) as silo:
                    await silo.send(frame(Role.SILO))
                    worker = await connect_gateway(gateway.url, ticket=worker_ticket())
                    assert await worker.receive() == frame(Role.SILO)
                    assert await silo.recv() == PAIRED

        run(test())

    def test_a_cancelled_wait_leaves_no_connection(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                waiting = asyncio.create_task(connect_gateway(gateway.url, ticket=silo_ticket()))
                await until(lambda: gateway.hall.num_guests == 1)
                waiting.cancel()
                await until(lambda: gateway.hall.num_guests == 0)

        run(test())

    def test_another_server_is_no_gateway(self) -> None:
        async def test() -> None:
            async def greet(connection: ServerConnection) -> None:
                await connection.send("hello")

            async with serve(greet, "127.0.0.1", 0) as server:
                port = next(iter(server.sockets)).getsockname()[1]
                with pytest.raises(LinkError, match="not as a gateway"):
                    await connect_gateway(f"ws://127.0.0.1:{port}/", ticket=silo_ticket())

        run(test())


class TestRelay:
    def test_two_pairs_get_each_their_own(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                one, other = await asyncio.gather(pair(gateway), pair(gateway, silo="hospital"))
                await one[0].send(frame(Role.SILO, b"one"))
                await other[0].send(frame(Role.SILO, b"other"))
                assert await one[1].receive() == frame(Role.SILO, b"one")
                assert await other[1].receive() == frame(Role.SILO, b"other")

        run(test())

    def test_a_frame_that_does_not_fit_ends_both_sides(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                silo, worker = await pair(gateway)
                await silo.send(frame(Role.WORKER))
                assert await closed_for(silo) is CloseReason.BAD_FRAME
                assert await closed_for(worker) is CloseReason.PEER_GONE

        run(test())

    def test_a_frame_over_the_limit_ends_both_sides(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings(max_frame_bytes=1 << 12)) as gateway:
                silo, worker = await pair(gateway)  # whose own limits are higher
                await silo.send(frame(Role.SILO, bytes(1 << 12)))
                assert await closed_for(silo) is CloseReason.FRAME_TOO_LARGE
                assert await closed_for(worker) is CloseReason.PEER_GONE
                await until(lambda: gateway.counters.closed["frame_too_large"] == 1)

        run(test())

    def test_a_stalled_receiver_costs_no_memory_and_no_other_pair(self) -> None:
        """The sender stops after the frames that fit on the way; sockets hold some more."""

        async def test() -> None:
            content = bytes(1 << 20)
            async with (
                Gateway(gateway_settings(close_seconds=0.2)) as gateway,
                bare_connection(gateway, additional_headers=authorised(worker_ticket()), max_queue=1),
            ):
                silo = await connect_gateway(gateway.url, ticket=silo_ticket())
                sender = asyncio.create_task(_send_for_ever(silo, frame(Role.SILO, content)))
                held = -1
                while held != gateway.counters.frames.total():
                    held = gateway.counters.frames.total()
                    await asyncio.sleep(0.3)
                guests = gateway.hall._guests
                unwritten = [guest.connection.transport.get_write_buffer_size() for guest in guests]
                unread = [len(guest.connection.recv_messages.frames) for guest in guests]
                assert max(unwritten) <= len(content) + (1 << 17)
                assert sum(unread) <= 2
                others = await pair(gateway, silo="hospital")
                await others[0].send(frame(Role.SILO, b"quick"))
                await others[1].receive()
                sender.cancel()

        run(test())

    def test_an_idle_pair_is_closed(self) -> None:
        async def test() -> None:
            settings = gateway_settings(max_idle_seconds=1, standings_seconds=0.05)
            async with Gateway(settings) as gateway:
                silo, worker = await pair(gateway)
                for _ in range(6):
                    await asyncio.sleep(0.25)
                    await worker.send(frame(Role.WORKER))  # one side's words keep the pair
                    await silo.receive()
                assert await closed_for(silo) is CloseReason.IDLE
                assert await closed_for(worker) in {CloseReason.IDLE, CloseReason.PEER_GONE}

        run(test())

    def test_a_silent_connection_is_dropped(self) -> None:
        """Its websocket answers no ping, as when the machine or the way to it is gone."""

        async def test() -> None:
            settings = gateway_settings(ping_seconds=0.1, silence_seconds=0.5)
            async with Gateway(settings) as gateway:
                reader, writer = await _open_socket(gateway)
                writer.write(_upgrade(worker_ticket()))
                await reader.readuntil(b"\r\n\r\n")
                silo = await connect_gateway(gateway.url, ticket=silo_ticket(), ping_seconds=0.1)
                assert await closed_for(silo) is CloseReason.PEER_GONE
                writer.close()

        run(test())

    def test_a_slow_receiver_is_not_silent(self) -> None:
        """It answers no ping for longer than the limit, because it still takes what came before."""

        async def test() -> None:
            settings = gateway_settings(ping_seconds=0.1, silence_seconds=0.5)
            async with Gateway(settings) as gateway:
                reader, writer = await _open_socket(gateway)
                writer.write(_upgrade(worker_ticket()))
                await reader.readuntil(b"\r\n\r\n")
                silo = await connect_gateway(gateway.url, ticket=silo_ticket(), silence_seconds=10)
                data = frame(Role.SILO, bytes(4 << 20))
                sender = asyncio.create_task(_send_many(silo, data, number=6))
                began, taken = asyncio.get_running_loop().time(), 0
                while taken < 6 * len(data):  # more than sockets hold on the way
                    taken += len(await reader.readexactly(1 << 20))
                    await asyncio.sleep(0.08)
                    if 6 * len(data) - taken < 1 << 20:
                        break
                assert asyncio.get_running_loop().time() - began > 3 * settings.silence_seconds
                await sender
                writer.close()
                await silo.close()

        run(test())

    def test_a_quiet_pair_that_answers_pings_lives_on(self) -> None:
        async def test() -> None:
            settings = gateway_settings(ping_seconds=0.1, silence_seconds=0.5)
            async with Gateway(settings) as gateway:
                silo, worker = await pair(gateway)
                await asyncio.sleep(1.2)
                await silo.send(frame(Role.SILO))
                await worker.receive()

        run(test())


def _upgrade(text: str, *, padding: int = 0) -> bytes:
    lines = [
        "GET /relay HTTP/1.1",
        "Host: gateway",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Authorization: Bearer {text}",
        *(f"X-Padding-{number}: {'x' * 1000}" for number in range(padding)),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _receive_for_ever(link: Link) -> None:
    while True:
        await link.receive()


async def _send_many(link: Link, data: bytes, *, number: int) -> None:
    for _ in range(number):
        await link.send(data)


async def _send_for_ever(link: Link, data: bytes) -> None:
    while True:
        await link.send(data)


class TestStandings:
    @pytest.mark.parametrize(
        ("epoch", "revoked", "reason", "stalled"),
        [
            (TALK.epoch + 1, False, CloseReason.SUPERSEDED, False),
            (TALK.epoch + 1, False, CloseReason.SUPERSEDED, True),
            (TALK.epoch, True, CloseReason.REVOKED, False),
        ],
    )
    def test_closes_those_that_the_feed_objects_to_and_no_others(
        self,
        epoch: int,
        revoked: bool,  # noqa: FBT001
        reason: CloseReason,
        stalled: bool,  # noqa: FBT001
    ) -> None:
        async def test() -> None:
            feed = ToldFeed()
            async with Gateway(gateway_settings(), feed=feed) as gateway:  # the default times
                silo, worker = await pair(gateway)
                others = await pair(gateway, job="untouched")
                sender = None
                if stalled:
                    sender = asyncio.create_task(_send_for_ever(worker, frame(Role.WORKER, bytes(1 << 20))))
                    await asyncio.sleep(0.5)
                feed.told = [
                    Standing(Seat(TALK.job, TALK.replica, Role.SILO, "clinic"), epoch, is_revoked=revoked)
                ]
                async with asyncio.timeout(5):
                    await until(lambda: gateway.hall.num_guests == 2)
                if sender is not None:
                    with pytest.raises(GatewayClosedError):
                        await sender
                    await silo.close()
                else:
                    assert await closed_for(silo) is reason
                    assert await closed_for(worker) is CloseReason.PEER_GONE
                assert await refused_for(gateway, silo_ticket()) is reason
                await others[0].send(frame(Role.SILO, job_tag=job_tag("untouched")))
                await others[1].receive()

        run(test())

    def test_a_higher_ticket_closes_the_lower_connection(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                old = await pair(gateway)
                new = await pair(gateway, epoch=TALK.epoch + 1)
                for link in old:
                    assert await closed_for(link) in {CloseReason.SUPERSEDED, CloseReason.PEER_GONE}
                await new[0].send(frame(Role.SILO, epoch=TALK.epoch + 1))
                await new[1].receive()

        run(test())

    def test_asks_about_those_who_are_there(self) -> None:
        async def test() -> None:
            feed = ToldFeed()
            async with Gateway(gateway_settings(standings_seconds=0.05), feed=feed) as gateway:
                await until(lambda: feed.asked)
                links = await pair(gateway)
                expected = {Seat(TALK.job, 1, Role.SILO, "clinic"), Seat(TALK.job, 1, Role.WORKER, "gpu-1")}
                await until(lambda: feed.asked[-1] == expected)
                await links[0].close()

        run(test())

    def test_a_deaf_feed_stops_readiness_but_no_pair(self) -> None:
        async def test() -> None:
            feed = ToldFeed()
            async with Gateway(gateway_settings(standings_seconds=0.05), feed=feed) as gateway:
                silo, worker = await pair(gateway)
                feed.is_deaf = True
                await until_ready_is(gateway, 503)
                await silo.send(frame(Role.SILO))
                await worker.receive()
                assert (await _get(gateway, "/healthz"))[0] == 200
                feed.is_deaf = False
                await until_ready_is(gateway, 200)

        run(test())


async def _open_socket(gateway: Gateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gateway.url.removeprefix("ws://").removesuffix("/relay").split(":")
    return await asyncio.open_connection(host, int(port))


async def _get(gateway: Gateway, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    reader, writer = await _open_socket(gateway)
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: gateway\r\n{lines}\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


class TestHttp:
    def test_tells_health_and_counts(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                assert await _get(gateway, "/healthz") == (200, "ok\n")
                assert await _get(gateway, "/readyz") == (200, "ready\n")
                assert (await _get(gateway, "/elsewhere"))[0] == 404
                silo, worker = await pair(gateway)
                await silo.send(frame(Role.SILO))
                await worker.receive()
                await until(gateway.counters.frames.total)
                status, text = await _get(gateway, "/metrics")
                assert status == 200
                assert {
                    "trunkline_gateway_open_connections 2.0",
                    "trunkline_gateway_open_sessions 1.0",
                    "trunkline_gateway_sessions_total 1.0",
                    'trunkline_gateway_relayed_frames_total{direction="silo_to_trunk"} 1.0',
                    'trunkline_gateway_relayed_bytes_total{direction="silo_to_trunk"} 70.0',
                    'trunkline_gateway_relayed_bytes_total{direction="trunk_to_silo"} 0.0',
                } <= set(text.splitlines())

        run(test())

    def test_shows_counts_for_their_token_alone(self) -> None:
        async def test() -> None:
            settings = gateway_settings(metrics_token=SecretStr("word"))
            async with Gateway(settings) as gateway:
                assert (await _get(gateway, "/metrics"))[0] == 403
                assert (await _get(gateway, "/metrics", authorised("other")))[0] == 403
                assert (await _get(gateway, "/metrics", authorised("word")))[0] == 200
                assert (await _get(gateway, "/healthz"))[0] == 200

        run(test())

    def test_shows_no_counts_to_whom_a_proxy_speaks_for(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                assert (await _get(gateway, "/metrics", {"X-Forwarded-For": "203.0.113.7"}))[0] == 403

        run(test())

    def test_cuts_a_request_over_the_header_limit(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                for padding, served in ((5, True), (9, False)):
                    reader, writer = await _open_socket(gateway)
                    writer.write(_upgrade(silo_ticket(), padding=padding))
                    answer = b""
                    with contextlib.suppress(ConnectionResetError):
                        answer = await reader.read(12)
                    assert (answer == b"HTTP/1.1 101") is served
                    writer.close()

        run(test())

    def test_cuts_a_handshake_that_takes_too_long(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings(handshake_seconds=0.2)) as gateway:
                reader, writer = await _open_socket(gateway)
                writer.write(b"GET /relay HTTP/1.1\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()

        run(test())

    def test_cuts_sockets_over_the_limit(self) -> None:
        async def test() -> None:
            settings = gateway_settings(max_connections=2, max_handshakes=1)
            async with Gateway(settings) as gateway:
                sockets = [await _open_socket(gateway) for _ in range(4)]
                with contextlib.suppress(ConnectionResetError):
                    assert await sockets[3][0].read() == b""
                for _, writer in sockets[:3]:
                    assert not writer.is_closing()
                for _, writer in sockets:
                    writer.close()

        run(test())


class TestEnd:
    def test_tells_everybody_that_it_goes_away(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                silo, worker = await pair(gateway)
                waiting = asyncio.create_task(refused_for(gateway, silo_ticket(job="waiting")))
                await until(lambda: gateway.hall.num_guests == 3)
            assert await waiting is CloseReason.GOING_AWAY
            for link in (silo, worker):
                assert await closed_for(link) is CloseReason.GOING_AWAY

        run(test())

    def test_a_stalled_receiver_does_not_hold_it_up(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings(close_seconds=0.2)) as gateway:
                silo, worker = await pair(gateway)
                sender = asyncio.create_task(_send_for_ever(silo, frame(Role.SILO, bytes(1 << 20))))
                await asyncio.sleep(0.5)
                began = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - began < 2
            with pytest.raises(LinkError):
                await sender
            await worker.close()

        run(test())

    def test_ends_when_its_watch_fails(self) -> None:
        """Without it, nobody would close what is revoked."""

        class BrokenFeed(ToldFeed):
            async def standings(self, seats: Collection[Seat]) -> Collection[Standing]:
                raise RuntimeError(f"a bug, asked about {len(seats)}")

        async def test() -> None:
            settings = gateway_settings(standings_seconds=0.05)
            async with Gateway(settings, feed=BrokenFeed()) as gateway:
                with pytest.raises(RuntimeError, match="a bug"):
                    await gateway.run(asyncio.Event())

        run(test())

    def test_a_pair_that_left_leaves_nothing(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                for _ in range(3):
                    for link in await pair(gateway):
                        await link.close()
                await until(lambda: gateway.hall.num_guests == 0)
                assert not gateway.hall.seats()
                assert not gateway.hall._places
                assert not gateway.hall._per_party
                assert gateway.counters.sessions == 3
                assert gateway.hall.num_sessions == 0

        run(test())

    def test_a_port_in_use_is_named(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                port = int(gateway.url.removesuffix("/relay").rsplit(":", 1)[1])
                with pytest.raises(LinkError, match=f"{port}.*TRUNKLINE_GATEWAY_PORT"):
                    await Gateway(gateway_settings(port=port)).__aenter__()

        run(test())

    def test_a_link_refuses_a_frame_over_its_own_limit(self) -> None:
        async def test() -> None:
            async with Gateway(gateway_settings()) as gateway:
                silo, _ = await asyncio.gather(
                    connect_gateway(
                        gateway.url, ticket=silo_ticket(), limits=Limits(max_frame_bytes=1 << 12)
                    ),
                    connect_gateway(gateway.url, ticket=worker_ticket()),
                )
                with pytest.raises(LinkError, match="max_frame_bytes"):
                    await silo.send(bytes((1 << 12) + 1))

        run(test())
