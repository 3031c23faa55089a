"""Several workers' conversations as if they were one's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from splitlearn.errors import TrainingError
from splitlearn.exchange import Exchange
from splitlearn.parties import JoinedTables, RoundTable
from splitlearn.wire import Ready
from tests.unit.exchange.conftest import READY, TURN, run
from tests.unit.parties.conftest import meeting


@asynccontextmanager
async def two_tables(
    *, patience_seconds: float = 9
) -> AsyncIterator[tuple[dict[str, Exchange], JoinedTables]]:
    async with (
        meeting("a", "b") as (silos, trunk),
        RoundTable({"a": trunk["a"]}, patience_seconds=patience_seconds) as first,
        RoundTable({"b": trunk["b"]}, patience_seconds=patience_seconds) as second,
    ):
        yield silos, JoinedTables({"a": first, "b": second})


class TestJoinedTables:
    def test_hear_every_silo_once_whichever_worker_it_speaks_to(self) -> None:
        async def test() -> None:
            async with two_tables() as (silos, joined):
                waiting = asyncio.create_task(joined.next({"a", "b"}))
                await silos["b"].send(READY)
                await silos["a"].send(READY)
                first, message = await waiting
                assert isinstance(message, Ready)
                [other] = {"a", "b"} - {first}
                assert (await joined.next({"a", "b"}))[0] == other

        run(test())

    def test_keep_what_is_not_due(self) -> None:
        async def test() -> None:
            async with two_tables() as (silos, joined):
                await silos["a"].send(READY)
                await silos["b"].send(READY)
                assert (await joined.next({"b"}))[0] == "b"
                assert (await joined.next({"a"}))[0] == "a"

        run(test())

    def test_speak_to_each_silo_by_its_own_worker(self) -> None:
        async def test() -> None:
            async with two_tables() as (silos, joined):
                for name in "ab":
                    await silos[name].send(READY)
                    await joined.next({name})
                    await joined.send(name, TURN)
                    assert (await silos[name].receive()).message == TURN

        run(test())

    def test_name_who_is_missing(self) -> None:
        async def test() -> None:
            async with two_tables(patience_seconds=0.05) as (_, joined):
                with pytest.raises(TrainingError, match=r"waiting for silo '(a|b)'"):
                    await joined.next({"a", "b"})

        run(test())
