"""Runs that really train, in this process."""

import json
from pathlib import Path

import pytest

from splitlearn.comparison.modes import parse_modes
from splitlearn.comparison.one_run import prepare_rows, run_file, run_one
from splitlearn.comparison.plan import Run, plan_runs
from splitlearn.comparison.run_files import RunRequest, RunResult, read_document, write_document
from splitlearn.comparison.specification import Comparison, read_comparison
from splitlearn.errors import TrainingError
from splitlearn.simulation.centralised import CentralisedResult, StepReport
from splitlearn.tasks import EvaluationResult, LossSum

NUM_ROWS = 2 * 2 * 2 * 4  # rounds, steps, batch, silos


@pytest.fixture
def comparison(spec_path: Path) -> Comparison:
    return read_comparison(spec_path)


def request_of(comparison: Comparison, mode: str, folder: Path) -> RunRequest:
    (found,) = parse_modes([mode], silos=comparison.source.silos)
    run: Run = plan_runs(comparison, [found], num_seeds=1, threads=1)[0]
    return RunRequest(
        mode=mode,
        kind=found.kind,
        base=run.base,
        job=run.job,
        source=comparison.source,
        model_folder=comparison.model_folder,
        threads=1,
        work_dir=folder / mode.replace(":", "-"),
        fingerprint=run.fingerprint,
    )


class TestSummaries:
    def test_every_mode_tells_the_same_scores(self, spec_path: Path, tmp_path: Path) -> None:
        for silo in ("red", "green", "blue", "grey"):
            rows = [{"document": f"the {silo} house {n}", "summary": f"the {silo}"} for n in range(12)]
            (tmp_path / f"{silo}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        text = spec_path.read_text().replace(".txt", ".jsonl").replace("max_tokens: 12", "max_tokens: 24")
        task = "task: {kind: summarise, metrics: [rouge-1, rouge-2, rouge-l, bleu-4]}\n"
        path = spec_path.with_name("summaries.yaml")
        path.write_text(text + task)
        comparison = read_comparison(path)
        for mode in ("centralised", "serial", "alone:green"):
            found = run_one(request_of(comparison, mode, tmp_path))
            assert set(found.scores) == {"rouge_1", "rouge_2", "rouge_l", "bleu_4"}, mode
            assert all(0 <= value <= 1 for value in found.scores.values())
            assert [set(silo.scores) for silo in found.silos] == [set(found.scores)] * 4


class TestBestRound:
    def test_is_what_the_scores_are_of(self, spec_path: Path, tmp_path: Path) -> None:
        """At a rate that makes every round worse than what the run began with."""
        ruin = "learning_rate: {peak: 10.0}\n"
        watched = "evaluation: {every_rounds: 1, keep_best: true, patience_evaluations: 1, max_rows: 8}\n"
        text = spec_path.read_text().replace("silo_blocks: averaged", "silo_blocks: local")
        path = spec_path.with_name("best.yaml")
        path.write_text(text.replace("evaluation: {holdout: 0.3, max_rows: 4}\n", ruin + watched))
        comparison = read_comparison(path)
        whole, split = (
            run_one(request_of(comparison, mode, tmp_path)) for mode in ("centralised", "client-batching")
        )
        for found in (whole, split):
            assert (found.last_round, found.result_round) == (1, 0)
            assert found.optimizer_steps == comparison.base.steps_per_round
            assert found.rows_trained == NUM_ROWS // comparison.base.rounds
        assert whole.label_tokens == split.label_tokens
        assert whole.before is not None
        assert whole.eval_loss == whole.before.eval_loss
        assert split.eval_loss == pytest.approx(whole.eval_loss, rel=1e-6)  # batches add up otherwise


class TestRunOne:
    def test_gives_all_modes_the_same_budget_and_evaluation(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        results = {
            mode: run_one(request_of(comparison, mode, tmp_path))
            for mode in ("centralised", "client-batching", "hierarchical-2", "alone:green")
        }
        assert {found.rows_trained for found in results.values()} == {NUM_ROWS}
        assert {found.optimizer_steps for found in results.values()} == {4}
        evaluated = [
            [(silo.name, silo.evaluated, silo.num_tokens) for silo in r.silos] for r in results.values()
        ]
        assert evaluated[0] == evaluated[1] == evaluated[2] == evaluated[3]
        assert [name for name, _, _ in evaluated[0]] == ["red", "green", "blue", "grey"]
        assert results["centralised"].label_tokens == results["client-batching"].label_tokens
        assert results["centralised"].bytes == results["alone:green"].bytes == 0
        begun = results["centralised"].before
        assert begun is not None
        assert begun.eval_loss != results["centralised"].eval_loss
        assert {found.before for mode, found in results.items() if mode != "centralised"} == {None}
        assert results["client-batching"].bytes > results["client-batching"].evaluation_bytes > 0
        # The first stretch holds the first step, before which all have the same weights.
        first = [results[mode].curve[0].loss for mode in ("centralised", "client-batching")]
        assert first[0] == pytest.approx(first[1], rel=1e-5)  # fp32 rounding: padded widths differ

    def test_trains_a_silo_alone_on_its_own_rows_only(self, comparison: Comparison, tmp_path: Path) -> None:
        asked = request_of(comparison, "alone:red", tmp_path)
        before = run_one(asked)
        (tmp_path / "green.txt").write_text("something else\n" * 30)
        after = run_one(asked)
        assert before.curve == after.curve
        assert before.silo("red").eval_loss == after.silo("red").eval_loss
        assert before.silo("green").eval_loss != after.silo("green").eval_loss

    def test_prepares_the_same_rows_for_all_modes(self, comparison: Comparison, tmp_path: Path) -> None:
        whole, alone = (
            prepare_rows(request_of(comparison, mode, tmp_path)) for mode in ("centralised", "alone:red")
        )
        assert whole == alone


class TestRunFile:
    def test_writes_the_result(self, comparison: Comparison, tmp_path: Path) -> None:
        asked, answered = tmp_path / "asked.json", tmp_path / "answered.json"
        write_document(asked, request_of(comparison, "centralised", tmp_path))
        assert run_file(asked, answered) == 0
        assert read_document(answered, RunResult).mode == "centralised"

    def test_says_what_went_wrong_in_one_line(
        self, comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = tmp_path / "asked.json"
        write_document(asked, request_of(comparison, "centralised", tmp_path))
        (tmp_path / "blue.txt").write_text("")
        assert run_file(asked, tmp_path / "answered.json") == 4
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert said["code"] == "data"
        assert "blue.txt" in said["error"]

    def test_refuses_a_run_that_diverged(
        self, comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = request_of(comparison, "centralised", tmp_path)
        lost = EvaluationResult(LossSum(float("nan"), 5), num_examples=1, num_right=None)
        diverged = CentralisedResult((StepReport(0, 1.0, 1.0),), (("red", lost),) * 4, {})
        monkeypatch.setattr("splitlearn.comparison.trials.train_centralised", lambda *_, **__: diverged)
        with pytest.raises(TrainingError, match=r"training diverged: .* silo 'red' is nan after 4 steps"):
            run_one(asked)
