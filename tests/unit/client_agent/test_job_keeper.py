"""Keeping a job's process, with processes that do what the test says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from client_agent.job_keeper import JobKeeper
from client_agent.job_record import JobRecord
from client_agent.log import LOGGER
from client_agent.places import AgentFolder
from client_agent.processes.job_process import JobProcess
from client_agent.processes.messages import Ended, PhaseBegan
from client_agent.restarts import Restarts
from splitlearn.control_plane.schemas import DesiredState, SiloJob, SiloLease
from splitlearn.errors import ProcessError

JOB = SiloJob(
    id="0f3c0000-0000-4000-8000-000000000001",
    name="job",
    state="running",
    desired=DesiredState.RUN,
    approval="approved",
    spec="",
    signature="",
)
LEASED = JOB.model_copy(
    update={"lease": SiloLease(replica=0, epoch=1, worker="gpu-1", gateway_url="ws://127.0.0.1:1")}
)
FINISHED = Ended(outcome="finished")


class FakeProcess:
    """A process that says something, and then stays until it is ended, or dies.

    Args:
        words: What it says.
        stays: Whether it waits for the end.
    """

    def __init__(self, *words: PhaseBegan | Ended, stays: bool = False, obeys: bool = True) -> None:
        self.pid = 1
        self.updates: list[SiloJob] = []
        self.is_killed = False
        self._words, self._obeys = words, obeys
        self._end = asyncio.Event()
        if not stays:
            self._end.set()

    def update(self, job: SiloJob) -> None:
        self.updates.append(job)

    def ask_to_stop(self) -> None:
        if self._obeys:
            self._end.set()

    def kill(self) -> None:
        self.is_killed = True
        self._end.set()

    def close(self) -> None:
        pass

    async def messages(self) -> AsyncIterator[PhaseBegan | Ended]:
        for word in self._words:
            yield word
        await self._end.wait()

    async def describe_end(self) -> str:
        return "was ended by SIGKILL"


@dataclass
class House:
    """Gives a keeper its processes, one after another."""

    folder: AgentFolder
    processes: list[FakeProcess | ProcessError]
    given_up: list[str] = field(default_factory=list)
    started: list[FakeProcess] = field(default_factory=list)

    def keeper(self, job: SiloJob = JOB, *, max_deaths: int = 3) -> JobKeeper:
        folder = self.folder.job(job.id)
        folder.path.mkdir(parents=True)
        return JobKeeper(
            job,
            dataset="notes",
            folder=folder,
            start=self._start,
            give_up=self._give_up,
            restarts=Restarts(max_deaths=max_deaths),
        )

    def has_started(self, number: int) -> bool:
        return len(self.started) == number

    def record(self) -> JobRecord:
        record = JobRecord.read(self.folder.job(JOB.id).record)
        assert record is not None
        return record

    async def _start(self, _: str) -> JobProcess:
        process = self.processes.pop(0)
        if isinstance(process, ProcessError):
            raise process
        self.started.append(process)
        return cast("JobProcess", process)

    async def _give_up(self, _: str, message: str) -> None:
        self.given_up.append(message)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - a fake has no event for each of its facts
            await asyncio.sleep(0.001)


def run(check: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(check, 10))


class TestKeeper:
    def test_is_over_when_the_process_says_how_it_came_out(self, tmp_path: Path) -> None:
        async def check() -> None:
            house = House(AgentFolder(tmp_path), [FakeProcess(FINISHED)])
            keeper = house.keeper()
            await until(lambda: keeper.is_over)
            assert house.record().phase == "finished"

        run(check())

    def test_starts_another_process_when_one_dies(self, tmp_path: Path) -> None:
        async def check() -> None:
            house = House(AgentFolder(tmp_path), [FakeProcess(), FakeProcess(FINISHED)])
            keeper = house.keeper()
            await until(lambda: keeper.is_over)
            assert (len(house.started), house.given_up) == (2, [])

        run(check())

    def test_goes_on_with_a_job_of_which_each_process_saves_a_round(self, tmp_path: Path) -> None:
        async def check() -> None:
            house = House(
                AgentFolder(tmp_path), [*(FakeProcess(stays=True) for _ in range(5)), FakeProcess(FINISHED)]
            )
            checkpoints = AgentFolder(tmp_path).job(JOB.id).checkpoints
            keeper = house.keeper(max_deaths=2)
            for number in range(1, 6):
                await until(partial(house.has_started, number))
                (checkpoints / f"round-{number:08d}").mkdir(parents=True)
                house.started[-1].kill()
            await until(lambda: keeper.is_over)
            assert (len(house.started), house.given_up) == (6, [])

        run(check())

    def test_gives_a_job_up_whose_processes_keep_dying(self, tmp_path: Path) -> None:
        async def check() -> None:
            house = House(AgentFolder(tmp_path), [FakeProcess(), ProcessError("no forker")])
            keeper = house.keeper(max_deaths=2)
            await until(lambda: keeper.is_over)
            [message] = house.given_up
            assert "died 2 times in a row, the last one no forker" in message

        run(check())

    def test_passes_on_what_changes_and_nothing_twice(self, tmp_path: Path) -> None:
        async def check() -> None:
            process = FakeProcess(stays=True)
            keeper = House(AgentFolder(tmp_path), [process]).keeper()
            await until(lambda: process.updates)
            for job in (JOB, LEASED, LEASED):
                keeper.update(job)
            assert process.updates == [JOB, LEASED]
            await keeper.stop("the test's end")

        run(check())

    def test_ends_the_process_of_a_cancelled_job(self, tmp_path: Path) -> None:
        async def check() -> None:
            process = FakeProcess(stays=True)
            keeper = House(AgentFolder(tmp_path), [process]).keeper()
            await until(lambda: process.updates)
            keeper.update(JOB.model_copy(update={"desired": DesiredState.CANCEL}))
            await until(lambda: keeper.is_over)
            assert not process.is_killed

        run(check())

    def test_leaves_a_process_that_is_about_to_end_to_do_so(self, tmp_path: Path, caplog: Any) -> None:
        async def check() -> None:
            process = FakeProcess(FINISHED, stays=True)
            house = House(AgentFolder(tmp_path), [process])
            keeper = house.keeper()
            await until(lambda: process.updates)
            leaving = asyncio.create_task(keeper.leave())
            await asyncio.sleep(0)
            process.ask_to_stop()  # here: it ends by itself
            await leaving
            assert house.record().phase == "finished"

        with caplog.at_level("INFO", logger=LOGGER):
            run(check())
        assert "stopping" not in caplog.text

    def test_leaves_no_process_that_stays(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr("client_agent.job_keeper.LAST_WORD_SECONDS", 0.01)

        async def check() -> None:
            process = FakeProcess(stays=True)
            keeper = House(AgentFolder(tmp_path), [process]).keeper()
            await until(lambda: process.updates)
            await keeper.leave()
            assert keeper.is_over

        run(check())

    def test_kills_a_process_that_does_not_end(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr("client_agent.job_keeper.STOP_SECONDS", 0.01)

        async def check() -> None:
            process = FakeProcess(stays=True, obeys=False)
            keeper = House(AgentFolder(tmp_path), [process]).keeper()
            await until(lambda: process.updates)
            await keeper.stop("the test's end")
            assert process.is_killed

        run(check())

    def test_records_what_the_process_does(self, tmp_path: Path) -> None:
        async def check() -> None:
            process = FakeProcess(PhaseBegan(phase="training", message="epoch 3"), stays=True)
            house = House(AgentFolder(tmp_path), [process])
            keeper = house.keeper()
            await until(lambda: house.record().phase == "training" if process.updates else False)
            assert house.record().message == "epoch 3"
            await keeper.stop("the test's end")

        run(check())
