"""How a comparison goes on: a line per finished run, and on a terminal one that changes."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from splitlearn.comparison.plan import Run
from splitlearn.comparison.run_files import RunResult
from splitlearn.comparison.runner import Failure
from splitlearn.comparison.time_left import in_words


class Display:
    """Shows the runs; a context manager, so that the changing line is gone afterwards.

    Args:
        console: Where to.
        total: Number of runs.
    """

    def __init__(self, console: Console, *, total: int) -> None:
        self._console, self._total, self._done = console, total, 0
        self._status = Status("", console=console) if console.is_terminal else None

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the changing line away."""
        if self._status is not None:
            self._status.stop()

    def kept(self, num_kept: int, total: int) -> None:
        """Say how many runs are not repeated."""
        self._done = num_kept
        self._say(f"{num_kept} of {total} runs were finished before and are kept (--fresh begins anew).")

    def finished(self, run: Run, result: RunResult, *, left: float | None) -> None:
        """Say what a run came to."""
        self._done += 1
        metric = "" if result.metric_name == "eval_loss" else f", {result.metric_name} {result.metric:.4f}"
        rest = in_words(left) if self._done < self._total else ""
        self._say(
            f"[{self._done}/{self._total}] {run}: evaluation loss {result.eval_loss:.4f}{metric}, "
            f"{result.seconds:.1f} s of training" + (f"; {rest}" if rest else "")
        )

    def failed(self, failure: Failure) -> None:
        """Say why a run failed."""
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {failure.run}: FAILED: {failure.message}")

    def working(self, active: Sequence[tuple[Run, float]], *, left: float | None) -> None:
        """Show which runs run, where the line can change."""
        if self._status is not None:
            runs = ", ".join(f"{run} ({share:.0%})" for run, share in active)
            self._status.update(Text(f"{runs} {in_words(left)}"))

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)
