"""What the worker reports of each round."""

import math
import statistics
import time
from collections.abc import Callable, Sequence

import structlog
import torch

from splitlearn.control_plane.job_log import STEP_SECONDS, JobLog
from splitlearn.control_plane.schemas import MAX_METRICS, LeaseAnswer, MetricPoint
from splitlearn.errors import TrunklineError
from splitlearn.parties import Progress, RoundFinished, TrunkStepped, TurnFinished
from worker.devices import peak_memory_bytes
from worker.home import Home
from worker.watch import WorkerWatch

OnReached = Callable[[int, int], None]
WHOLE_ROUND = -1
_SEND_SECONDS = 1.0  # so that a fast trunk does not ask once per step
_log = structlog.get_logger("worker.trunk")


class RoundReporter:
    """Collects a round's turns, logs the round, and sends its numbers.

    Args:
        home: The control plane's thread.
        lease: Of this attempt.
        devices: Whose memory is reported.
        on_reached: Told of the round under way, and of the steps done in it.
        watch: Counts.
        job_log: Told of rounds, and now and then of a step.
        count_bytes: Returns the sealed bytes that crossed in this attempt.
    """

    def __init__(
        self,
        home: Home,
        lease: LeaseAnswer,
        devices: Sequence[torch.device],
        *,
        on_reached: OnReached,
        watch: WorkerWatch,
        job_log: JobLog,
        count_bytes: Callable[[], int],
    ) -> None:
        self._watch, self._job_log, self._count_bytes = watch, job_log, count_bytes
        self._num_bytes = 0
        self._points: list[MetricPoint] = []
        self._sent_at = self._told_at = -math.inf
        self._home, self._lease, self._devices = home, lease, devices
        self._on_reached = on_reached
        self._turns: list[TurnFinished] = []

    def __call__(self, progress: Progress) -> None:
        """Take in what the trunk's party tells."""
        match progress:
            case TrunkStepped():
                self._step(progress)
            case TurnFinished():
                self._turns.append(progress)
                self._on_reached(progress.round, sum(turn.num_steps for turn in self._turns))
            case RoundFinished():
                self._finish(progress)

    def _step(self, done: TrunkStepped) -> None:
        self._watch.stepped(done)
        self._points.append(
            MetricPoint(name="compute_seconds", round=done.round, step=done.step, value=done.compute_seconds)
        )
        now = time.monotonic()
        if now - self._told_at > STEP_SECONDS:
            self._told_at = now
            self._job_log.tell("step", round_number=done.round, step=done.step, seconds=done.seconds)
            _log.info(
                "step", round=done.round, step=done.step, seconds=done.seconds, compute=done.compute_seconds
            )
        if now - self._sent_at > _SEND_SECONDS or len(self._points) >= MAX_METRICS:
            self._sent_at = now
            self._send_points([])

    def _finish(self, done: RoundFinished) -> None:
        round_number, values = done.round, self._values()
        if done.best_round is not None:
            values["best_round"] = done.best_round
        num_bytes = self._count_bytes()
        self._watch.round_done(
            wire_bytes=num_bytes - self._num_bytes, peak_memory_bytes=values["peak_memory_bytes"]
        )
        self._num_bytes = num_bytes
        self._job_log.tell("round_finished", round_number=round_number, seconds=values.get("turn_seconds"))
        self._turns.clear()
        self._on_reached(round_number + 1, 0)
        _log.info("round_finished", round=round_number, **{key: round(n, 4) for key, n in values.items()})
        points = [
            MetricPoint(name=name, round=round_number, step=WHOLE_ROUND, value=value)
            for name, value in values.items()
        ]
        self._send_points(points)

    def _send_points(self, points: list[MetricPoint]) -> None:
        """Send the steps so far, and these, in the control plane's thread."""
        waiting, self._points = [*self._points, *points], []
        send_points(self._home, self._lease, waiting)

    def _values(self) -> dict[str, float]:
        values: dict[str, float] = {"peak_memory_bytes": peak_memory_bytes(self._devices)}
        if self._turns:
            values["turn_seconds"] = sum(turn.seconds for turn in self._turns)
            values["turn_steps"] = sum(turn.num_steps for turn in self._turns)
            values["seconds_per_step"] = statistics.median(
                turn.seconds / turn.num_steps for turn in self._turns
            )
        return values


def send_points(home: Home, lease: LeaseAnswer, points: list[MetricPoint]) -> None:
    """Send numbers of a lease's trunk in the control plane's thread; one that is lost ends no training."""

    async def send() -> None:
        try:
            await home.client.post_metrics(lease.job, points, replica=lease.replica)
        except TrunklineError as error:
            _log.warning("metrics_refused", reason=error.message)

    home.start(send())
