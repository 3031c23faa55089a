import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from splitlearn.parties import Evaluated, JobFinished, RoundFinished, StepDone, TurnStarted
from splitlearn.simulation.centralised_files import CentralisedAnswer, SiloAnswer
from splitlearn.simulation.demo_inputs import plan_job
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.display import LinesDisplay, LiveDisplay, choose_display, progress_table
from splitlearn.simulation.outcome import DemoOutcome, Fault
from splitlearn.simulation.platform.stopwatch import Stopwatch
from splitlearn.simulation.report import print_report
from splitlearn.simulation.results import SiloResult, SimulationResult
from splitlearn.simulation.run_state import RunState
from splitlearn.spec import JobSpec
from splitlearn.tasks import DataReport, Score
from splitlearn.wire import Phase

OPTIONS = DemoOptions(rounds=2, steps_per_round=5, silo_blocks="frozen")
REPORT = DataReport(420, 378, 42, 3, 3, 0, 0, 9000, 3000, 128)
ISSUE_KEYS = {
    "status",
    "schedule",
    "codec",
    "silo_blocks",
    "threads",
    "silos",
    "eval_loss",
    "centralised_eval_loss",
    "seconds_per_step",
    "centralised_seconds_per_step",
    "wire_bytes_per_token",
    "eval_wire_bytes",
    "artifacts",
}


