import asyncio

import pytest

from splitlearn.control_plane.schemas import DesiredState, RenewAnswer
from worker.orders import Order, Orders, order_of


def answer(
    *, epoch: int = 3, desired: str = "run", drain: bool = False, turn_over: bool = False
) -> RenewAnswer:
    return RenewAnswer(
        epoch=epoch, valid_seconds=15, desired=DesiredState(desired), drain=drain, turn_over=turn_over
    )


class TestOrderOf:
    @pytest.mark.parametrize(
        ("given", "order"),
        [
            (answer(), Order.GO_ON),
            (answer(desired="pause"), Order.PAUSE_AFTER_ROUND),
            (answer(drain=True), Order.DRAIN_AFTER_ROUND),
            (answer(turn_over=True), Order.GIVE_WAY_AFTER_ROUND),
            (answer(drain=True, turn_over=True), Order.DRAIN_AFTER_ROUND),
            (answer(desired="pause", turn_over=True), Order.PAUSE_AFTER_ROUND),
            (answer(epoch=4), Order.BEGIN_AGAIN),
            (answer(epoch=4, desired="pause"), Order.BEGIN_AGAIN),
            (answer(desired="cancel"), Order.CANCEL),
            (answer(epoch=4, desired="cancel"), Order.CANCEL),
        ],
    )
    def test_means(self, given: RenewAnswer, order: Order) -> None:
        assert order_of(given, epoch=3).order is order

    def test_tells_the_epoch(self) -> None:
        assert order_of(answer(epoch=4), epoch=3).epoch == 4


class TestOrders:
    def test_an_immediate_one_wakes(self) -> None:
        async def test() -> None:
            orders = Orders()
            waiting = asyncio.create_task(orders.immediate())
            await asyncio.to_thread(orders.give, Order.CANCEL)
            assert await asyncio.wait_for(waiting, 5) is Order.CANCEL

        asyncio.run(test())

    def test_one_for_the_rounds_end_does_not(self) -> None:
        async def test() -> None:
            orders = Orders()
            waiting = asyncio.create_task(orders.immediate())
            orders.give(Order.PAUSE_AFTER_ROUND)
            await asyncio.sleep(0.01)
            assert not waiting.done()
            assert orders.ends_the_job_after(0)
            waiting.cancel()

        asyncio.run(test())

    def test_whoever_gives_way_does_a_round_first(self) -> None:
        async def test() -> None:
            orders = Orders()
            orders.give(Order.GIVE_WAY_AFTER_ROUND)
            await asyncio.sleep(0)
            assert not orders.ends_the_job_after(0)
            assert orders.ends_the_job_after(1)

        asyncio.run(test())

    def test_is_never_taken_back(self) -> None:
        async def test() -> None:
            orders = Orders()
            orders.give(Order.LOST)
            orders.give(Order.GO_ON)
            await asyncio.sleep(0)
            assert orders.order is Order.LOST

        asyncio.run(test())

    def test_comes_too_late_without_harm(self) -> None:
        async def make() -> Orders:
            return Orders()

        asyncio.run(make()).give(Order.CANCEL)
