"""Keeps one job's process alive as long as the job wants it, and ends it in time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from client_agent.job_record import JobRecord
from client_agent.log import LOGGER
from client_agent.places import JobFolder
from client_agent.processes.job_process import JobProcess
from client_agent.processes.messages import Ended, PhaseBegan
from client_agent.restarts import Restarts
from client_agent.watch import AgentWatch
from splitlearn.control_plane.schemas import DesiredState, SiloJob
from splitlearn.errors import ProcessError, StorageError

STOP_SECONDS = 3.0
"""A cancelled job is over within 5 s, of which the news may take one and a half."""

LAST_WORD_SECONDS = 0.5
"""Mostly a job is gone because this silo's part is done: its process is about to say so."""

_log = logging.getLogger(LOGGER)

Start = Callable[[str], Awaitable[JobProcess]]
"""Starts a process for a job's id."""

GiveUp = Callable[[str, str], Awaitable[None]]
"""Tells the control plane that this silo cannot go on with a job, and why."""


class JobKeeper:
    """Has one process for one job, or none once its part is over.

    Args:
        job: The job as it was first seen.
        dataset: The silo's data set for it.
        folder: What is kept of it.
        start: Starts a process.
        give_up: Told when processes keep dying.
        restarts: How often and how soon.
        watch: Counts processes, and what they do.
    """

    def __init__(
        self,
        job: SiloJob,
        *,
        dataset: str,
        folder: JobFolder,
        start: Start,
        give_up: GiveUp,
        restarts: Restarts,
        watch: AgentWatch | None = None,
    ) -> None:
        self._watch = watch or AgentWatch()
        self._job, self._folder = job, folder
        self._start, self._give_up, self._restarts = start, give_up, restarts
        self._process: JobProcess | None = None
        self._is_stopping = False
        self._record = JobRecord(
            id=job.id,
            name=job.name,
            dataset=dataset,
            state=job.state,
            phase="preparing",
            updated_at=datetime.now(tz=UTC),
        )
        self._watch.phase(job.id, self._record.phase)
        self._task = asyncio.create_task(self._keep(), name=f"job {job.id}")

    @property
    def is_over(self) -> bool:
        """Whether the silo's part has come to an end here."""
        return self._task.done()

    @property
    def epoch(self) -> int:
        """Epoch of the lease in the newest view, 0 for none."""
        return self._job.lease.epoch if self._job.lease is not None else 0

    def update(self, job: SiloJob) -> None:
        """Take over a newer view, and pass it on."""
        if job == self._job:
            return
        self._job = job
        if job.state != self._record.state:
            self._note(state=job.state)
        if job.desired is DesiredState.CANCEL:
            self._stop_soon("the job is cancelled")
        elif self._process is not None and not self._is_stopping:
            self._process.update(job)

    async def stop(self, why: str) -> None:
        """End the process in order, or at once when it takes too long."""
        self._stop_soon(why)
        await asyncio.gather(self._task, return_exceptions=True)

    async def leave(self) -> None:
        """End the process of a job that the control plane has no more for, unless it ends by itself now."""
        await asyncio.wait({self._task}, timeout=LAST_WORD_SECONDS)
        await self.stop("the job is over, or this silo's part in it")

    def _stop_soon(self, why: str) -> None:
        if self._is_stopping or self._task.done():
            return
        self._is_stopping = True
        _log.info("job %s: stopping, for %s", self._job.id, why)
        if self._process is None:
            self._task.cancel()
        else:
            self._process.ask_to_stop()
            asyncio.get_running_loop().call_later(STOP_SECONDS, self._kill)

    def _kill(self) -> None:
        if self._process is not None and not self._task.done():
            self._process.kill()

    async def _keep(self) -> None:
        while True:
            began, saved = time.monotonic(), self._folder.saved_rounds()
            ended, how = await self._live()
            if ended is not None or self._is_stopping:
                self._close(ended)
                return
            pause_seconds = self._restarts.died(
                after_seconds=time.monotonic() - began, got_on=not self._folder.saved_rounds() <= saved
            )
            if pause_seconds is None:
                await self._despair(how)
                return
            self._watch.process_died()
            _log.warning("job %s: its process %s; started again", self._job.id, how)
            await asyncio.sleep(pause_seconds)

    async def _live(self) -> tuple[Ended | None, str]:
        """Run one process to its end; return its last word, and how it ended."""
        try:
            self._process = await self._start(self._job.id)
        except (ProcessError, StorageError) as error:
            return None, error.message
        self._watch.process_began()
        _log.info("job %s: process %d", self._job.id, self._process.pid)
        try:
            self._process.update(self._job)
            if self._is_stopping:
                self._process.ask_to_stop()
            ended = None
            async for message in self._process.messages():
                if isinstance(message, PhaseBegan):
                    self._note(phase=message.phase, message=message.message)
                else:
                    ended = message
            return ended, await self._process.describe_end()
        finally:
            self._process.close()
            self._process = None

    def _close(self, ended: Ended | None) -> None:
        if ended is None:
            self._note(phase="ended", message="the process was ended")
            return
        _log.info("job %s: %s here (%s)", self._job.id, ended.outcome, ended.code)
        self._note(phase=ended.outcome, message=ended.message)

    async def _despair(self, how: str) -> None:
        message = (
            f"the silo's process for the job died {self._restarts.max_deaths} times in a row, the last one "
            f"{how}; see that the silo's machine has memory enough, and the job's log there"
        )
        _log.error("job %s: given up: %s", self._job.id, message)
        self._note(phase="failed", message=message)
        await self._give_up(self._job.id, message)

    def _note(self, **changes: str) -> None:
        self._record = self._record.model_copy(update=changes)
        self._watch.phase(self._job.id, self._record.phase)
        try:
            self._record.write(self._folder.record)
        except StorageError as error:  # the job goes on; whoever asks for its status is told less
            _log.warning("job %s: %s", self._job.id, error.message)
