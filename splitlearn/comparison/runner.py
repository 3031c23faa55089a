"""Starts the runs, each as a process of its own, a few at a time; keeps what they came to. Torch-free."""

import shutil
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from splitlearn.comparison.folder import ComparisonFolder
from splitlearn.comparison.lanes import Lane, StartedRun, last_said, last_words
from splitlearn.comparison.plan import Run
from splitlearn.comparison.run_files import RunRequest, RunResult, read_document, write_document
from splitlearn.comparison.specification import Comparison
from splitlearn.comparison.time_left import Active, seconds_left
from splitlearn.errors import DataError, ModelError, ProcessError, SpecError, StorageError, TrunklineError
from splitlearn.party_environment import party_environment

_LOOK_SECONDS = 0.1
_INPUT_ERRORS: Mapping[int, type[TrunklineError]] = {
    kind.exit_code: kind for kind in (SpecError, ModelError, DataError)
}


@dataclass(frozen=True)
class Failure:
    """A run that failed.

    Attributes:
        run: The run.
        code: A stable word, as in :mod:`splitlearn.errors`.
        message: What it said.
        exit_code: What its process ended with; that of :class:`~splitlearn.errors.ProcessError` where a
            signal or a bug ended it.
    """

    run: Run
    code: str
    message: str
    exit_code: int


@dataclass(frozen=True)
class Outcome:
    """What all runs came to, in the order of the plan."""

    results: tuple[RunResult, ...]
    failures: tuple[Failure, ...]


class Watcher(Protocol):
    """Whoever shows how the comparison goes on."""

    def kept(self, num_kept: int, total: int) -> None:
        """So many of all runs were finished before, and are not repeated."""

    def finished(self, run: Run, result: RunResult, *, left: float | None) -> None:
        """A run is finished; ``left`` seconds are left, None where nobody can tell."""

    def failed(self, failure: Failure) -> None:
        """A run failed; the others go on."""

    def working(self, active: Sequence[tuple[Run, float]], *, left: float | None) -> None:
        """These runs run, each with the share that is done; called several times a second."""


