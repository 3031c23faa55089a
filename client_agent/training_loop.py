"""One attempt to take part in a job: under one lease, until the trunk ends the job or the epoch moves."""

import asyncio
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from client_agent.log import LOGGER
from client_agent.places import JobFolder
from client_agent.preparation import Prepared
from client_agent.reporting import MetricsOutbox, points_of_progress, points_of_round
from client_agent.traffic_record import Crossed, Tally
from splitlearn.channel import Terms
from splitlearn.control_plane.job_log import STEP_SECONDS, JobLog
from splitlearn.control_plane.schemas import SiloLease
from splitlearn.errors import ProtocolError
from splitlearn.exchange import Exchange
from splitlearn.identity import Identity, TrustStore
from splitlearn.link import Connect, Link, WebsocketLink
from splitlearn.parties import (
    ComputeThread,
    Progress,
    SiloAtMeeting,
    SiloAveraging,
    SiloEvaluation,
    SiloParty,
    StepDone,
    TurnStarted,
    evaluates_finished,
    is_meeting,
    phases_of,
    summaries_of,
)
from splitlearn.partition import SiloBlocks, load_silo_blocks, segment_state
from splitlearn.privacy import MIN_SILOS
from splitlearn.protocol import SiloProtocol
from splitlearn.tasks import BatchPlan, EvaluationPlan
from splitlearn.training import CheckpointStore, SiloTrainer
from splitlearn.wire import Codec, Phase

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Attempt:
    """What one attempt is bound to.

    Attributes:
        job_id: The job.
        lease: Epoch, worker and gateway.
        identity, trust: Who this silo is, and whom it believes.
        connect: Opens a connection to the worker under this epoch.
        newest: Last round whose checkpoint counts; None for any.
        device: Where the silo's blocks are computed.
        min_metric_rows: Losses and scores over fewer rows are told to nobody.
        min_silos_in_sum: Fewest silos over which this one averages its blocks.
    """

    job_id: str
    lease: SiloLease
    identity: Identity
    trust: TrustStore
    connect: Connect
    newest: int | None
    device: str
    min_metric_rows: int = 1
    min_silos_in_sum: int = MIN_SILOS


async def take_part(
    prepared: Prepared, attempt: Attempt, *, folder: JobFolder, outbox: MetricsOutbox, job_log: JobLog
) -> None:
    """Load the silo's blocks and do what the lease is for; what it came to is on disk then.

    That is to train until the trunk ends the job, or one round with a replica of it; or to average blocks, or
    to evaluate the average, with the silos of all replicas.

    Raises:
        TrunklineError: The conversation, the data or the disk failed, or the trunk ended before the end.
    """
    spec, silo = prepared.spec, prepared.silo
    async with AsyncExitStack() as stack:
        compute = await stack.enter_async_context(
            ComputeThread(f"silo {silo}", patience_seconds=spec.patience_seconds)
        )
        blocks = await compute(load_blocks, prepared, attempt.device)
        trainer = await compute(_trainer, prepared, blocks)
        way = _Way(attempt.connect)
        exchange = await stack.enter_async_context(_exchange(prepared, attempt, way))
        at_meeting = is_meeting(spec, attempt.lease.replica)
        tally = Tally.of_meetings(folder) if at_meeting else Tally.of_rounds(folder)
        # What a meeting evaluates is of its own round.
        finished = (lambda _: False) if at_meeting else partial(evaluates_finished, spec)
        rounds = _Rounds(
            tally,
            exchange,
            outbox,
            job_log,
            way=way,
            min_metric_rows=attempt.min_metric_rows,
            evaluates_finished=finished,
        )
        averaging = _averaging(prepared, attempt, folder=folder, trainer=trainer, compute=compute)
        evaluation = EvaluationPlan(
            prepared.data.heldout,
            batch_size=spec.evaluation.batch_size,
            pad_token_id=0,  # any will do: nothing valid attends to a pad, and no pad crosses
            max_examples=spec.evaluation.max_rows,
            task=spec.task,
        )
        summaries = summaries_of(
            spec,
            prepared.data.heldout,
            blocks=blocks,
            model_folder=prepared.folder.path,
            compute=compute,
            peer=attempt.lease.worker,
        )
        if at_meeting:
            held_out = SiloEvaluation(
                silo=silo,
                trainer=trainer,
                plan=evaluation,
                compute=compute,
                on_progress=rounds,
                summaries=summaries,
                min_metric_rows=attempt.min_metric_rows,
            )
            await _meet(
                prepared,
                folder,
                rounds,
                exchange=exchange,
                trainer=trainer,
                averaging=averaging,
                evaluation=held_out,
                compute=compute,
            )
            return
        party = SiloParty(
            spec=spec,
            silo=silo,
            trainer=trainer,
            training=BatchPlan(
                prepared.data.training,
                batch_size=spec.batch_size,
                seed=spec.seed,
                silo_name=silo,
                pad_token_id=0,
            ),
            evaluation=evaluation,
            exchange=exchange,
            compute=compute,
            checkpoints=SiloCheckpoints(
                prepared, folder.checkpoints, newest=attempt.newest, on_saved=rounds.saved
            ),
            begins_from=final_checkpoints(prepared, folder, newest=attempt.newest),
            on_progress=rounds,
            min_metric_rows=attempt.min_metric_rows,
            summaries=summaries,
            # Where replicas meet, no other conversation has a sum.
            averaging=None if spec.silos_meet else averaging,
            says_goodbye=False,  # another attempt follows, of this process or the next
        )
        await party.run()
        await asyncio.to_thread(rounds.ended)


