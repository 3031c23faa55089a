"""One conversation over as many connections as it takes."""

import asyncio
from typing import Any

import pytest

from splitlearn.errors import IdentityError, LinkError, LocalProtocolError
from splitlearn.exchange import Exchange
from splitlearn.identity import Certificate, CertificateKind, FederationRoot, TrustStore
from splitlearn.link import Link, MemorySwitchboard, memory_pair
from splitlearn.protocol import TrunkProtocol
from splitlearn.wire import (
    Codec,
    JobEnd,
    JobStatus,
    Phase,
    Refusal,
    RefusalCode,
    TurnRequest,
)
from tests.unit.exchange.conftest import (
    READY,
    ROSTER,
    TURN,
    never,
    run,
    silo_side,
    trunk_side,
    unreachable,
    until,
)

ASK = TurnRequest(phase=Phase.EVAL)


class TestMessages:
    def test_go_both_ways(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial) as silo, trunk_side(board.answer) as trunk:
                await silo.send(READY)
                assert (await trunk.receive()).message == READY
                await trunk.send(TURN)
                assert (await silo.receive()).message == TURN
                await silo.delivered()

        run(test())

    def test_may_be_sent_before_there_is_a_connection(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial) as silo:
                await silo.send(READY)
                async with trunk_side(board.answer) as trunk:
                    assert (await trunk.receive()).message == READY

        run(test())

    def test_what_may_not_be_said_is_our_fault_and_harms_nothing(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial) as silo, trunk_side(board.answer) as trunk:
                with pytest.raises(LocalProtocolError):
                    await silo.send(ASK)
                await silo.send(READY)
                assert (await trunk.receive()).message == READY

        run(test())

    def test_one_that_moved_the_protocol_lies_in_the_inbox(self) -> None:
        """A party that may no longer say something finds the reason at once, without waiting."""

        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial) as silo, trunk_side(board.answer) as trunk:
                await silo.send(READY)
                await trunk.receive()
                await trunk.send(JobEnd(status=JobStatus.FAILED))
                while True:
                    try:
                        await silo.send(ASK)
                    except LocalProtocolError:
                        break
                    await asyncio.sleep(0)
                assert silo.has_received

        run(test())


class TestWindow:
    def test_holds_a_sender_back_until_the_peer_answers(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial, window=2) as silo, trunk_side(board.answer, window=2) as trunk:
                await silo.send(READY)
                await silo.send(ASK)
                third = asyncio.create_task(silo.send(ASK))
                await until(lambda: trunk.has_received)
                await asyncio.sleep(0.02)
                assert not third.done()
                await trunk.send(Refusal(code=RefusalCode.INTERNAL))
                await third

        run(test())

    def test_lets_a_waiting_sender_learn_of_the_end(self) -> None:
        async def test() -> None:
            async with silo_side(unreachable, window=1, patience_seconds=0.1) as silo:
                await silo.send(READY)
                with pytest.raises(LinkError, match="patience_seconds"):
                    await silo.send(ASK)

        run(test())


