"""The thread that computes: waited for within patience, and given up after it."""

import asyncio
import threading
import time

import pytest

from splitlearn.parties import ComputeThread, StuckError


@pytest.fixture
def release() -> threading.Event:
    return threading.Event()


class TestPatience:
    def test_gives_up_a_computation_that_does_not_come_back(self, release: threading.Event) -> None:
        async def test() -> None:
            async with ComputeThread("trunk", patience_seconds=0.05) as compute:
                await compute(release.wait)

        with pytest.raises(
            StuckError, match=r"'trunk' has not come back for 0.05 seconds \(patience_seconds\)"
        ):
            asyncio.run(test())
        release.set()

    def test_a_cancelled_one_is_waited_for_no_longer_than_that(self, release: threading.Event) -> None:
        async def test() -> None:
            async with ComputeThread("trunk", patience_seconds=0.05) as compute:
                task = asyncio.create_task(compute(release.wait))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        with pytest.raises(StuckError):
            asyncio.run(test())
        release.set()

    def test_another_error_counts_more(self, release: threading.Event) -> None:
        compute = ComputeThread("trunk", patience_seconds=0.05)

        async def test() -> None:
            async with compute:
                task = asyncio.create_task(compute(release.wait))
                await asyncio.sleep(0)
                task.cancel()
                raise KeyError

        with pytest.raises(KeyError):
            asyncio.run(test())
        assert compute.is_stuck
        release.set()

    def test_waits_for_the_running_one_and_keeps_its_own_timeouts(self) -> None:
        done: list[str] = []

        def slow() -> None:
            time.sleep(0.05)
            done.append("slow")

        def late() -> None:
            raise TimeoutError("of the function itself")

        async def test() -> None:
            async with ComputeThread("trunk", patience_seconds=30) as compute:
                with pytest.raises(TimeoutError, match="of the function itself"):
                    await compute(late)
                task = asyncio.create_task(compute(slow))
                await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert not compute.is_stuck

        asyncio.run(test())
        assert done == ["slow"]
