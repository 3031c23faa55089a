"""A silo's whole part in one job, in a process of its own: prepare, approve, train, export.

::

    prepare ── disagrees ──▶ refused
       │
    approve ──▶ wait for a lease ──▶ attach ──▶ train ──▶ wait for the result ──▶ export ──▶ finished
                      ▲                           │ the epoch moved, or the attempt failed
                      └───────────────────────────┘
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from client_agent.control import FetchedModel, JobControl
from client_agent.data import Dataset, DatasetRegistry
from client_agent.job_view import JobView
from client_agent.log import LOGGER, loggable
from client_agent.places import JobFolder
from client_agent.preparation import Prepared, prepare
from client_agent.processes.messages import Ended, PhaseBegan
from client_agent.reporting import MetricsOutbox, points_of_report
from client_agent.results import export_whole
from client_agent.training_loop import Attempt, take_part
from splitlearn.control_plane.errors import (
    JobOverError,
    LeaseLostError,
    NoLeaseError,
    RefusedError,
    RevokedError,
    SupersededError,
)
from splitlearn.control_plane.job_log import JobLog
from splitlearn.control_plane.schemas import ApprovalBody, FinishBody, SiloJob, SiloLease
from splitlearn.errors import (
    ChannelError,
    LinkError,
    NoSpaceError,
    ProtocolError,
    TrainingError,
    TrunklineError,
)
from splitlearn.parties import StuckError
from splitlearn.privacy import MIN_SILOS, refuse_few_silos
from splitlearn.spec import JobSpec

MAX_FAILED_ATTEMPTS = 3
"""After so many attempts without a finished round that the control plane knows no reason for, give up."""

_OF_THE_OTHER_SIDE = (ChannelError, LeaseLostError, LinkError, ProtocolError, TrainingError)
"""What may be better in another attempt: somebody else's process died, or was told to end."""

_SETTLING_SECONDS = 20.0
"""After a failed attempt, the control plane mostly knows more: another epoch comes, or the job ends."""

_NO_LEASE_SECONDS = 0.5
_APPROVED, _WAITING = "approved", "waiting"
_log = logging.getLogger(LOGGER)

OnPhase = Callable[[PhaseBegan], None]


