"""What ends a conversation for good, what only a connection, and how an exchange is closed."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from splitlearn.channel import UnexpectedKindError
from splitlearn.errors import ChannelError, IdentityError, ProtocolError
from splitlearn.exchange import Exchange
from splitlearn.link import Link, MemorySwitchboard, memory_pair
from splitlearn.protocol import TrunkProtocol
from splitlearn.simulation.roster import enrol
from splitlearn.wire import (
    Codec,
    Goodbye,
    GoodbyeReason,
)
from tests.unit.exchange.conftest import (
    READY,
    ROSTER,
    SPEC,
    never,
    run,
    silo_side,
    trunk_side,
)


class TestRefusals:
    def test_at_the_silo_a_worker_of_another_root_ends_it(self) -> None:
        async def test() -> None:
            board, other = MemorySwitchboard(), enrol(SPEC)
            foreign = TrunkProtocol(
                ROSTER.terms["a"], identity=other.worker, trust=other.trust, codec=Codec.FP32
            )
            async with silo_side(board.dial) as silo, Exchange(foreign, connect=board.answer, peer="a"):
                with pytest.raises(IdentityError, match="root"):
                    await silo.receive()
                assert [type(error) for error in silo.refusals] == [type(silo.refusals[0])] * 2

        run(test())

    @pytest.mark.parametrize("wrong", ["another silo", "garbage", "nothing"])
    def test_at_the_trunk_a_stranger_is_turned_away(self, wrong: str) -> None:
        async def test() -> None:
            board, knocks = MemorySwitchboard(), [wrong]

            async def answer() -> Link:
                if not knocks:
                    return await board.answer()
                near, far = memory_pair()
                if knocks.pop() == "another silo":
                    stranger = silo_side(never, name="b").protocol
                    stranger.connection_made(datetime.now(tz=UTC))
                    await far.send(stranger.data_to_send()[0])
                elif wrong == "garbage":
                    await far.send(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n" * 4)
                return near

            async with silo_side(board.dial) as silo, trunk_side(answer, handshake_seconds=0.05) as trunk:
                await silo.send(READY)
                assert (await trunk.receive()).message == READY
                assert len(trunk.refusals) == (wrong != "nothing")
                assert wrong == "nothing" or "last refused" in trunk.last_refusal

        run(test())

    def test_a_peer_that_proved_itself_and_breaks_the_rules_ends_it(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial) as silo, trunk_side(board.answer) as trunk:
                await silo.send(READY)
                await trunk.receive()
                silo.protocol._rules.state = trunk.protocol.state.__class__.JOINING
                await silo.send(READY)
                with pytest.raises(ProtocolError, match="Ready"):
                    await trunk.receive()

        run(test())

    def test_damage_does_not(self) -> None:
        async def test() -> None:
            board, links = MemorySwitchboard(), []

            async def dial() -> Link:
                links.append(await board.dial())
                return links[-1]

            async with silo_side(dial) as silo, trunk_side(board.answer) as trunk:
                await silo.send(READY)
                await trunk.receive()
                await links[0].send(b"TRK1 but not a frame".ljust(64, b"\xff"))
                await silo.send(Goodbye(reason=GoodbyeReason.FINISHED))
                assert isinstance((await trunk.receive()).message, Goodbye)
                assert len(trunk.refusals) == 1
                assert not isinstance(trunk.refusals[0], ProtocolError)

        run(test())

    def test_the_second_of_a_kind_counts(self) -> None:
        """The first may have been damage on the way; a refusal of another kind in between says so."""
        protocol = silo_side(never)
        protocol._judge(IdentityError("first"), was_established=False)
        protocol._judge(UnexpectedKindError("damage"), was_established=False)
        with pytest.raises(IdentityError, match="second"):
            protocol._judge(IdentityError("second"), was_established=False)
        protocol._judge(ChannelError("in a session"), was_established=True)


def broken_clock() -> datetime:
    raise ZeroDivisionError("a bug")


async def broken_connect() -> Link:
    raise ZeroDivisionError("a bug")


class _BrokenLink:
    def __init__(self) -> None:
        self._inner = memory_pair()[0]

    async def send(self, _: Any) -> None:
        raise ZeroDivisionError("a bug")

    async def receive(self) -> Any:
        return await self._inner.receive()

    async def close(self) -> None:
        await self._inner.close()


async def connect_broken() -> Link:
    return _BrokenLink()


class TestBugs:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: silo_side(MemorySwitchboard().dial, now=broken_clock),
            lambda: silo_side(broken_connect),
            lambda: silo_side(connect_broken),
        ],
        ids=["clock", "connect", "link"],
    )
    def test_surface_where_messages_are_awaited(self, make: Callable[[], Exchange]) -> None:
        async def test() -> None:
            async with make() as silo:
                with pytest.raises(ZeroDivisionError):
                    await silo.receive()
                with pytest.raises(ZeroDivisionError):
                    await silo.send(READY)

        run(test())


class TestClose:
    def test_is_idempotent(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial) as silo:
                await silo.__aexit__(None, None, None)
            await silo.__aexit__(None, None, None)

        run(test())

    @pytest.mark.parametrize("turns", range(12))
    def test_ends_at_any_moment(self, turns: int) -> None:
        """Not even a connection that opens in the same turn of the loop keeps it alive."""

        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial, patience_seconds=20), trunk_side(board.answer):
                for _ in range(turns):
                    await asyncio.sleep(0)

        asyncio.run(asyncio.wait_for(test(), timeout=5))
