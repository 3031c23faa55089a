"""A job's process ends with its supervisor, however that one ends."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from client_agent import runner
from client_agent.job_view import JobView
from client_agent.processes.messages import Ended
from splitlearn.control_plane.schemas import DesiredState, SiloJob

JOB = SiloJob(
    id="00000000-0000-0000-0000-000000000001",
    name="j",
    state="running",
    desired=DesiredState.RUN,
    approval="approved",
    spec="",
    signature="",
)


class _ProcessEndedError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have ended."""
    found: list[int] = []

    def end(code: int) -> None:
        found.append(code)
        raise _ProcessEndedError

    monkeypatch.setattr("client_agent.runner.os._exit", end)
    return found


def listen_to_a_supervisor_that(dies: Callable[[socket.socket, socket.socket], None]) -> None:
    ours, theirs = socket.socketpair()

    async def listen() -> None:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        work: asyncio.Task[Ended] = asyncio.create_task(asyncio.sleep(60), name="job")  # type: ignore[arg-type]
        dies(ours, theirs)
        try:
            with pytest.raises(_ProcessEndedError):
                await runner._listen(reader, JobView(JOB), work)
        finally:
            work.cancel()
            writer.close()

    asyncio.run(listen())


def test_one_that_is_killed_ends_it(codes: list[int]) -> None:
    listen_to_a_supervisor_that(lambda _, theirs: theirs.close())
    assert codes == [70]


def test_one_that_is_killed_before_it_has_read_everything_ends_it(codes: list[int]) -> None:
    """The kernel then resets the line instead of ending it."""

    def die(ours: socket.socket, theirs: socket.socket) -> None:
        ours.send(b"a phase\n")
        theirs.close()

    listen_to_a_supervisor_that(die)
    assert codes == [70]
