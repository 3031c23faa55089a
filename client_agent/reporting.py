"""Numbers on their way to the control plane: kept on disk until it has accepted them."""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from splitlearn.control_plane.schemas import MAX_METRICS, MetricPoint
from splitlearn.errors import NoSpaceError
from splitlearn.parties import Evaluated, Progress, StepDone
from splitlearn.tasks import DataReport

OF_A_ROUND = -1
_BATCH_SECONDS = 2.0
"""Seldom: each batch takes the interpreter from the silo's blocks, and the control plane's cores."""

SendMetrics = Callable[[tuple[MetricPoint, ...]], Awaitable[None]]
"""Hands points to the control plane; returns when it has accepted them."""

_REPORT_NAMES = {
    "rows": "rows",
    "training": "rows_training",
    "heldout": "rows_heldout",
    "truncated": "rows_truncated",
    "prompts_cut": "prompts_cut",
    "answers_cut": "answers_cut",
    "dropped": "rows_dropped",
    "training_tokens": "training_tokens",
    "label_tokens": "label_tokens_total",
    "tokens_cut_left": "tokens_cut_left",
    "tokens_cut_right": "tokens_cut_right",
}
"""Fields of the report by the names that their counts leave under."""


def points_of_report(report: DataReport, *, min_rows: int = 1) -> list[MetricPoint]:
    """Return the counts of a silo's rows, and of how few rows nothing is told."""
    counts = asdict(report)
    values = {name: counts[field] for field, name in _REPORT_NAMES.items()}
    return _points(0, OF_A_ROUND, {**values, "min_metric_rows": min_rows})


def points_of_progress(progress: Progress, *, min_rows: int = 1) -> list[MetricPoint]:
    """Return the numbers of a step or an evaluation; none of anything else.

    Args:
        progress: What happened.
        min_rows: A loss or score that stands on fewer rows is withheld: it is not among them.
    """
    match progress:
        case StepDone():
            values = {
                "loss": progress.loss,
                "label_tokens": progress.num_label_tokens,
                "valid_tokens": progress.num_valid_tokens,
                "seconds": progress.seconds,
                "compute_seconds": progress.compute_seconds,
                "applied": int(progress.applied),
            }
            if progress.num_rows < min_rows:
                del values["loss"]
            return _points(progress.round, progress.step, values)
        case Evaluated():
            return _points(progress.round, OF_A_ROUND, _of_evaluation(progress, min_rows))
        case _:
            return []


def _of_evaluation(evaluated: Evaluated, min_rows: int) -> dict[str, float]:
    values: dict[str, float] = {"eval_rows": evaluated.num_rows}
    if evaluated.num_rows < min_rows:
        return {**values, "eval_withheld_below": min_rows}
    values |= {"eval_loss": evaluated.loss, "eval_tokens": evaluated.num_tokens}
    if evaluated.accuracy is not None:
        values["accuracy"] = evaluated.accuracy
    return values | {score.name: score.value for score in evaluated.scores if score.num_rows >= min_rows}


def points_of_round(round_number: int, values: dict[str, float]) -> list[MetricPoint]:
    """Return numbers of a whole round."""
    return _points(round_number, OF_A_ROUND, values)


def _points(round_number: int, step: int, values: dict[str, float]) -> list[MetricPoint]:
    return [
        MetricPoint(name=name, round=round_number, step=step, value=value)
        for name, value in values.items()
        if math.isfinite(value)  # what is not a number is not sent
    ]


class MetricsOutbox:
    """Takes points at any time, writes them to a file, and sends them in batches.

    A process that dies leaves the file behind, and the next one sends it first: a point that arrives twice
    replaces itself.

    Args:
        path: The file.
        send: Hands points over.
    """

    def __init__(self, path: Path, *, send: SendMetrics) -> None:
        self._path, self._send = path, send
        self._points = self._read()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._hurry = asyncio.Event()
        if self._points:
            self._changed.set()
        else:
            self._idle.set()

    def put(self, points: Iterable[MetricPoint]) -> None:
        """Take in points; does not wait.

        Raises:
            StorageError: They cannot be written down.
        """
        new = list(points)
        if not new:
            return
        self._append(new)
        self._points += new
        self._idle.clear()
        self._changed.set()

    async def run(self) -> None:
        """Send what there is, as it comes, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while batch := tuple(self._points[:MAX_METRICS]):
                await self._send(batch)
                del self._points[: len(batch)]
            self._path.unlink(missing_ok=True)
            self._idle.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BATCH_SECONDS):
                    await self._hurry.wait()

    async def drained(self) -> None:
        """Wait until everything has been accepted; what comes from now on is sent at once."""
        self._hurry.set()
        await self._idle.wait()

    def _append(self, points: list[MetricPoint]) -> None:
        lines = "".join(point.model_dump_json() + "\n" for point in points)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            raise NoSpaceError(
                f"cannot write {len(lines)} bytes to {self._path} ({error.strerror}); free space, then retry "
                "the job",
                public=f"its disk refuses {len(lines)} bytes of the job's numbers ({error.strerror}); free "
                "space there, then retry the job",
            ) from error

    def _read(self) -> list[MetricPoint]:
        if not self._path.exists():
            return []
        points = []
        for text in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                points.append(MetricPoint.model_validate_json(text))
            except ValidationError:
                continue  # the last line of a process that was killed while it wrote
        return points
