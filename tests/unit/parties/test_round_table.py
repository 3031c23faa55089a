"""The worker's conversations as one place to listen and speak."""

import asyncio

import pytest

from splitlearn.errors import LocalProtocolError, ProtocolError, TrainingError
from splitlearn.parties.round_table import RoundTable, SiloAwayError
from splitlearn.wire import Goodbye, GoodbyeReason, Phase, Ready, RoundSaved, TurnRequest
from tests.unit.exchange.conftest import READY, TURN, run, until
from tests.unit.parties.conftest import activations, meeting

LEAVE = Goodbye(reason=GoodbyeReason.FAILED)


class TestNext:
    def test_keeps_what_is_not_due(self) -> None:
        async def test() -> None:
            async with meeting("a", "b") as (silos, trunk), RoundTable(trunk, patience_seconds=9) as table:
                await silos["a"].send(READY)
                waiting = asyncio.create_task(table.next({"b"}))
                await until(lambda: bool(table._early))
                await silos["b"].send(READY)
                assert (await waiting)[0] == "b"
                assert (await table.next({"a", "b"}))[0] == "a"

        run(test())

    def test_keeps_each_silos_order(self) -> None:
        async def test() -> None:
            async with meeting("a", "b") as (silos, trunk), RoundTable(trunk, patience_seconds=9) as table:
                await silos["a"].send(READY)
                await table.collect("a", Ready)
                await table.send("a", TURN)
                await silos["a"].receive()
                for index in range(3):
                    await silos["a"].send(activations(index, num_micro_batches=3))
                await silos["b"].send(READY)
                await table.next({"b"})
                heard = [(await table.next({"a"}))[1] for _ in range(3)]
                assert [getattr(message, "micro_batch", None) for message in heard] == [0, 1, 2]

        run(test())

    def test_a_silo_that_leaves_is_heard_though_not_due(self) -> None:
        async def test() -> None:
            async with meeting("a", "b") as (silos, trunk), RoundTable(trunk, patience_seconds=9) as table:
                await silos["b"].send(LEAVE)
                with pytest.raises(TrainingError, match=r"silo 'b' left the job \(failed\)"):
                    await table.next({"a"})

        run(test())

    def test_patience_names_who_is_missing(self) -> None:
        async def test() -> None:
            async with meeting("a", "b") as (_, trunk), RoundTable(trunk, patience_seconds=0.05) as table:
                with pytest.raises(TrainingError, match=r"0.05 seconds.*silo 'a'; silo 'b'.*resume the job"):
                    await table.next({"b", "a"})

        run(test())

    def test_a_conversation_that_failed_is_heard(self) -> None:
        async def test() -> None:
            async with (
                meeting("a", patience_seconds=0.1) as (silos, trunk),
                RoundTable(trunk, patience_seconds=9) as table,
            ):
                await silos["a"].__aexit__(None, None, None)
                with pytest.raises(SiloAwayError, match="silo 'a' was away"):
                    await table.next({"a"})

        run(test())

    def test_a_request_is_answered_by_the_protocol_alone(self) -> None:
        async def test() -> None:
            async with meeting("a") as (silos, trunk), RoundTable(trunk, patience_seconds=0.2) as table:
                await silos["a"].send(READY)
                await table.next({"a"})
                await silos["a"].send(TurnRequest(phase=Phase.GENERATE))
                await silos["a"].receive()
                with pytest.raises(TrainingError, match="no progress"):
                    await table.next({"a"})

        run(test())


class TestCollect:
    def test_returns_in_the_order_asked_for(self) -> None:
        async def test() -> None:
            async with meeting("a", "b") as (silos, trunk), RoundTable(trunk, patience_seconds=9) as table:
                await silos["b"].send(READY)
                await until(lambda: not table._heard.empty())
                await silos["a"].send(READY)
                assert list(await table.collect(("a", "b"), Ready)) == ["a", "b"]

        run(test())

    def test_refuses_another_kind(self) -> None:
        async def test() -> None:
            async with meeting("a") as (silos, trunk), RoundTable(trunk, patience_seconds=9) as table:
                await silos["a"].send(READY)
                with pytest.raises(ProtocolError, match="silo 'a' sent Ready where none was awaited"):
                    await table.collect(("a",), RoundSaved)

        run(test())


class TestSend:
    def test_to_a_silo_that_has_left_says_so(self) -> None:
        """It left while the worker computed; that is not the worker's mistake."""

        async def test() -> None:
            async with meeting("a") as (silos, trunk), RoundTable(trunk, patience_seconds=9) as table:
                await silos["a"].send(READY)
                await table.collect("a", Ready)
                await silos["a"].send(LEAVE)
                await until(lambda: not table._heard.empty())
                with pytest.raises(TrainingError, match="silo 'a' left the job"):
                    await table.send("a", TURN)

        run(test())

    def test_a_mistake_of_ours_stays_one(self) -> None:
        async def test() -> None:
            async with meeting("a") as (_, trunk), RoundTable(trunk, patience_seconds=9) as table:
                with pytest.raises(LocalProtocolError):
                    await table.send("a", TURN)

        run(test())