async def _meet(
    prepared: Prepared,
    folder: JobFolder,
    rounds: "_Rounds",
    *,
    exchange: Exchange,
    trainer: SiloTrainer,
    averaging: SiloAveraging | None,
    evaluation: SiloEvaluation,
    compute: ComputeThread,
) -> None:
    """Do with the silos of all replicas what the specification has them do together."""
    if not prepared.spec.silos_meet:
        raise ProtocolError(
            "the control plane sent this silo to a meeting of all replicas' silos; by the specification "
            f"there is none: blocks are {prepared.spec.silo_blocks!r}, and no evaluation decides. Its record "
            "of the job is not to be trusted: ask its admin"
        )
    party = SiloAtMeeting(
        spec=prepared.spec,
        silo=prepared.silo,
        trainer=trainer,
        # All of it counts: the meeting comes after every replica has trained the round anew.
        trained=SiloCheckpoints(prepared, folder.checkpoints),
        averaged=SiloCheckpoints(prepared, folder.averaged, on_saved=rounds.saved),
        averaging=averaging,
        evaluation=evaluation,
        exchange=exchange,
        compute=compute,
        on_progress=rounds,
    )
    await party.run()


def load_blocks(prepared: Prepared, device: str) -> SiloBlocks:
    """Load bottom and top as they are before the first step."""
    spec = prepared.spec
    # Frozen blocks stay as they are in the base model: no adapter, nothing to train.
    adapter = None if spec.silo_blocks == "frozen" else spec.adapter
    blocks = load_silo_blocks(
        prepared.blocks_folder, prepared.cut, adapter=adapter, seed=spec.seed, device=device
    )
    if prepared.start is not None:
        prepared.start.begin_blocks(blocks, are_frozen=adapter is None)
    return blocks


