"""What the worker reports of each round."""

import statistics
from collections.abc import Callable

import structlog
import torch

from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.schemas import LeaseAnswer, MetricPoint
from splitlearn.errors import TrunklineError
from splitlearn.parties import Progress, RoundFinished, TurnFinished
from worker.devices import peak_memory_bytes
from worker.home import Home

OnReached = Callable[[int, int], None]
_WHOLE_ROUND = -1
_log = structlog.get_logger("worker.trunk")


class RoundReporter:
    """Collects a round's turns, logs the round, and sends its numbers.

    Args:
        home: The control plane's thread.
        lease: Of this attempt.
        device: Whose memory is reported.
        on_reached: Told of the round under way, and of the steps done in it.
    """

    def __init__(
        self, home: Home, lease: LeaseAnswer, device: torch.device, *, on_reached: OnReached
    ) -> None:
        self._home, self._lease, self._device = home, lease, device
        self._on_reached = on_reached
        self._turns: list[TurnFinished] = []

    def __call__(self, progress: Progress) -> None:
        """Take in what the trunk's party tells."""
        match progress:
            case TurnFinished():
                self._turns.append(progress)
                self._on_reached(progress.round, sum(turn.num_steps for turn in self._turns))
            case RoundFinished():
                self._finish(progress.round)

    def _finish(self, round_number: int) -> None:
        values = self._values()
        self._turns.clear()
        self._on_reached(round_number + 1, 0)
        _log.info("round_finished", round=round_number, **{key: round(n, 4) for key, n in values.items()})
        points = [
            MetricPoint(name=name, round=round_number, step=_WHOLE_ROUND, value=value)
            for name, value in values.items()
        ]
        self._home.start(self._send(self._home.client, points))

    def _values(self) -> dict[str, float]:
        values: dict[str, float] = {"peak_memory_bytes": peak_memory_bytes(self._device)}
        if self._turns:
            values["turn_seconds"] = sum(turn.seconds for turn in self._turns)
            values["turn_steps"] = sum(turn.num_steps for turn in self._turns)
            values["seconds_per_step"] = statistics.median(
                turn.seconds / turn.num_steps for turn in self._turns
            )
        return values

    async def _send(self, client: PartyClient, points: list[MetricPoint]) -> None:
        try:
            await client.post_metrics(self._lease.job, points)
        except TrunklineError as error:  # a number that is lost ends no training
            _log.warning("metrics_refused", reason=error.message)
