import asyncio

from client_agent.training_loop import _Way
from splitlearn.link import Link, WebsocketListener, connect_websocket, memory_pair
from splitlearn.link.gateway import GatewayLink, _GatewayConnection


def test_a_websockets_round_trip_is_that_of_its_last_ping() -> None:
    async def main() -> tuple[float | None, float | None, float]:
        over = asyncio.Event()

        async def hold(_: Link) -> None:
            await over.wait()

        async with WebsocketListener(hold) as listener:
            way = _Way(lambda: connect_websocket(listener.url))
            link = await way()
            before = way.round_trip_seconds
            pong = await link._connection.ping()  # type: ignore[attr-defined]
            seconds = await pong
            after = way.round_trip_seconds
            await link.close()
            over.set()
            return before, after, seconds

    before, after, seconds = asyncio.run(main())
    # A keepalive of its own may have come back first: then it is known already.
    assert before is None or before > 0
    assert after is not None
    assert after > 0
    assert seconds > 0


def test_through_a_gateway_it_is_the_shortest_ping() -> None:
    connection = _GatewayConnection.__new__(_GatewayConnection)
    connection.latency = 0.0
    link = GatewayLink(connection, max_frame_bytes=1)
    found = [link.round_trip_seconds]
    for latency in (0.3, 0.1, 0.5):
        connection.latency = latency
        found.append(link.round_trip_seconds)
    assert found == [None, 0.3, 0.1, 0.1]


def test_a_link_that_is_no_websocket_has_none() -> None:
    async def main() -> float | None:
        async def connect() -> Link:
            return memory_pair()[0]

        way = _Way(connect)
        assert way.round_trip_seconds is None
        await way()
        return way.round_trip_seconds

    assert asyncio.run(main()) is None
