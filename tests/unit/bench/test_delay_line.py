import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from bench.delay_line import DelayedLines, DelayedLink
from splitlearn.errors import LinkError
from splitlearn.link import MemoryLink, memory_pair

R = TypeVar("R")
DELAY_SECONDS = 0.05


class TimelessLoop(asyncio.SelectorEventLoop):
    """A loop that does not sleep: when nothing else is to be done, its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, R]) -> R:
    with asyncio.Runner(loop_factory=TimelessLoop) as runner:
        return runner.run(main)


def pair(*, delay_seconds: float = DELAY_SECONDS, max_frames: int = 64) -> tuple[DelayedLink, MemoryLink]:
    here, there = memory_pair(max_queued_frames=1)
    link = DelayedLink(here, out_seconds=delay_seconds, in_seconds=2 * delay_seconds, max_frames=max_frames)
    return link, there


class TestDelayedLink:
    def test_frames_come_in_order_each_as_late_as_the_first(self) -> None:
        async def main() -> tuple[list[object], list[float]]:
            link, there = pair()
            for number in range(10):
                await link.send(bytes([number]))
            frames: list[object] = []
            moments: list[float] = []
            for _ in range(10):
                frames.append(await there.receive())
                moments.append(asyncio.get_running_loop().time())
            await link.close()
            return frames, moments

        frames, moments = run(main())
        assert frames == [bytes([number]) for number in range(10)]
        assert moments == pytest.approx([DELAY_SECONDS] * 10)

    def test_what_is_received_has_a_delay_of_its_own(self) -> None:
        async def main() -> float:
            link, there = pair()
            await there.send(b"frame")
            await link.receive()
            moment = asyncio.get_running_loop().time()
            await link.close()
            return moment

        assert run(main()) == pytest.approx(2 * DELAY_SECONDS)

    def test_a_full_line_holds_its_sender_back(self) -> None:
        async def main() -> float:
            link, there = pair(max_frames=2)
            for number in range(3):
                await link.send(bytes([number]))
            moment = asyncio.get_running_loop().time()
            for _ in range(3):
                await there.receive()
            await link.close()
            return moment

        assert run(main()) == pytest.approx(DELAY_SECONDS)  # when the first had left it

    def test_the_other_ends_loss_ends_this_one(self) -> None:
        async def main() -> None:
            link, there = pair()
            await there.close()
            with pytest.raises(LinkError):
                await link.receive()
            with pytest.raises(LinkError):
                await link.send(b"frame")
            await link.close()

        run(main())

    def test_closing_ends_what_waits(self) -> None:
        async def main() -> None:
            link, there = pair()
            waiting = asyncio.create_task(link.receive())
            await asyncio.sleep(0)
            await link.close()
            with pytest.raises(LinkError):
                await waiting
            with pytest.raises(LinkError):
                await there.receive()

        run(main())


class TestDelayedLines:
    def test_a_silos_dial_reaches_the_worker_after_half_a_round_trip(self) -> None:
        async def main() -> tuple[object, float]:
            lines = DelayedLines(["north"], round_trip_seconds=0.1)
            link = await lines.dial("north")()
            there = await lines.answer("north")()
            await link.send(b"frame")
            received = await there.receive()
            moment = asyncio.get_running_loop().time()
            await link.close()
            return received, moment

        received, moment = run(main())
        assert received == b"frame"
        assert moment == pytest.approx(0.05)