class Runner:
    """Runs a plan; once.

    Args:
        comparison: What is compared.
        runs: The plan.
        folder: Where results are kept; a run that has its result there already is not repeated.
        parallel: So many runs at a time.
        threads: Threads of torch in each, per party.
        environment: What the processes inherit.
        watcher: Told how it goes on.
        program: What is started as a lane; its folder's path follows. None for the real one.
    """

    def __init__(
        self,
        comparison: Comparison,
        runs: Sequence[Run],
        *,
        folder: ComparisonFolder,
        parallel: int,
        threads: int,
        environment: Mapping[str, str],
        watcher: Watcher,
        program: tuple[str, ...] | None = None,
    ) -> None:
        self._comparison, self._runs, self._folder = comparison, tuple(runs), folder
        self._parallel, self._threads, self._watcher = parallel, threads, watcher
        inherited = party_environment({**environment, "OMP_NUM_THREADS": str(threads)})
        given = {} if program is None else {"program": program}
        self._lanes = [
            Lane(number, folder=folder.work, environment=inherited, **given) for number in range(parallel)
        ]
        self._by_name = {run.name: run for run in self._runs}
        self._results: dict[str, RunResult] = {}
        self._failures: dict[str, Failure] = {}
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._waiting: deque[Run] = deque()
        self._is_cancelled = False

    def cancel(self) -> None:
        """Ask the run to end soon; also from a signal handler."""
        self._is_cancelled = True

    def run(self) -> Outcome:
        """Run all to their ends; returns when no process of ours is left, whatever happens.

        Raises:
            SpecError: The first runs to end refused the specification, and so would the others.
            ModelError: The same of the model.
            DataError: The same of the data.
            StorageError: A request cannot be written.
            KeyboardInterrupt: :meth:`cancel` was called. Finished runs keep their results.
        """
        self._take_earlier()
        try:
            while self._waiting or self._active:
                self._go_on()
                active = [(self._by_name[one.name], one.share) for one in self._active]
                self._watcher.working(active, left=self._left())
                time.sleep(_LOOK_SECONDS)
            if self._is_cancelled:
                raise KeyboardInterrupt
        finally:
            self._end_all()
        return Outcome(
            tuple(self._results[run.name] for run in self._runs if run.name in self._results),
            tuple(self._failures[run.name] for run in self._runs if run.name in self._failures),
        )

    @property
    def _active(self) -> list[StartedRun]:
        return [lane.run for lane in self._lanes if lane.run is not None]

    def _take_earlier(self) -> None:
        for run in self._runs:
            earlier = self._earlier(run)
            if earlier is None:
                self._waiting.append(run)
            else:
                self._results[run.name] = earlier
        if self._results:
            self._watcher.kept(len(self._results), len(self._runs))

    def _earlier(self, run: Run) -> RunResult | None:
        """Return the result of the same run; another job's under the same name does not count."""
        path = self._folder.result_of(run.name)
        if not path.exists():
            return None
        result = read_document(path, RunResult)
        return result if result.fingerprint == run.fingerprint else None

    def _go_on(self) -> None:
        if self._is_cancelled:
            raise KeyboardInterrupt
        for lane in self._lanes:
            ended = lane.take_ended()
            if ended is not None:
                self._settle(self._by_name[ended.name], ended)
            if lane.is_idle and self._waiting:
                self._start(lane, self._waiting.popleft())

    def _start(self, lane: Lane, run: Run) -> None:
        self._folder.result_of(run.name).unlink(missing_ok=True)
        request = RunRequest(
            mode=run.mode.name,
            kind=run.mode.kind,
            base=run.base,
            job=run.job,
            source=self._comparison.source,
            model_folder=self._comparison.model_folder,
            threads=self._threads,
            work_dir=self._folder.work_of(run.name).absolute(),
            fingerprint=run.fingerprint,
        )
        lane.give(run.name, request)

    def _settle(self, run: Run, ended: StartedRun) -> None:
        shutil.rmtree(self._folder.work_of(run.name), ignore_errors=True)
        result = self._result_of(run, ended)
        if isinstance(result, Failure):
            self._refuse_input(result)
            self._failures[run.name] = result
            self._watcher.failed(result)
            return
        self._results[run.name] = result
        self._seconds[run.mode.kind].append(ended.seconds)
        self._watcher.finished(run, result, left=self._left())

    def _result_of(self, run: Run, ended: StartedRun) -> RunResult | Failure:
        """Return what a run came to; its result, or its log, goes to where results and logs are kept."""
        log = self._folder.log_of(run.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if ended.log_path.exists():
            ended.log_path.replace(log)
        if ended.exit_code == 0:
            try:
                result = read_document(ended.result_path, RunResult)
                write_document(self._folder.result_of(run.name), result)
            except StorageError as error:
                return Failure(run, error.code, error.message, error.exit_code)
            return result
        said = last_said(log)
        if "error" in said:
            code = ended.exit_code or ProcessError.exit_code
            return Failure(run, str(said.get("code")), str(said["error"]), code)
        message = f"its process {ended.describe_end()}: {last_words(log) or 'it said nothing'}; see {log}"
        return Failure(run, ProcessError.code, message, ProcessError.exit_code)

    def _refuse_input(self, failure: Failure) -> None:
        """What the first run refuses in the input, the others would refuse, too."""
        if failure.exit_code in _INPUT_ERRORS and not self._results:
            raise _INPUT_ERRORS[failure.exit_code](failure.message)

    def _left(self) -> float | None:
        active = [Active(self._by_name[one.name].mode.kind, one.share, one.seconds) for one in self._active]
        waiting = [run.mode.kind for run in self._waiting]
        return seconds_left(self._seconds, active, waiting, parallel=self._parallel)

    def _end_all(self) -> None:
        for lane in self._lanes:
            lane.ask_to_stop()
        for lane in self._lanes:
            lane.stop()
