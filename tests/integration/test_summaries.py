"""A job whose task asks for scores of generated summaries tells them with every evaluation."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from splitlearn.generation import SummaryPlan
from splitlearn.parties import Evaluated
from splitlearn.simulation.centralised import train_centralised
from splitlearn.simulation.generating import generate
from splitlearn.tasks import Score, load_tokenizer
from tests.integration.conftest import LORA, VOCAB, Heard, Job, job
from tests.integration.recording import data_of

METRICS = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")
TASK = {"kind": "summarise", "metrics": list(METRICS)}
END = 2


@pytest.fixture
def folder(model: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model with a tokenizer whose words are its tokens."""
    target = tmp_path / "model"
    shutil.copytree(model("llama"), target)
    words = {f"w{token}": token for token in range(VOCAB)}
    plain = Tokenizer(models.WordLevel({**words, "</s>": END} | {"w2": VOCAB}, unk_token="w3"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>").save_pretrained(target)
    return target


def run(folder: Path, work_dir: Path, **fields: Any) -> tuple[Job, list[Evaluated]]:
    data = [data_of("a", text="one"), data_of("b", text="other")]
    spec = job("a", "b", task=TASK, rounds=2, steps_per_round=2, **fields)
    prepared = Job(spec, folder, data, work_dir)
    heard = Heard(Evaluated)
    prepared.run(on_progress=heard)
    return prepared, heard.reports


@pytest.mark.parametrize(
    "fields",
    [
        {"evaluation": {"every_rounds": 1, "batch_size": 2}},
        {"evaluation": {"batch_size": 2}, "schedule": "serial", "turn_steps": 1},
        {"evaluation": {"batch_size": 2}, "schedule": "hierarchical", "replicas": 2},
    ],
)
def test_scores_are_those_of_what_the_model_answers(
    fields: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    done, reports = run(folder, tmp_path / "job", **fields)
    assert {report.silo for report in reports} == {"a", "b"}
    names = [metric.replace("-", "_") for metric in METRICS]
    for report in reports:
        assert [score.name for score in report.scores] == names
        assert all(0 <= score.value <= 1 and score.num_rows == 3 for score in report.scores)
    for data in done.data:
        plan = SummaryPlan(
            data.heldout,
            metrics=METRICS,  # type: ignore[arg-type]
            tokenizer=load_tokenizer(folder),
            end_token=END,
            batch_size=8,
        )
        [prompts] = plan.batches()
        found = generate(
            done.spec,
            prompts,
            plan.options,
            model_folder=folder,
            silo=data.name,
            work_dir=done.work_dir,
        )
        last = [report for report in reports if report.silo == data.name][-1]
        assert last.scores == plan.scores(found.tokens)


@pytest.mark.parametrize(
    "fields", [{}, {"adapter": LORA}, {"precision": "bf16"}], ids=["full", "lora", "bf16"]
)
def test_scores_of_one_silo_are_those_of_the_model_that_was_never_cut(
    fields: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [data_of("a", text="one")]
    scored: list[list[tuple[int, ...]]] = []
    score = SummaryPlan.scores

    def scores(plan: SummaryPlan, answers: list[tuple[int, ...]]) -> tuple[Score, ...]:
        scored.append(answers)
        return score(plan, answers)

    # So few tokens of a random model mostly score nothing: what it wrote is what tells.
    monkeypatch.setattr(SummaryPlan, "scores", scores)
    spec = job("a", task=TASK, rounds=2, steps_per_round=3, evaluation={"batch_size": 2}, **fields)
    heard = Heard(Evaluated)
    Job(spec, folder, data, tmp_path / "job").run(on_progress=heard)
    reference = train_centralised(spec, folder, data)
    half = len(scored) // 2
    assert scored[:half] == scored[half:]
    assert all(all(answers) for answers in scored)
    assert [told.round for told in heard.reports] == [0, 2]
    for told, ((_, found),) in zip(heard.reports, (reference.before, reference.evaluations), strict=True):
        assert told.scores == found.scores
        assert [score.name for score in found.scores] == [metric.replace("-", "_") for metric in METRICS]
        assert told.loss == found.loss.mean


def test_a_job_without_metrics_generates_nothing(folder: Path, tmp_path: Path) -> None:
    spec = job("a", task={"kind": "summarise"}, rounds=1, steps_per_round=1)
    heard = Heard(Evaluated)
    (folder / "tokenizer.json").unlink()  # nobody asks for it
    Job(spec, folder, [data_of("a", text="one")], tmp_path / "job").run(on_progress=heard)
    assert [report.scores for report in heard.reports] == [(), ()]