def steps(silo: str, count: int = 10) -> tuple[StepDone, ...]:
    return tuple(
        StepDone(silo, 1 + n // 5, n, 4.0 - n / 4, 10, 100, applied=True, seconds=0.1) for n in range(count)
    )


@pytest.fixture
def spec() -> JobSpec:
    return plan_job(OPTIONS)


def outcome(spec: JobSpec, *, accuracy: float | None = None, name: str = "harbour") -> DemoOutcome:
    silos = tuple(
        SiloResult(
            name=silo,
            report=REPORT,
            steps=steps(silo),
            evaluations=(Evaluated(silo, 2, 1.25, 500, accuracy),),
            wire_bytes=1_539_000,
            eval_wire_bytes=1 << 20,
            resent_messages=0,
            artifact=Path("runs/demo/silos") / silo / "result",
        )
        for silo in (name, "hillside", "riverside")
    )
    federation = SimulationResult(
        status="completed",
        spec=spec,
        threads=1,
        silos=silos,
        seconds_per_step=0.321,
        num_steps=10,
        peak_memory_bytes={"all": 500 << 20},
    )
    answers = tuple(
        SiloAnswer(name=silo.name, eval_loss=1.25, num_tokens=500, accuracy=accuracy) for silo in silos
    )
    reference = CentralisedAnswer(losses=(1.0,), eval_loss=1.25, seconds_per_step=0.3, silos=answers)
    return DemoOutcome("completed", OPTIONS, federation, reference)


def rendered(shown: DemoOutcome, *, width: int) -> list[str]:
    stream = io.StringIO()
    print_report(Console(file=stream, width=width), shown)
    return stream.getvalue().splitlines()


class TestReport:
    @pytest.mark.parametrize("width", [80, 120])
    @pytest.mark.parametrize("accuracy", [None, 0.8125])
    def test_shows_every_number_whole(self, spec: JobSpec, width: int, accuracy: float | None) -> None:
        lines = rendered(outcome(spec, accuracy=accuracy), width=width)
        assert all(len(line) <= width for line in lines)
        row = next(line for line in lines if "hillside" in line).split()
        expected = ["hillside", "420", "4.000", "1.750", "1.2500", "1.2500"]
        assert row == expected + ([] if accuracy is None else ["81.2%", "81.2%"])

    def test_shows_the_facts_of_the_issue(self, spec: JobSpec) -> None:
        text = " ".join(" ".join(rendered(outcome(spec), width=200)).split())
        for fact in (
            "0.321, centralised 0.300",
            "1,539.0 bytes per training token",
            "500.0 MiB",
            "9 of 1260 rows cut to 128 tokens",
            "runs/demo/silos/{harbour,hillside,riverside}/result",
            "Stayed at each silo: its text, tokens, labels",
        ):
            assert fact in text

    def test_a_long_name_costs_no_number(self, spec: JobSpec) -> None:
        lines = rendered(outcome(spec, accuracy=0.5, name="a-hospital-with-a-very-long-name"), width=80)
        row = next(line for line in lines if " 420 " in line)
        assert row.split()[1:] == ["420", "4.000", "1.750", "1.2500", "1.2500", "50.0%", "50.0%"]

    def test_says_that_there_was_no_reference(self, spec: JobSpec) -> None:
        text = "\n".join(rendered(replace(outcome(spec), reference=None), width=80))
        assert "the centralised reference was not run to its end" in " ".join(text.split())


class TestScores:
    SCORES = (Score("f1_macro", 0.5, 42), Score("precision_1", 0.25, 42))

    @pytest.fixture
    def scored(self) -> DemoOutcome:
        made = outcome(plan_job(replace(OPTIONS, task="choice")), accuracy=0.5)
        assert made.federation is not None
        assert made.reference is not None
        silos = tuple(
            replace(silo, evaluations=(replace(silo.evaluations[0], scores=self.SCORES),))
            for silo in made.federation.silos
        )
        answers = tuple(answer.model_copy(update={"scores": self.SCORES}) for answer in made.reference.silos)
        return replace(
            made,
            federation=replace(made.federation, silos=silos),
            reference=made.reference.model_copy(update={"silos": answers}),
        )

    def test_are_shown_per_silo_and_per_answer(self, scored: DemoOutcome) -> None:
        text = " ".join(" ".join(rendered(scored, width=200)).split())
        assert "macro F1 50.0%: harbour 50.0% (centralised 50.0%), hillside" in text
        assert "answer yellow precision 25.0%" in text

    def test_stand_in_the_json_under_the_answers_keys(self, scored: DemoOutcome) -> None:
        content = scored.to_json()
        expected = {"f1_macro": 0.5, "answers": {"yellow": {"precision": 0.25}}}
        assert content["scores"] == content["silos"][0]["scores"] == expected
        assert content["silos"][0]["centralised_scores"] == expected


class TestWithheld:
    @pytest.fixture
    def withheld(self, spec: JobSpec) -> DemoOutcome:
        made = outcome(spec)
        assert made.federation is not None
        first, *rest = made.federation.silos
        nothing = Evaluated("harbour", 2, math.nan, 0, None, num_rows=4, withheld_below=10)
        silos = (replace(first, evaluations=(nothing,)), *rest)
        return replace(made, federation=replace(made.federation, silos=silos))

    def test_is_said_in_so_many_words(self, withheld: DemoOutcome) -> None:
        text = " ".join(" ".join(rendered(withheld, width=120)).split())
        assert "withheld harbour: fewer than 10 rows" in text
        assert withheld.to_json()["silos"][0]["withheld"] == "fewer than 10 rows"
        assert withheld.to_json()["silos"][1]["withheld"] is None

    def test_does_not_count_in_the_mean_of_the_others(self, withheld: DemoOutcome) -> None:
        assert withheld.to_json()["eval_loss"] == 1.25


class TestTruncation:
    def test_is_told_of_each_silo_by_side(self, spec: JobSpec) -> None:
        made = outcome(spec)
        assert made.federation is not None
        first, *rest = made.federation.silos
        report = replace(REPORT, prompts_cut=2, answers_cut=1, tokens_cut_left=40, tokens_cut_right=5)
        untouched = [replace(silo, report=replace(REPORT, truncated=0)) for silo in rest]
        silos = (replace(first, report=report), *untouched)
        made = replace(made, federation=replace(made.federation, silos=silos))
        text = " ".join(" ".join(rendered(made, width=200)).split())
        assert (
            "harbour 2 prompts by 40 tokens on the left, 1 answers or texts by 5 tokens on the right" in text
        )
        assert made.to_json()["silos"][0]["tokens_cut_left"] == 40


class TestJson:
    def test_has_the_keys_of_the_issue(self, spec: JobSpec) -> None:
        content = outcome(spec).to_json()
        assert content.keys() >= ISSUE_KEYS
        assert content["silos"][0].keys() >= {"name", "rows", "loss_first", "loss_last", "eval_loss"}
        assert content["relative_difference"] == 0
        json.dumps(content, allow_nan=False)

    def test_names_artifacts_by_absolute_paths(self, spec: JobSpec) -> None:
        content = outcome(spec).to_json()
        assert content["artifacts"]["harbour"] == str(Path.cwd() / "runs/demo/silos/harbour/result")

    def test_has_them_even_if_nothing_ever_began(self) -> None:
        fault = Fault("data", "there is no row", 4)
        content = DemoOutcome("failed", OPTIONS, fault=fault).to_json()
        assert content.keys() >= ISSUE_KEYS
        assert content.keys() == outcome(plan_job(OPTIONS)).to_json().keys()
        assert content["error"] == {"code": "data", "message": "there is no row"}


class TestRunState:
    def test_follows_the_parties(self, spec: JobSpec) -> None:
        state = RunState(spec)
        state.take(TurnStarted("harbour", Phase.TRAIN, 1, 0, 5))
        assert state.silos["harbour"].state == "training"
        for done in steps("harbour", 5):
            state.take(done)
        assert (state.silos["harbour"].step, state.silos["harbour"].loss) == (5, 3.0)
        assert state.silos["harbour"].tokens_per_second == pytest.approx(1000)
        assert (state.done, state.total) == (5, 30)
        state.take(TurnStarted("harbour", Phase.EVAL, 1, 0, 0))
        assert state.silos["harbour"].state == "evaluating"
        state.take(RoundFinished(1))
        state.take(JobFinished())
        assert {silo.state for silo in state.silos.values()} == {"done"}

    def test_in_turns_a_silo_waits_after_its_own(self) -> None:
        state = RunState(plan_job(replace(OPTIONS, schedule="serial", turn_steps=2)))
        states = []
        for done in steps("harbour", 5):
            state.take(TurnStarted("harbour", Phase.TRAIN, 1, done.step, 1))
            state.take(done)
            states.append(state.silos["harbour"].state)
        assert states == ["training", "waiting", "training", "waiting", "waiting"]

    def test_goes_on_after_an_earlier_run(self, spec: JobSpec) -> None:
        assert RunState(spec, last_round=1).done == 15


class TestDisplays:
    def test_a_terminal_gets_the_live_table(self) -> None:
        assert isinstance(choose_display(Console(force_terminal=True)), LiveDisplay)

    def test_everything_else_gets_lines(self) -> None:
        assert isinstance(choose_display(Console(file=io.StringIO())), LinesDisplay)
        assert isinstance(
            choose_display(Console(force_terminal=True, _environ={"TERM": "dumb"})), LinesDisplay
        )

    def test_the_live_table_fits_a_narrow_terminal(self, spec: JobSpec) -> None:
        state = RunState(spec)
        state.take(TurnStarted("harbour", Phase.TRAIN, 1, 0, 5))
        state.take(steps("harbour")[0])
        stream = io.StringIO()
        Console(file=stream, width=80).print(progress_table(state))
        lines = stream.getvalue().splitlines()
        assert lines[1].split() == ["harbour", "1/2", "1/10", "4.000", "-", "1,000", "training"]

    def test_a_log_tells_every_phase(self) -> None:
        stream = io.StringIO()
        watch = Stopwatch(on_ended=LinesDisplay(Console(file=stream)).phase)
        watch.ended("rows written")
        watch.ended("job submitted")
        lines = stream.getvalue().splitlines()
        assert [line.split("] ")[1] for line in lines] == ["rows written", "job submitted"]
