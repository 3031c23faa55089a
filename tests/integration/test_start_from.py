"""A job that begins where an earlier one ended: bit for bit there, and refused where it does not fit."""

from pathlib import Path
from typing import Any

import pytest

from splitlearn.errors import SpecError
from splitlearn.partition import StartError
from splitlearn.simulation.centralised import train_centralised
from splitlearn.simulation.results import SimulationResult
from tests.integration.conftest import LORA, Job, NewJob, assert_same, silo_rows
from tests.integration.test_results import load_plain, plain_loss

FULL = {"kind": "full"}
SHAPE: dict[str, Any] = {"rounds": 1, "steps_per_round": 3, "learning_rate": {"peak": 0.01}}
# So small a rate that fp32 keeps every weight: what is loaded is what is evaluated.
STILL: dict[str, Any] = {**SHAPE, "learning_rate": {"peak": 1e-30}, "optimizer": {"kind": "sgd"}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "full-local": ("llama", {"adapter": FULL}),
    "full-frozen-tied": ("llama-tied", {"adapter": FULL, "silo_blocks": "frozen"}),
    "lora-local": ("gpt2", {"adapter": LORA}),
    "lora-frozen": ("llama", {"adapter": LORA, "silo_blocks": "frozen"}),
    "lora-freeze-a": ("llama", {"adapter": {**LORA, "freeze_a": True}}),
}


def both(new_job: NewJob, kind: str, **later: Any) -> tuple[SimulationResult, Job]:
    """Run a job, and prepare one that begins at its result."""
    name, fields = KINDS[kind]
    data = (silo_rows("a"), silo_rows("b", longest=6))
    first = new_job(name, *data, **{**SHAPE, **fields})
    result = first.run()
    # Another seed: what begins anew is drawn anew.
    return result, new_job(
        name, *data, **{**STILL, **fields, "seed": 6, "start_from": str(first.work_dir), **later}
    )


class TestBegin:
    @pytest.mark.parametrize("kind", KINDS)
    def test_with_every_silos_own_result(self, kind: str, new_job: NewJob) -> None:
        earlier, job = both(new_job, kind)
        later = job.run()
        for before, after, data in zip(earlier.silos, later.silos, job.data, strict=True):
            models = [load_plain(job.folder, silo) for silo in (before, after)]
            assert_same(*(dict(model.state_dict()) for model in models))
            # Rows in batches of another size add up in another order: see test_results.
            assert plain_loss(models[1], data, max_rows=256) == pytest.approx(after.eval_loss, rel=1e-6)

    def test_and_a_silo_that_took_no_part_with_the_base_model(self, new_job: NewJob) -> None:
        first = new_job("llama", silo_rows("a"), **{**SHAPE, "adapter": FULL})
        first.run()
        data = (silo_rows("a"), silo_rows("late"))
        fields = {**STILL, "adapter": FULL, "start_from": str(first.work_dir)}
        job = new_job("llama", *data, **fields)
        result = job.run()

        base = dict(load_plain(job.folder, result.silos[0]).state_dict())
        late = dict(load_plain(job.folder, result.silos[1]).state_dict())
        trunk = {name for name in base if ".layers.1." in name}
        assert_same({name: base[name] for name in trunk}, {name: late[name] for name in trunk})
        untrained = new_job("llama", silo_rows("late"), **{**STILL, "adapter": FULL})
        blocks = dict(load_plain(job.folder, untrained.run().silos[0]).state_dict())
        assert_same(*({name: state[name] for name in base.keys() - trunk} for state in (late, blocks)))

    @pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
    def test_equals_the_uncut_model_that_begins_there(self, adapter: Any, new_job: NewJob) -> None:
        first = new_job("llama", silo_rows("clinic"), **{**SHAPE, "adapter": adapter})
        first.run()
        start = first.work_dir / "silos" / "clinic" / "result"
        job = new_job("llama", **{**SHAPE, "adapter": adapter, "start_from": str(start)})
        result = job.run()
        reference = train_centralised(job.spec, job.folder, job.data)
        assert result.eval_loss == reference.eval_loss
        assert_same(job.trained("clinic"), reference.state)


class TestRefuse:
    @pytest.mark.parametrize(
        ("kind", "later", "sentence"),
        [
            ("lora-local", {"adapter": FULL}, "holds an adapter, the job trains every weight"),
            ("full-local", {"adapter": LORA}, "holds no adapter, the job trains an adapter"),
            ("lora-local", {"adapter": {**LORA, "r": 2}}, r"has r 4, the job's has 2 \(adapter\.r\)"),
            ("lora-local", {"adapter": {**LORA, "alpha": 2}}, "has alpha 8, the job's has 2"),
            ("lora-local", {"silo_blocks": "frozen"}, "adapter of the silo's bottom block"),
        ],
        ids=["adapter", "whole", "rank", "alpha", "frozen"],
    )
    def test_another_kind_of_result(
        self, kind: str, later: dict[str, Any], sentence: str, new_job: NewJob
    ) -> None:
        _, job = both(new_job, kind, **later)
        with pytest.raises(StartError, match=sentence):
            job.run()

    def test_another_model(self, new_job: NewJob) -> None:
        first = new_job("llama", silo_rows("a"), **{**SHAPE, "adapter": FULL})
        first.run()
        job = new_job("llama-tied", silo_rows("a"), **{**STILL, "start_from": str(first.work_dir)})
        with pytest.raises(StartError, match="tie_word_embeddings"):
            job.run()

    def test_a_folder_that_holds_no_result(self, new_job: NewJob, tmp_path: Path) -> None:
        job = new_job("llama", silo_rows("a"), start_from=str(tmp_path))
        with pytest.raises(StartError, match="neither the folder of an earlier run"):
            job.run()
        (tmp_path / "silos" / "a").mkdir(parents=True)
        with pytest.raises(StartError, match="let it end first"):
            job.run()

    def test_unequal_blocks_where_they_are_averaged(self, new_job: NewJob) -> None:
        data = tuple(silo_rows(name) for name in "abc")
        first = new_job("llama", *data, **{**SHAPE, "adapter": FULL})
        first.run()
        fields = {**STILL, "adapter": FULL, "silo_blocks": "averaged", "start_from": str(first.work_dir)}
        with pytest.raises(StartError, match="blocks of silo 'b' differ from those of 'a'"):
            new_job("llama", *data, **fields).run()

    def test_an_empty_name(self, new_job: NewJob) -> None:
        with pytest.raises(SpecError, match="start_from"):
            new_job("llama", start_from="")