class JobRun:
    """One silo in one job; :meth:`run` once.

    Args:
        spec: The job, verified.
        silo: This silo.
        control: The control plane.
        view: The job as the control plane sees it.
        registry: The silo's data sets.
        folder: What is kept of the job.
        device: Where the blocks are computed.
        on_phase: Told what is done now.
        min_metric_rows: Losses and scores over fewer rows are told to nobody.
        min_silos_in_sum: Fewest silos over which this one averages its blocks.
    """

    def __init__(
        self,
        spec: JobSpec,
        *,
        silo: str,
        control: JobControl,
        view: JobView,
        registry: DatasetRegistry,
        folder: JobFolder,
        device: str,
        on_phase: OnPhase,
        min_metric_rows: int = 1,
        min_silos_in_sum: int = MIN_SILOS,
    ) -> None:
        self._min_metric_rows, self._min_silos_in_sum = min_metric_rows, min_silos_in_sum
        self._spec, self._silo, self._control, self._view = spec, silo, control, view
        self._registry, self._folder, self._device = registry, folder, device
        self._on_phase = on_phase
        self._outbox = MetricsOutbox(folder.unsent_metrics, send=control.send_metrics)
        self._job_log = JobLog(control.send_logs)
        self._attempt_id: str | None = None

    async def run(self) -> Ended:
        """Do this silo's part, and say how it came out.

        Raises:
            StuckError: A computation did not come back: end this process; another goes on.
        """
        sender = asyncio.create_task(self._outbox.run(), name="metrics")
        telling = asyncio.create_task(self._job_log.run(), name="log")
        self._job_log.tell("job_began")
        try:
            return await self._run(sender)
        except (JobOverError, RevokedError, SupersededError) as error:
            return Ended(outcome="ended", code=error.code, message=error.message)
        except StuckError as error:
            _log.warning("this process ends, and another goes on: %s", loggable(error))
            self._job_log.tell("stuck", level="error", code=error.code)
            raise
        except TrunklineError as error:
            _log.warning("the job fails here: %s", loggable(error))
            self._job_log.tell("failed", level="error", code=error.code)
            await self._say_failed(error)
            return Ended(outcome="failed", code=error.code, message=error.message)
        finally:
            for task in (sender, telling):
                task.cancel()
            await asyncio.gather(sender, telling, return_exceptions=True)

    async def _run(self, sender: "asyncio.Task[None]") -> Ended:
        self._begin("preparing")
        try:
            model, prepared = await self._prepare()
        except TrunklineError as error:
            return await self._refuse(error)
        _log.info("prepared: %s", prepared.data.report.describe())
        self._job_log.tell("prepared")
        self._outbox.put(points_of_report(prepared.data.report, min_rows=self._min_metric_rows))
        if self._view.job.approval == _WAITING:
            await self._control.approve(ApprovalBody(decision="approved"))
            _log.info("approved by this silo's rule: every job that its data fits")
        await self._train(prepared)
        await self._export(prepared, model)
        await self._hand_over_numbers(sender)
        await self._control.finish(FinishBody(outcome="completed", attempt=self._attempt_id))
        self._job_log.tell("finished")
        _log.info("finished: the result is in %s", self._folder.result)
        return Ended(outcome="finished", message=str(self._folder.result))

    async def _prepare(self) -> tuple[FetchedModel, Prepared]:
        dataset = self._dataset()
        dataset.refuse_other_task(self._spec.task.kind)
        if self._spec.silo_blocks == "averaged":
            refuse_few_silos(len(self._spec.silos), min_silos=self._min_silos_in_sum)
        model = await self._control.fetch_model(self._spec)
        _log.info("the silo's layers of %s are here", self._spec.model)
        prepared = await asyncio.to_thread(
            prepare,
            self._spec,
            silo=self._silo,
            dataset=dataset,
            model_path=model.path,
            start=self._start(),
        )
        return model, prepared

    def _start(self) -> Path | None:
        """Return this silo's own result of the job that this one begins at."""
        earlier = self._spec.start_from
        return self._folder.result_of(earlier) if earlier is not None and self._view.job.has_start else None

    def _dataset(self) -> Dataset:
        return self._registry.get(self._spec.silos[self._spec.silo_index(self._silo)].dataset)

    async def _refuse(self, error: TrunklineError) -> Ended:
        """Refuse the job, where this silo's word is still out; else its part fails.

        A full disk is no reason to refuse: the same job can be tried again when there is space.
        """
        if self._view.job.approval != _WAITING or isinstance(error, NoSpaceError):
            raise error
        _log.warning("refused: %s", loggable(error))
        self._job_log.tell("refused", level="warning", code=error.code)
        # Own people read the whole sentence in the job's record; others, what holds no row and no path.
        reason = f"silo {self._silo!r}: {error.public}"
        await self._control.approve(ApprovalBody(decision="refused", code=error.code, reason=reason))
        return Ended(outcome="refused", code=error.code, message=error.message)

    async def _say_failed(self, error: TrunklineError) -> None:
        with suppress(RefusedError):
            await self._control.finish(
                FinishBody(
                    attempt=self._attempt_id,
                    outcome="failed",
                    code=error.code,
                    message=f"silo {self._silo!r}: {_public(error)}",
                )
            )

    # Training

    async def _train(self, prepared: Prepared) -> None:
        """Take part until the trunk's result is there."""
        over, num_failed = 0, 0  # the last epoch that is of no more use; failures in a row
        while True:
            self._begin("waiting")
            job = await self._view.until(partial(_has_moved, epoch=over))
            if job.result is not None:
                return
            lease = await self._attach()
            if lease is None:
                continue
            saved = self._folder.saved_rounds()
            try:
                await self._attempt(prepared, lease)
                over, num_failed = lease.epoch, 0
            except StuckError:
                raise
            except _OF_THE_OTHER_SIDE as error:
                _log.warning("the attempt under epoch %d failed: %s", lease.epoch, loggable(error))
                self._job_log.tell("attempt_failed", level="warning", code=error.code, epoch=lease.epoch)
                if await self._moves_on(lease.epoch):
                    over, num_failed = lease.epoch, 0
                    continue
                num_failed = num_failed + 1 if self._folder.saved_rounds() <= saved else 1
                if num_failed >= MAX_FAILED_ATTEMPTS:
                    raise
                over = lease.epoch - 1  # attaching again raises it

    async def _attach(self) -> SiloLease | None:
        try:
            attempt_id = secrets.token_hex(16)
            lease = await self._control.attach(attempt_id)
            self._attempt_id = attempt_id
        except NoLeaseError:
            await asyncio.sleep(_NO_LEASE_SECONDS)  # it ended after we saw it: look again
            return None
        if not self._control.note_epoch(lease.epoch):
            raise TrainingError(
                f"the control plane offers epoch {lease.epoch}, a higher one was seen here; "
                "it was set back to an old state: ask its admin"
            )
        return lease

    async def _attempt(self, prepared: Prepared, lease: SiloLease) -> None:
        """Take part under one lease; returns early when the epoch moves."""
        self._begin("training", f"epoch {lease.epoch}")
        _log.info("attached to worker %s under epoch %d", lease.worker, lease.epoch)
        self._job_log.tell("attached", epoch=lease.epoch)
        attempt = Attempt(
            job_id=self._view.job.id,
            lease=lease,
            identity=self._control.identity(),
            trust=self._control.trust(),
            connect=self._control.connector(lease),
            newest=self._view.job.max_resume_round,
            device=self._device,
            min_metric_rows=self._min_metric_rows,
            min_silos_in_sum=self._min_silos_in_sum,
        )
        training = asyncio.create_task(
            take_part(prepared, attempt, folder=self._folder, outbox=self._outbox, job_log=self._job_log),
            name="attempt",
        )
        moved = asyncio.create_task(self._view.until(partial(_has_moved, epoch=lease.epoch)), name="epoch")
        try:
            await asyncio.wait({training, moved}, return_when=asyncio.FIRST_COMPLETED)
            if training.done():
                training.result()
            else:
                _log.info("epoch %d is over", lease.epoch)
        finally:
            for task in (training, moved):
                task.cancel()
            outcome, _ = await asyncio.gather(training, moved, return_exceptions=True)
            if isinstance(outcome, StuckError):  # also where the epoch moved meanwhile
                raise outcome

    async def _moves_on(self, epoch: int) -> bool:
        """Wait a while for the control plane to know more than that the attempt failed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLING_SECONDS):
                # The view may be older than the answer to attaching: a lower epoch tells nothing.
                await self._view.until(lambda job: job.lease is None or _has_moved(job, epoch=epoch))
                return True
        return False

    # The result

    async def _export(self, prepared: Prepared, model: FetchedModel) -> None:
        self._begin("exporting")
        blob = self._view.job.result
        assert blob is not None, "training ends with it"
        trunk = self._folder.trunk_result(blob.digest)
        await self._control.download(blob, trunk)
        await asyncio.to_thread(export_whole, prepared, self._folder, trunk=trunk, base_name=model.source)

    async def _hand_over_numbers(self, sender: "asyncio.Task[None]") -> None:
        """Wait until the last numbers are accepted; the result is whole, whatever becomes of them."""
        try:
            await _drained(self._outbox, sender)
        except (TrunklineError, OSError) as error:
            _log.warning("the last numbers were not handed over (%s)", type(error).__name__)

    def _begin(self, phase: str, message: str = "") -> None:
        self._on_phase(PhaseBegan.model_validate({"phase": phase, "message": message}))


def _epoch(job: SiloJob) -> int:
    return job.lease.epoch if job.lease is not None else 0


def _has_moved(job: SiloJob, *, epoch: int) -> bool:
    return job.result is not None or _epoch(job) > epoch


def _public(error: TrunklineError) -> str:
    """What others may know of a failure: its sentence, unless that speaks of the silo's own files."""
    return error.message if isinstance(error, _OF_THE_OTHER_SIDE) else error.public


async def _drained(outbox: MetricsOutbox, sender: "asyncio.Task[None]") -> None:
    """Wait until everything has been accepted, or until sending fails for good."""
    drained = asyncio.create_task(outbox.drained())
    try:
        await asyncio.wait({drained, sender}, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            sender.result()
    finally:
        drained.cancel()