def trained_parts(prepared: Prepared, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
    """Return bottom's and top's trained tensors out of the last checkpoint: the best round's, if asked."""
    blocks = load_blocks(prepared, "cpu")
    trainer = _trainer(prepared, blocks)
    trainer.load_state(dict(state))
    trainer.restore_best()
    return segment_state(blocks.bottom), segment_state(blocks.top)


def choose_device(word: str) -> str:
    """Return the device that ``auto`` stands for on this machine, or the one that was asked for."""
    if word != "auto":
        return word
    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_memory_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def values_of_round(total: Crossed, *, round_trip_seconds: float | None) -> dict[str, float]:
    """Return the numbers of a round by name: what crossed so far, memory, and how far the gateway is.

    Args:
        total: What crossed.
        round_trip_seconds: To the gateway and back; None where it is not known.
    """
    values: dict[str, float] = {**total.model_dump(), "peak_memory_bytes": peak_memory_bytes()}
    return values if round_trip_seconds is None else {**values, "round_trip_seconds": round_trip_seconds}


class SiloCheckpoints(CheckpointStore):
    """The silo's checkpoints in a job, of which those after ``newest`` do not count.

    Args:
        prepared: The job and the silo.
        folder: Where they lie.
        newest: Last round that counts; None for any.
        on_saved: Told of each round whose checkpoint is on disk, in the thread that wrote it.
    """

    def __init__(
        self,
        prepared: Prepared,
        folder: Path,
        *,
        newest: int | None = None,
        on_saved: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(folder, spec=prepared.spec, party=prepared.silo)
        self._newest, self._on_saved = newest, on_saved

    def last_round(self) -> int:
        """Return the last round that may be resumed from."""
        last_round = super().last_round()
        return last_round if self._newest is None else min(last_round, self._newest)

    def save(self, tensors: Mapping[str, Tensor], *, round_number: int) -> Path:
        """Write a round's checkpoint, and tell of it."""
        path = super().save(tensors, round_number=round_number)
        if self._on_saved is not None:
            self._on_saved(round_number)
        return path


def final_checkpoints(prepared: Prepared, folder: JobFolder, *, newest: int | None = None) -> SiloCheckpoints:
    """Return the silo's checkpoints that later rounds, and the result, begin from.

    Args:
        prepared: The job and the silo.
        folder: What is kept of the job.
        newest: Last round that counts; None for any.
    """
    path = folder.averaged if prepared.spec.silos_meet else folder.checkpoints
    return SiloCheckpoints(prepared, path, newest=newest)


class _Way:
    """Opens the way to the worker, and knows how long the last one is.

    Args:
        connect: Opens a connection.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._link: Link | None = None

    async def __call__(self) -> Link:
        """Open the next connection."""
        self._link = await self._connect()
        return self._link

    @property
    def round_trip_seconds(self) -> float | None:
        """There and back, to whoever answers pings: the gateway; None where it is not known."""
        return self._link.round_trip_seconds if isinstance(self._link, WebsocketLink) else None


class _Rounds:
    """Reports what the party tells, and each round's totals when its checkpoint is on disk."""

    def __init__(
        self,
        tally: Tally,
        exchange: Exchange,
        outbox: MetricsOutbox,
        job_log: JobLog,
        *,
        way: _Way,
        min_metric_rows: int,
        evaluates_finished: Callable[[int], bool],
    ) -> None:
        self._way, self._min_metric_rows = way, min_metric_rows
        self._evaluates_finished = evaluates_finished
        self._evaluated_since: int | None = None
        self._job_log, self._told_at = job_log, -math.inf
        self._tally, self._exchange, self._outbox = tally, exchange, outbox
        self._loop = asyncio.get_running_loop()

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, TurnStarted):
            # The evaluation of a round that is finished counts with the next one.
            is_finished = progress.phase is not Phase.TRAIN and self._evaluates_finished(progress.round)
            self._tally.begin(progress.round + is_finished)
            self._evaluated_since = progress.round if is_finished else None
        if isinstance(progress, StepDone):
            self._tell(progress)
        self._outbox.put(points_of_progress(progress, min_rows=self._min_metric_rows))

    def _tell(self, done: StepDone) -> None:
        """Log a step, unless one was logged a moment ago."""
        now = time.monotonic()
        if now - self._told_at < STEP_SECONDS:
            return
        self._told_at = now
        _log.info(
            "step %d of round %d took %.3f s, %.3f s of them computing here",
            done.step,
            done.round,
            done.seconds,
            done.compute_seconds,
        )
        self._job_log.tell("step", round_number=done.round, step=done.step, seconds=done.seconds)

    def saved(self, round_number: int) -> None:
        """Note the totals, and hand them to the outbox in the loop's thread."""
        total = self._tally.end(round_number, Crossed.of(self._exchange))
        self._job_log.tell("round_saved", round_number=round_number)
        _log.info("the checkpoint of round %d is on disk", round_number)
        self._report(round_number, total)

    def ended(self) -> None:
        """Note the totals where a finished round was evaluated and none followed: at a replica's end."""
        if self._evaluated_since:
            total = self._tally.end(self._evaluated_since + 1, Crossed.of(self._exchange))
            self._report(self._evaluated_since, total)

    def _report(self, round_number: int, total: Crossed) -> None:
        values = values_of_round(total, round_trip_seconds=self._way.round_trip_seconds)
        self._loop.call_soon_threadsafe(self._outbox.put, points_of_round(round_number, values))


def _trainer(prepared: Prepared, blocks: SiloBlocks) -> SiloTrainer:
    spec = prepared.spec
    undoable = len(spec.silos) > 1 and spec.silo_blocks != "frozen"
    return SiloTrainer(blocks, spec=spec, silo=prepared.silo, undoable=undoable)


def _averaging(
    prepared: Prepared, attempt: Attempt, *, folder: JobFolder, trainer: SiloTrainer, compute: ComputeThread
) -> SiloAveraging | None:
    if prepared.spec.silo_blocks != "averaged":
        return None
    return SiloAveraging.of(
        prepared.spec,
        job=attempt.job_id,
        identity=attempt.identity,
        trust=attempt.trust,
        record=folder.sums,
        trainer=trainer,
        compute=compute,
        min_silos=attempt.min_silos_in_sum,
    )


def _exchange(prepared: Prepared, attempt: Attempt, way: _Way) -> Exchange:
    spec, lease = prepared.spec, attempt.lease
    terms = Terms(
        job_id=attempt.job_id,
        replica=lease.replica,
        epoch=lease.epoch,
        spec_digest=spec.digest(),
        silo_name=prepared.silo,
        worker_name=lease.worker,
    )
    protocol = SiloProtocol(
        terms,
        identity=attempt.identity,
        trust=attempt.trust,
        codec=Codec(spec.codec),
        served_phases=phases_of(spec),
    )
    # The worker's patience decides, and the control plane tells: giving up here would begin the attempt anew
    # at all parties, and their patience with it.
    return Exchange(protocol, connect=way, peer=lease.worker, patience_seconds=math.inf)
