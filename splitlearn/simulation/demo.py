"""What ``trunkline demo`` does, free of terminal code: inputs, federation, reference, result."""

import asyncio
import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from transformers.utils import logging as transformers_logging

from splitlearn.errors import TrainingError, TrunklineError
from splitlearn.parties import Progress
from splitlearn.simulation import exit_codes
from splitlearn.simulation.centralised_files import CentralisedAnswer, CentralisedRequest, RequestedSilo
from splitlearn.simulation.choosing import refuse_unserved_but_open
from splitlearn.simulation.demo_inputs import (
    Inputs,
    Rows,
    open_model,
    plan_with_notes,
    prepare_inputs,
    read_rows,
)
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.federation import Federation
from splitlearn.simulation.interruption import Interruption
from splitlearn.simulation.json_files import refuse_unwritable, write_json
from splitlearn.simulation.json_place import refuse_taken
from splitlearn.simulation.outcome import DemoOutcome, Fault
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.simulation.reference_process import ReferenceProcess, ReferenceStep
from splitlearn.simulation.results import SimulationResult, Status
from splitlearn.simulation.run_folder import RunFolder, claim

# Bugs too: the result's file must say how the run ended.
_ENDS = (Exception, KeyboardInterrupt, asyncio.CancelledError)
_CANCELLED_BY = {
    exit_codes.TERMINATED: "by SIGTERM",
    exit_codes.UNREAD: "because nobody reads the output any more",
}


class Display(Protocol):
    """Whoever shows how the demo goes on. Called from one thread; must not block."""

    def say(self, sentence: str) -> None:
        """Show a sentence that stays."""

    def begin(self, inputs: Inputs, *, last_round: int) -> None:
        """The federation begins, after ``last_round`` rounds of an earlier run."""

    def phase(self, done: str) -> None:
        """Show what was done before the training, or after it."""

    def progress(self, progress: Progress) -> None:
        """Show what a party reported."""

    def begin_reference(self, total: int) -> None:
        """The centralised reference begins; it will take ``total`` steps."""

    def reference(self, step: ReferenceStep) -> None:
        """Show how far the centralised reference is."""

    def end(self) -> None:
        """Nothing more moves; called once or more."""


class Runs(Protocol):
    """A federation that can be run: in this process, or as the processes of a platform."""

    @property
    def last_round(self) -> int:
        """The last round that a resumed run goes on from."""

    def find_last_round(self) -> int:
        """Return the last round of an earlier, interrupted run."""

    def run(self, *, resume: bool = False) -> SimulationResult:
        """Run to the end."""

    def cancel(self) -> None:
        """Ask the run to end soon."""

    def result(self, status: Status) -> SimulationResult:
        """Return what is known so far."""


