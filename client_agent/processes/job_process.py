"""The supervisor's end of one job's process."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

from pydantic import BaseModel

from client_agent.processes.messages import MAX_LINE_BYTES, Ended, FromJob, PhaseBegan, Stop, Update, line
from splitlearn.control_plane.schemas import SiloJob

_EXIT_WORD_SECONDS = 1.0


class JobProcess:
    """A running process of one job; made by :class:`~client_agent.processes.forkery.Forkery`.

    Args:
        pid: Its process id.
        exit_code: Will hold its exit code, or minus a signal's number, if the forker lives to tell.
    """

    def __init__(self, pid: int, exit_code: "asyncio.Future[int]") -> None:
        self.pid = pid
        self._exit_code = exit_code
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, channel: socket.socket) -> None:
        """Begin to talk with it."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=channel, limit=MAX_LINE_BYTES)

    def update(self, job: SiloJob) -> None:
        """Tell it how the control plane sees its job."""
        self._tell(Update(job=job))

    def ask_to_stop(self) -> None:
        """Ask it to end in order."""
        self._tell(Stop())

    async def messages(self) -> AsyncIterator[PhaseBegan | Ended]:
        """Yield what it says, until it is gone."""
        assert self._reader is not None
        with suppress(ConnectionError):
            while data := await self._reader.readline():
                yield FromJob.validate_json(data)

    def kill(self) -> None:
        """End it at once. Only while its end of the socket is open, for then the pid is still its own."""
        assert self._reader is not None
        if not self._reader.at_eof():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def describe_end(self) -> str:
        """Say how it ended, after :meth:`messages` has."""
        try:
            code = await asyncio.wait_for(asyncio.shield(self._exit_code), _EXIT_WORD_SECONDS)
        except TimeoutError:
            return "has gone"
        return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    def close(self) -> None:
        """Let go of it; a process that still runs takes that for the end of the supervisor."""
        if self._writer is not None:
            self._writer.close()

    def _tell(self, message: BaseModel) -> None:
        assert self._writer is not None
        if not self._writer.is_closing():
            self._writer.write(line(message))
