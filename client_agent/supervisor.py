"""The part of the agent that stays up: asks for jobs, checks them, keeps a process for each. Torch-free."""

import asyncio
import logging
import math
from contextlib import suppress
from datetime import UTC, datetime

from client_agent.announcing import Announcer
from client_agent.data import DatasetRegistry
from client_agent.job_keeper import JobKeeper
from client_agent.log import CORRELATION, LOGGER, LogFormat, loggable
from client_agent.places import AgentFolder
from client_agent.processes.forkery import Forkery
from client_agent.processes.job_process import JobProcess
from client_agent.processes.messages import Order
from client_agent.restarts import Restarts
from client_agent.verification import refuse_unfit, verified_spec
from client_agent.watch import AgentWatch
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.errors import RefusedError, RevokedError, SupersededError
from splitlearn.control_plane.expiry import AGAIN_SECONDS, ending_sentence
from splitlearn.control_plane.schemas import (
    ApprovalBody,
    DesiredState,
    FinishBody,
    SiloJob,
    SiloJobsAnswer,
)
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.errors import IdentityError, TrunklineError
from splitlearn.spec import MIN_SILOS_AVERAGED

_log = logging.getLogger(LOGGER)
_POLL_SECONDS = 1.0  # until the control plane has said how often
_WAIT_SECONDS = 20.0
_WAITING = "waiting"
_FINAL = (RevokedError, SupersededError)


