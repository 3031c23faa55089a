"""Each silo's result is a plain transformers model or PEFT adapter, and gives that silo's evaluation loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from splitlearn.partition import merge_adapter
from splitlearn.simulation.results import SiloResult
from splitlearn.spec import FullAdapter
from splitlearn.tasks import IGNORED, SiloData, load_silo_data, load_tokenizer
from tests.integration.conftest import LORA, Job, NewJob, job, silo_rows

FULL = {"kind": "full"}
SHAPE: dict[str, Any] = {"rounds": 2, "steps_per_round": 3, "learning_rate": {"peak": 0.01}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full-local": ("llama", {"adapter": FULL}),
    "full-local-tied": ("llama-tied", {"adapter": FULL}),
    "full-frozen-tied": ("gpt2-tied", {"adapter": FULL, "silo_blocks": "frozen"}),
    "lora-local": ("gpt2", {"adapter": LORA}),
    "lora-local-tied": ("llama-tied", {"adapter": LORA, "schedule": "serial"}),
    "lora-frozen": ("llama", {"adapter": LORA, "silo_blocks": "frozen"}),
}
# Whole and cut model compute the same rows, in batches of other sizes here: fp32 sums in another order
# err by about sqrt(terms) * 6e-8, far below the promise of 1e-6.
UNMERGED = 1e-6
# Merging rounds W + BA to fp32 once, a relative 6e-8 per weight; through some 20 matrix products in
# sequence that may add up to 20 times as much, and a loss's gradient by its logits is below 2: 3e-6.
MERGED = 3e-6


def load_plain(base: Path, silo: SiloResult) -> Any:
    """Load a result as its reader would, with nothing of ours."""
    assert silo.artifact is not None
    if not (silo.artifact / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(silo.artifact)
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), silo.artifact)


def plain_loss(model: Any, data: SiloData, *, max_rows: int) -> float:
    """Mean loss over the held-out label tokens, one row after the other, by the model's own loss."""
    loss_sum, num_tokens = 0.0, 0
    model.eval()
    with torch.no_grad():
        for example in data.heldout[:max_rows]:
            row = example.target
            labels = torch.tensor([row.labels])
            count = int((labels[:, 1:] != IGNORED).sum())
            loss_sum += count * float(model(input_ids=torch.tensor([row.input_ids]), labels=labels).loss)
            num_tokens += count
    return loss_sum / num_tokens


def check_results(job: Job, silos: Sequence[SiloResult]) -> list[float]:
    losses = []
    for silo, data in zip(silos, job.data, strict=True):
        losses.append(plain_loss(load_plain(job.folder, silo), data, max_rows=job.spec.evaluation.max_rows))
        assert losses[-1] == pytest.approx(silo.eval_loss, rel=UNMERGED), silo.name
    return losses


def check_merged(job: Job, silos: Sequence[SiloResult], tmp_path: Path) -> None:
    for silo, data in zip(silos, job.data, strict=True):
        assert silo.artifact is not None
        merge_adapter(job.folder, silo.artifact, tmp_path / silo.name)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / silo.name)
        loss = plain_loss(merged, data, max_rows=job.spec.evaluation.max_rows)
        assert loss == pytest.approx(silo.eval_loss, rel=MERGED), silo.name


class TestRandomModels:
    @pytest.mark.parametrize("case", CASES)
    def test_load_plainly_and_give_the_silos_own_loss(
        self, case: str, new_job: NewJob, tmp_path: Path
    ) -> None:
        name, fields = CASES[case]
        job = new_job(name, silo_rows("a"), silo_rows("b", longest=6), **{**SHAPE, **fields})

        result = job.run()

        losses = check_results(job, result.silos)
        base = AutoModelForCausalLM.from_pretrained(job.folder)
        for data, loss in zip(job.data, losses, strict=True):
            assert abs(plain_loss(base, data, max_rows=256) - loss) > 1e-4, "the base model does as well"
        if fields["adapter"] == LORA:
            check_merged(job, result.silos, tmp_path)

    def test_each_silo_has_its_own_blocks_where_they_are_trained(self, new_job: NewJob) -> None:
        job = new_job("llama", silo_rows("a"), silo_rows("b"), **SHAPE)
        result = job.run()
        models = [load_plain(job.folder, silo).state_dict() for silo in result.silos]
        same = {name for name in models[0] if torch.equal(models[0][name], models[1][name])}
        trunk = {name for name in models[0] if ".layers.1." in name}
        assert same == trunk


@pytest.fixture(scope="module")
def stories_job(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = test_data / "models" / "stories260K"
    text = test_data / "data" / "text" / "tinystories" / "tinystories_slice.txt"
    lines = [line for line in text.read_text(encoding="utf-8").splitlines() if line.strip()][:90]
    fields = {**SHAPE, "rounds": 1, "max_tokens": 48, "batch_size": 4, "evaluation": {"max_rows": 6}}
    spec = job("north", "south", adapter={**LORA, "targets": ("q_proj", "v_proj")}, **fields)
    tokenizer = load_tokenizer(folder)
    data = []
    for index, silo in enumerate(spec.silos):
        path = tmp_path_factory.mktemp(silo.name) / "stories.txt"
        path.write_text("\n".join(lines[index::2]), encoding="utf-8")
        data.append(
            load_silo_data(
                path,
                silo_name=silo.name,
                task=spec.task,
                tokenizer=tokenizer,
                max_tokens=spec.max_tokens,
                holdout=spec.evaluation.holdout,
                seed=spec.seed,
            )
        )
    return Job(spec, folder, data, tmp_path_factory.mktemp("stories"))


class TestStories260K:
    def test_adapters_load_merge_and_tell_stories(self, stories_job: Job, tmp_path: Path) -> None:
        result = stories_job.run()

        losses = check_results(stories_job, result.silos)
        check_merged(stories_job, result.silos, tmp_path)

        assert max(losses) < 2.5  # chance among its 512 tokens is 6.2
        tokenizer = AutoTokenizer.from_pretrained(stories_job.folder)
        told = load_plain(stories_job.folder, result.silos[0]).generate(
            **tokenizer("Once upon a time", return_tensors="pt"), max_new_tokens=12, do_sample=False
        )
        assert tokenizer.decode(told[0]).startswith("<s> Once upon a time")

    def test_whole_models_load(self, stories_job: Job, tmp_path: Path) -> None:
        spec = stories_job.spec.model_copy(update={"adapter": FullAdapter()})
        whole = Job(spec, stories_job.folder, stories_job.data, tmp_path)
        check_results(whole, whole.run().silos)
        assert AutoTokenizer.from_pretrained(tmp_path / "silos" / "north" / "result").encode("Once")
