"""How the demo goes on, in a terminal (live table) or in a log (plain lines)."""

import math
import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from splitlearn.parties import Evaluated, RoundFinished, StepDone
from splitlearn.parties import Progress as PartyProgress
from splitlearn.simulation.demo_inputs import Inputs
from splitlearn.simulation.reference_process import ReferenceStep
from splitlearn.simulation.run_state import RunState, SiloState, mean
from splitlearn.spec import JobSpec

_REFRESHES_PER_SECOND = 4
_LINES_PER_RUN = 20
_STATE_STYLES = {"training": "green", "evaluating": "cyan", "waiting": "dim", "done": "bold green"}


def choose_display(console: Console) -> "LiveDisplay | LinesDisplay":
    """Return the live display for a terminal, plain lines for everything else."""
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if live else LinesDisplay(console)


class _Base:
    """What both displays share."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state: RunState | None = None

    def say(self, sentence: str) -> None:
        """Print a sentence that stays."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=not self._console.is_terminal)

    def begin(self, inputs: Inputs, *, last_round: int) -> None:
        """Print what is about to run."""
        self._state = RunState(inputs.spec, last_round)
        self.say(headline(inputs.spec, threads=inputs.job.threads))
        for silo in inputs.data:
            self.say(f"  {silo.name}: {silo.report.describe()}")
        if last_round:
            self.say(f"Going on after round {last_round} of {inputs.spec.rounds}.")


def headline(spec: JobSpec, *, threads: int) -> str:
    """Return what is about to run, in one sentence."""
    count = len(spec.silos)
    subject = "1 silo fine-tunes" if count == 1 else f"{count} silos fine-tune"
    schedule = f"{spec.schedule} with {spec.replicas} replicas" if spec.replicas > 1 else spec.schedule
    return (
        f"{subject} {spec.model} on {spec.task.kind}: {schedule}, silo blocks {spec.silo_blocks}, "
        f"{spec.adapter.kind} training, {spec.codec} on the wire, "
        f"{threads} thread{'' if threads == 1 else 's'} per party."
    )


class LiveDisplay(_Base):
    """A table that moves: one row per silo, and a bar for the whole."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            expand=True,
        )
        self._live: Live | None = None
        self._bar: TaskID | None = None
        self._reference: TaskID | None = None

    def begin(self, inputs: Inputs, *, last_round: int) -> None:
        """Print what is about to run, and begin to move."""
        super().begin(inputs, last_round=last_round)
        assert self._state is not None
        self._bar = self._bars.add_task("federation", total=self._state.total, completed=self._state.done)
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
        )
        self._live.start()

    def phase(self, done: str) -> None:
        """Say it in front of the bar until the training moves it."""
        assert self._bar is not None
        self._bars.update(self._bar, description=f"federation: {done}")

    def progress(self, progress: PartyProgress) -> None:
        """Move the table."""
        assert self._state is not None
        assert self._bar is not None
        self._state.take(progress)
        if isinstance(progress, StepDone):
            self._bars.update(self._bar, completed=self._state.done, description="federation")

    def begin_reference(self, total: int) -> None:
        """Add the reference's bar."""
        self._reference = self._bars.add_task("centralised reference", total=total)

    def reference(self, step: ReferenceStep) -> None:
        """Move the reference's bar."""
        assert self._reference is not None
        self._bars.update(self._reference, completed=step.step + 1)

    def end(self) -> None:
        """Take the table away; what follows is the report."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> Group:
        assert self._state is not None
        return Group(progress_table(self._state), self._bars)


def progress_table(state: RunState) -> Table:
    """Return the moving table: where every silo stands."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("silo", overflow="ellipsis", no_wrap=True, max_width=24)
    for title in ("round", "step", "loss", "eval", "tokens/s"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for silo in state.silos.values():
        table.add_row(*_cells(silo, state), style="")
    return table


def _cells(silo: SiloState, state: RunState) -> tuple[str, ...]:
    style = _STATE_STYLES[silo.state]
    evaluation = math.nan if silo.evaluation is None else silo.evaluation.loss
    return (
        silo.name,
        f"{silo.round}/{state.spec.rounds}",
        f"{silo.step}/{state.steps_per_silo}",
        decimal(silo.loss, 3),
        decimal(evaluation, 3),
        decimal(silo.tokens_per_second, 0),
        f"[{style}]{silo.state}[/]",
    )


class LinesDisplay(_Base):
    """A line now and then, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._shown = 0
        self._reference_shown = self._reference_total = 0
        self._began = time.monotonic()

    def phase(self, done: str) -> None:
        """Print a line."""
        self.say(f"{self._clock()} {done}")

    def progress(self, progress: PartyProgress) -> None:
        """Print a line every so many steps, after every evaluation and every round."""
        state = self._state
        assert state is not None
        state.take(progress)
        match progress:
            case StepDone():
                self._step(state)
            case Evaluated() if progress.withheld_below:
                below = progress.withheld_below
                self.say(f"{self._clock()} {progress.silo}: eval loss withheld: fewer than {below} rows")
            case Evaluated():
                accuracy = "" if progress.accuracy is None else f", accuracy {progress.accuracy:.1%}"
                when = f"after round {progress.round}" if progress.round else "before training"
                told = f"eval loss {progress.loss:.4f}{accuracy}, {when}"
                self.say(f"{self._clock()} {progress.silo}: {told}")
            case RoundFinished():
                who = "" if progress.replica is None else f" of replica {progress.replica}"
                done = f"round {progress.round}/{state.spec.rounds}{who} finished and saved"
                self.say(f"{self._clock()} {done}")
            case _:
                pass

    def begin_reference(self, total: int) -> None:
        """Say that it begins."""
        self._reference_total = total
        self.say(f"{self._clock()} the centralised reference begins, in a process of its own")

    def reference(self, step: ReferenceStep) -> None:
        """Print a line every so many steps."""
        total = self._reference_total
        if step.step + 1 >= self._reference_shown + max(1, total // (_LINES_PER_RUN // 2)):
            self._reference_shown = step.step + 1
            loss = decimal(math.nan if step.loss is None else step.loss, 3)
            self.say(f"{self._clock()} centralised reference: step {step.step + 1}/{total}, loss {loss}")

    def end(self) -> None:
        """Nothing moves here."""

    def _step(self, state: RunState) -> None:
        if state.done < self._shown + max(len(state.silos), state.total // _LINES_PER_RUN):
            return
        self._shown = state.done
        silos = ", ".join(f"{silo.name} {decimal(silo.loss, 3)}" for silo in state.silos.values())
        speed = decimal(mean([silo.tokens_per_second for silo in state.silos.values()]), 0)
        self.say(
            f"{self._clock()} round {max(silo.round for silo in state.silos.values())}/{state.spec.rounds}, "
            f"{state.done / state.total:4.0%}: loss {silos}; {speed} tokens/s per silo"
        )

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"[{seconds // 60:02d}:{seconds % 60:02d}]"


def decimal(value: float | None, places: int) -> str:
    """Return a number with so many decimals and thousands set apart; a dash for none."""
    return "-" if value is None or math.isnan(value) else f"{value:,.{places}f}"