class Supervisor:
    """Serves a silo's jobs until it is cancelled, or may speak for the silo no more.

    Args:
        folder: The state folder.
        state: The silo's identity, locked by this process.
        client: Of this silo.
        forkery: Makes processes.
        threads: Threads of each job's process.
        device: Where silo blocks are computed: ``auto``, ``cpu``, ``cuda``.
        log_format: Of the jobs' logs.
        watch: Counts what is done.
        min_metric_rows: The silo's policy: losses and scores over fewer rows are told to nobody.
        min_silos_in_sum: The silo's policy: fewest silos over which it averages its blocks.
    """

    def __init__(
        self,
        folder: AgentFolder,
        *,
        state: StateFolder,
        client: PartyClient,
        forkery: Forkery,
        threads: int,
        device: str,
        log_format: LogFormat = "console",
        watch: AgentWatch | None = None,
        min_metric_rows: int = 1,
        min_silos_in_sum: int = MIN_SILOS_AVERAGED,
    ) -> None:
        self._min_metric_rows, self._min_silos_in_sum = min_metric_rows, min_silos_in_sum
        self._watch = watch or AgentWatch()
        self._log_format = log_format
        self._folder, self._state, self._client, self._forkery = folder, state, client, forkery
        self._threads, self._device = threads, device
        self._silo = state.enrolled().name
        self._registry = DatasetRegistry(folder.path)
        self._announcer = Announcer(self._registry, client)
        self._keepers: dict[str, JobKeeper] = {}
        self._ended_at: dict[str, int] = {}
        self._refused: set[tuple[str, str]] = set()
        self._doubted: dict[tuple[str, str], int] = {}
        self._is_in_doubt = False
        self._num_answers = 0
        self._complaint = ""
        self._asked_at = 0.0
        self._expiry_said_at = -math.inf

    async def run(self) -> None:
        """Serve until cancelled; on the way out every process ends in order.

        Raises:
            SupersededError, RevokedError: This process may speak for the silo no more.
        """
        serving = asyncio.create_task(self._serve(), name="serve")
        ended = asyncio.create_task(self._client.session.ended(), name="session")
        try:
            await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ended.result()
            serving.result()
        finally:
            for task in (serving, ended):
                task.cancel()
            await asyncio.gather(serving, ended, return_exceptions=True)
            await self._stop_all()

    async def _serve(self) -> None:
        answer: SiloJobsAnswer | None = None
        asking: asyncio.Task[SiloJobsAnswer] | None = None
        try:
            while True:
                # More often than there are answers: a process may have ended here meanwhile.
                poll_seconds = _POLL_SECONDS if answer is None else answer.poll_seconds
                self._say_expiry()
                try:
                    await self._announcer.announce_changes()
                    asking = asking or asyncio.create_task(self._ask(answer), name="ask")
                    await asyncio.wait({asking}, timeout=poll_seconds)
                    if asking.done():
                        done, asking = asking, None
                        answer = done.result()
                        self._num_answers += 1
                    if answer is not None:
                        await self._client.session.refresh_revocations(known_number=answer.revocation_number)
                        await self._take(answer.jobs)
                    if self._is_in_doubt:
                        self._is_in_doubt = False
                        await _drop(asking)
                        asking = asyncio.create_task(self._ask(None), name="ask")
                except _FINAL:
                    raise
                except TrunklineError as error:
                    self._complain(error)
                    await asyncio.sleep(poll_seconds)
                else:
                    self._complaint = ""
        finally:
            await _drop(asking)

    async def _ask(self, last: SiloJobsAnswer | None) -> SiloJobsAnswer:
        """Return the next answer, which is held back until it is another than the last."""
        clock = asyncio.get_running_loop().time
        if last is None:
            self._asked_at = clock()
            return await self._client.silo_jobs()
        await asyncio.sleep(self._asked_at + last.poll_seconds - clock())
        self._asked_at = clock()
        return await self._client.silo_jobs(known=last.tag, wait_seconds=_WAIT_SECONDS)

    def _say_expiry(self) -> None:
        """Warn of the certificate's end, once a day."""
        clock = asyncio.get_running_loop().time()
        if clock - self._expiry_said_at < AGAIN_SECONDS:
            return
        self._expiry_said_at = clock
        sentence = ending_sentence(self._state.identity().certificate, now=datetime.now(tz=UTC))
        if sentence is not None:
            _log.warning("%s", sentence)

    def _complain(self, error: TrunklineError) -> None:
        """Log what goes wrong once, not at every poll."""
        sentence = loggable(error)
        if sentence != self._complaint:
            _log.warning("%s", sentence)
        self._complaint = sentence

    async def _take(self, jobs: tuple[SiloJob, ...]) -> None:
        for job in jobs:
            said_before = CORRELATION.set(job.correlation_id)  # tasks that begin here keep it
            try:
                await self._take_one(job)
            finally:
                CORRELATION.reset(said_before)
        gone = self._keepers.keys() - {job.id for job in jobs}
        await asyncio.gather(*(self._drop(job_id) for job_id in gone))
        self._ended_at = {key: epoch for key, epoch in self._ended_at.items() if key not in gone}

    async def _take_one(self, job: SiloJob) -> None:
        keeper = self._keepers.get(job.id)
        if keeper is not None:
            keeper.update(job)
            if not keeper.is_over or keeper.epoch <= self._ended_at.setdefault(job.id, keeper.epoch):
                return
            del self._keepers[job.id]  # a new lease: the job was tried again
        if job.desired is not DesiredState.CANCEL and (job.id, job.signature) not in self._refused:
            await self._begin(job)

    async def _begin(self, job: SiloJob) -> None:
        try:
            spec = verified_spec(job, trust=self._state.trust(), now=datetime.now(tz=UTC))
            refuse_unfit(spec, silo=self._silo, registry=self._registry)
        except TrunklineError as error:
            if not (isinstance(error, IdentityError) and self._asks_again(job, error)):
                await self._refuse(job, error)
            return
        _log.info("job %s (%s): the federation's signature is good", job.id, job.name)
        self._ended_at.pop(job.id, None)
        self._keepers[job.id] = JobKeeper(
            job,
            dataset=spec.silos[spec.silo_index(self._silo)].dataset,
            folder=self._folder.job(job.id),
            start=self._start,
            give_up=self._give_up,
            restarts=Restarts(),
            watch=self._watch,
        )

    def _asks_again(self, job: SiloJob, error: IdentityError) -> bool:
        """Whether the control plane is asked once more before a signature is refused for good.

        The list of revocations may be newer than the answer with the job. Where the spec-signer's key was
        replaced in between, the job has been signed anew, and the next answer has that signature.
        """
        key = (job.id, job.signature)
        if key not in self._doubted:
            self._doubted[key], self._is_in_doubt = self._num_answers, True
            _log.info("job %s (%s) is asked for once more: %s", job.id, job.name, loggable(error))
        return self._doubted[key] == self._num_answers

    async def _refuse(self, job: SiloJob, error: TrunklineError) -> None:
        _log.warning("job %s (%s) is refused: %s", job.id, job.name, loggable(error))
        reason = f"silo {self._silo!r}: {error.message}"[:2000]
        if job.approval == _WAITING:
            body = ApprovalBody(decision="refused", code=error.code, reason=reason)
            await self._client.put_approval(job.id, body)
        else:
            await self._client.finish(job.id, FinishBody(outcome="failed", code=error.code, message=reason))
        self._refused.add((job.id, job.signature))

    async def _start(self, job_id: str) -> JobProcess:
        order = Order(
            job_id=job_id,
            state_dir=self._folder.path,
            boot_id=self._client.session.boot_id,
            threads=self._threads,
            device=self._device,
            log_format=self._log_format,
            min_metric_rows=self._min_metric_rows,
            min_silos_in_sum=self._min_silos_in_sum,
        )
        return await self._forkery.fork(order)

    async def _give_up(self, job_id: str, message: str) -> None:
        body = FinishBody(outcome="failed", code="process_died", message=f"silo {self._silo!r}: {message}")
        with suppress(RefusedError):
            await self._client.finish(job_id, body)

    async def _drop(self, job_id: str) -> None:
        await self._keepers[job_id].leave()
        del self._keepers[job_id]
        self._watch.dropped(job_id)

    async def _stop_all(self) -> None:
        keepers = list(self._keepers.values())
        await asyncio.gather(*(keeper.stop("the agent stops") for keeper in keepers))


async def _drop(asking: "asyncio.Task[SiloJobsAnswer] | None") -> None:
    """Let go of a question."""
    if asking is not None:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