class TestPatience:
    @pytest.mark.parametrize("connect", [unreachable, never])
    def test_ends_with_a_sentence_that_names_the_peer(self, connect: Any) -> None:
        async def test() -> None:
            async with trunk_side(connect, patience_seconds=0.1) as trunk:
                with pytest.raises(LinkError, match=r"silo 'a' was away for 0.1 seconds .*resume the job"):
                    await trunk.receive()

        run(test())

    def test_hands_out_what_came_before_the_end(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            async with trunk_side(board.answer, patience_seconds=0.1) as trunk:
                async with silo_side(board.dial) as silo:
                    await silo.send(READY)
                    await until(lambda: trunk.has_received)
                await asyncio.sleep(0.3)
                assert (await trunk.receive()).message == READY
                with pytest.raises(LinkError):
                    await trunk.receive()

        run(test())

    def test_of_a_peer_that_connects_and_is_silent(self) -> None:
        async def test() -> None:
            async def silent() -> Link:
                return memory_pair()[0]

            async with silo_side(silent, patience_seconds=0.2, handshake_seconds=0.02) as silo:
                with pytest.raises(LinkError, match="worker-1 was away"):
                    await silo.receive()
                assert silo.traffic.connections > 1

        run(test())

    def test_grows_where_sessions_come_to_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A silo that the worker turns away does not knock 200 times a second."""
        monkeypatch.setattr("splitlearn.exchange.exchange._FIRST_PAUSE_SECONDS", 0.01)

        async def test() -> None:
            board = MemorySwitchboard()
            worker = TrunkProtocol(
                ROSTER.terms["a"], identity=ROSTER.worker, trust=WithoutSilos(), codec=Codec.FP32
            )
            async with (
                Exchange(worker, connect=board.answer, peer="silo 'a'") as trunk,
                silo_side(board.dial) as silo,
            ):
                await silo.send(READY)
                await asyncio.sleep(0.4)
                assert all(isinstance(error, IdentityError) for error in trunk.refusals)
                assert 2 <= silo.traffic.connections <= 10

        run(test())


class WithoutSilos(TrustStore):
    """Stands for a worker that was told of revocations that the silos do not know of."""

    def __init__(self) -> None:
        super().__init__(FederationRoot.generate().public_key)

    def verify(self, certificate: Certificate, **_: Any) -> None:
        if certificate.kind is CertificateKind.SILO:
            raise IdentityError("the certificate is revoked")


class TestReconnection:
    def test_delivers_each_message_once_over_links_that_break(self) -> None:
        async def test() -> None:
            board, links = MemorySwitchboard(), []

            async def dial() -> Link:
                links.append(await board.dial())
                return links[-1]

            async with silo_side(dial) as silo, trunk_side(board.answer) as trunk:
                await silo.send(READY)
                await trunk.receive()
                for _ in range(5):
                    await silo.send(ASK)
                    await links[-1].close()
                    await until(lambda: silo.protocol.is_established)
                    await trunk.send(Refusal(code=RefusalCode.INTERNAL))
                    assert isinstance((await silo.receive()).message, Refusal)
                await until(lambda: trunk._inbox.qsize() == 5)
                assert silo.traffic.connections == trunk.traffic.connections >= 6

        run(test())

    def test_flushed_does_not_wait_for_a_connection_that_is_gone(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            links: list[_Stuck] = []

            async def dial() -> Link:
                if links:
                    return await never()
                links.append(_Stuck(await board.dial()))
                return links[-1]

            async with silo_side(dial) as silo, trunk_side(board.answer):
                await until(lambda: silo.protocol.is_established)
                links[0].stuck = True
                await silo.send(READY)
                flushed = asyncio.create_task(silo.flushed())
                await asyncio.sleep(0.02)
                assert not flushed.done()
                await links[0].close()
                await flushed

        run(test())


class _Stuck:
    """A link that stops taking frames."""

    def __init__(self, inner: Link) -> None:
        self._inner, self.stuck = inner, False
        self._closed = asyncio.Event()

    async def send(self, frame: Any) -> None:
        if self.stuck:
            await self._closed.wait()
            raise LinkError("closed")
        await self._inner.send(frame)

    async def receive(self) -> Any:
        return await self._inner.receive()

    async def close(self) -> None:
        self._closed.set()
        await self._inner.close()


class TestTraffic:
    def test_counts_handshakes_apart_from_turns(self) -> None:
        async def test() -> None:
            board = MemorySwitchboard()
            async with silo_side(board.dial) as silo, trunk_side(board.answer) as trunk:
                await silo.send(READY)
                await trunk.receive()
                before = silo.traffic.total_bytes
                await trunk.send(TURN)
                await silo.receive()
                assert silo.traffic.bytes_of(None) == before > 2000
                assert silo.traffic.bytes_of(Phase.TRAIN) == silo.traffic.total_bytes - before > 64

        run(test())
