"""Lines of a job's log on their way to the control plane."""

import asyncio
from collections.abc import Sequence

import pytest

from splitlearn.control_plane import job_log
from splitlearn.control_plane.errors import JobOverError
from splitlearn.control_plane.job_log import JobLog
from splitlearn.control_plane.schemas import MAX_LOG_LINES, LogLine


class Receiver:
    """Takes lines, or refuses them."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.steps: list[int | None] = []
        self.num_asked = 0

    async def __call__(self, lines: Sequence[LogLine]) -> None:
        self.num_asked += 1
        if self.refuses:
            raise JobOverError("the job is over")
        self.steps += [line.step for line in lines]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_log, "_BATCH_SECONDS", 0.001)


async def run_for(log: JobLog, seconds: float) -> None:
    task = asyncio.create_task(log.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class TestJobLog:
    def test_sends_each_line_once_in_order(self) -> None:
        async def test() -> None:
            receiver = Receiver()
            log = JobLog(receiver)
            for step in range(3):
                log.tell("step", step=step)
            await run_for(log, 0.05)
            assert receiver.steps == [0, 1, 2]

        asyncio.run(test())

    def test_sends_the_last_word_when_it_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def test() -> None:
            monkeypatch.setattr(job_log, "_BATCH_SECONDS", 60.0)
            receiver = Receiver()
            log = JobLog(receiver)
            task = asyncio.create_task(log.run())
            await asyncio.sleep(0)
            log.tell("finished", step=9)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert receiver.steps == [9]

        asyncio.run(test())

    def test_keeps_no_more_than_one_request_takes_and_loses_the_oldest(self) -> None:
        async def test() -> None:
            receiver = Receiver()
            log = JobLog(receiver)
            for step in range(MAX_LOG_LINES + 5):
                log.tell("step", step=step)
            await run_for(log, 0.05)
            assert receiver.steps == list(range(5, MAX_LOG_LINES + 5))

        asyncio.run(test())

    def test_a_refusal_loses_the_lines_and_ends_nothing(self) -> None:
        async def test() -> None:
            receiver = Receiver(refuses=True)
            log = JobLog(receiver)
            log.tell("step", step=1)
            await run_for(log, 0.05)
            assert (receiver.steps, receiver.num_asked) == ([], 1)

        asyncio.run(test())