def run_demo(
    options: DemoOptions,
    *,
    display: Display,
    interruption: Interruption,
    environment: Mapping[str, str] | None = None,
) -> DemoOutcome:
    """Run the demo; whatever ends it is in the outcome, and in the JSON files where they can be written.

    Sets torch's number of threads for the whole process.

    Args:
        options: The flags.
        display: Shows how it goes on.
        interruption: The signals, listened to.
        environment: What the platform's processes inherit.
    """
    demo = _Demo(options, display, interruption, environment or {})
    try:
        return demo.run()
    finally:
        display.end()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the progress bars and warnings of libraries out of the terminal."""
    bars = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


class _Demo:
    """One run of the command, as far as it got."""

    def __init__(
        self,
        options: DemoOptions,
        display: Display,
        interruption: Interruption,
        environment: Mapping[str, str],
    ) -> None:
        self._options, self._display, self._interruption = options, display, interruption
        self._environment = environment
        self._federation: Runs | None = None
        self._kept: PlatformFederation | None = None
        self._result: SimulationResult | None = None
        self._reference: CentralisedAnswer | None = None
        self._json_path: Path | None = None
        self._is_begun = False

    def run(self) -> DemoOutcome:
        try:
            refuse_taken(self._options)
            if self._options.json_path is not None:
                refuse_unwritable(self._options.json_path)
                self._json_path = self._options.json_path
            self._interruption.check()
            torch.set_num_threads(self._options.threads)
            outcome = self._run()
        except _ENDS as error:
            outcome = self._ended_by(error)
        return self._written(outcome, self._json_path)

    def _run(self) -> DemoOutcome:
        filled = plan_with_notes(self._options)
        spec = filled.spec
        refuse_unserved_but_open(spec, on_platform=not self._options.in_process)
        model = open_model(spec)
        rows = read_rows(self._options, spec)
        with claim(self._options.out_dir) as folder:
            inputs = prepare_inputs(self._options, rows, folder=model, models=folder.models)
            for note in filled.notes:
                self._display.say(f"Note: {note}.")
            try:
                self._run_in(folder, inputs, rows)
                outcome = self._outcome("completed")
            except _ENDS as error:
                outcome = self._ended_by(error)
            return self._written(outcome, folder.result if self._is_begun else None)

    def _run_in(self, folder: RunFolder, inputs: Inputs, rows: Rows) -> None:
        federation = self._make_federation(folder, inputs, rows)
        last_round = self._begin(folder, inputs, federation)
        self._display.begin(inputs, last_round=last_round)
        with self._interruption.calls(federation.cancel):
            self._interruption.check()
            self._result = federation.run(resume=self._options.resume)
        self._interruption.check()
        _refuse_divergence(self._result)
        if self._options.centralised:
            self._reference = self._run_reference(folder, inputs)

    def _make_federation(self, folder: RunFolder, inputs: Inputs, rows: Rows) -> Runs:
        if self._options.in_process:
            federation = Federation(
                inputs.spec,
                model_folder=inputs.model_folder,
                data=inputs.data,
                work_dir=folder.path,
                on_progress=self._display.progress,
            )
            if federation.choice is not None:
                self._display.say(
                    f"Schedule: {federation.choice.spec.schedule} was chosen ({federation.choice.reason})."
                )
            return federation
        platform = PlatformFederation(
            inputs.spec,
            model_folder=inputs.model_folder,
            data=inputs.data,
            rows=rows.by_silo,
            work_dir=folder.path.resolve(),
            threads=self._options.threads,
            environment=self._environment,
            keeps_running=self._options.keep,
            on_progress=self._display.progress,
            on_phase=self._display.phase,
        )
        self._kept = platform if self._options.keep else None
        return platform

    def _begin(self, folder: RunFolder, inputs: Inputs, federation: Runs) -> int:
        if self._options.resume:
            folder.resume(inputs.job)
            last_round = federation.find_last_round()
        else:
            moved = folder.begin(inputs.job)
            if moved is not None:
                self._display.say(f"What an earlier run left in {folder.path} is now in {moved}.")
            last_round = 0
        self._federation, self._is_begun = federation, True
        return last_round

    def _run_reference(self, folder: RunFolder, inputs: Inputs) -> CentralisedAnswer:
        request = CentralisedRequest(
            spec=inputs.spec,
            model_folder=inputs.model_folder.resolve(),
            threads=self._options.threads,
            silos=tuple(RequestedSilo.of(silo) for silo in inputs.data),
        )
        self._display.begin_reference(inputs.spec.rounds * inputs.spec.steps_per_round)
        process = ReferenceProcess(request, work_dir=folder.path, on_step=self._display.reference)
        with self._interruption.calls(process.cancel):
            self._interruption.check()
            return process.run()

    def _ended_by(self, error: BaseException) -> DemoOutcome:
        signum = self._interruption.signum
        if signum is not None or not isinstance(error, Exception):
            code = exit_codes.INTERRUPTED if signum is None else exit_codes.of_signal(signum)
            cause = _CANCELLED_BY.get(code, "by Ctrl-C")
            return self._outcome("cancelled", Fault("cancelled", f"Cancelled {cause}", code))
        if isinstance(error, TrunklineError):
            return self._outcome("failed", Fault.of(error))
        fault = Fault("bug", f"{type(error).__name__}: {error}", exit_codes.BUG, cause=error)
        return self._outcome("failed", fault)

    def _outcome(self, status: Status, fault: Fault | None = None) -> DemoOutcome:
        result = self._result
        if result is None and self._federation is not None:
            result = self._federation.result(status)
        return DemoOutcome(
            status=status,
            options=self._options,
            federation=result,
            reference=self._reference,
            fault=fault,
            last_round=self._federation.last_round if self._federation else 0,
            is_resumable=self._is_begun,
            kept=self._kept if status == "completed" else None,
        )

    def _written(self, outcome: DemoOutcome, path: Path | None) -> DemoOutcome:
        """Write the outcome; one that cannot be written has failed, unless it had failed before."""
        if path is None:
            return outcome
        try:
            self._interruption.settle()
            write_json(path, outcome.to_json())
        except TrunklineError as error:
            return outcome if outcome.fault else self._outcome("failed", Fault.of(error))
        return outcome


def _refuse_divergence(result: SimulationResult) -> None:
    if not math.isfinite(result.eval_loss):
        raise TrainingError(
            f"training diverged: the evaluation loss is {result.eval_loss} after {result.num_steps} steps at "
            f"--learning-rate {result.spec.learning_rate.peak:g}; begin anew with a lower one"
        )
