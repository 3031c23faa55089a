"""The silo's whole result, out of its checkpoints and the trunk's tensors."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from client_agent.places import JobFolder
from client_agent.preparation import Prepared, StartGoneError, open_start
from client_agent.results import export_whole
from client_agent.training_loop import SiloCheckpoints, load_blocks
from splitlearn.errors import StorageError
from splitlearn.partition import ModelFolder, StartingPoint, load_trunk, segment_state
from splitlearn.spec import JobSpec
from splitlearn.tasks import SiloData
from splitlearn.training import SiloTrainer

WATCHED = {"every_rounds": 1, "keep_best": True, "patience_evaluations": 2}
LAYER = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A small random model."""
    path = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "vocab_size": 11}
    config = AutoConfig.for_model("llama", **sizes, num_attention_heads=2, num_key_value_heads=2)
    with torch.random.fork_rng(devices=[]):
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return ModelFolder.open(path)


def prepared(folder: ModelFolder, **fields: Any) -> Prepared:
    spec = JobSpec.parse(
        {
            "model": "m",
            "silos": [{"name": "a", "dataset": "d"}],
            "silo_blocks": "local",
            "adapter": {"kind": "full"},
            "rounds": 9,
            **fields,
        }
    )
    cut = folder.cut(bottom_layers=1, top_layers=1)
    return Prepared(spec, "a", folder, cut, cast("SiloData", None))


def train(job: Prepared, place: JobFolder, *, rounds: int, best: int | None) -> dict[int, Tensor]:
    """Save so many rounds, each with other blocks; return one of their tensors, by round."""
    blocks = load_blocks(job, "cpu")
    trainer = SiloTrainer(blocks, spec=job.spec, silo="a")
    weight = dict(blocks.bottom.named_trainable())[LAYER]
    found = {}
    for number in range(1, rounds + 1):
        with torch.no_grad():
            weight.fill_(number)
        if number == best:
            trainer.keep_best(number)
        SiloCheckpoints(job, place.checkpoints).save(trainer.state(), round_number=number)
        found[number] = weight.detach().clone()
    return found


def exported(job: Prepared, place: JobFolder, tmp_path: Path) -> Tensor:
    trunk = load_trunk(job.folder, job.cut, adapter=job.spec.adapter, seed=0)
    save_file(segment_state(trunk), tmp_path / "trunk.safetensors")
    result = export_whole(job, place, trunk=tmp_path / "trunk.safetensors", base_name="m")
    tensors: dict[str, Tensor] = load_file(result / "model.safetensors")
    return tensors[LAYER]


class TestStart:
    """A silo's part in a job that begins at its own earlier result."""

    @pytest.fixture
    def earlier(self, folder: ModelFolder, tmp_path: Path) -> Path:
        job, place = prepared(folder, rounds=1), JobFolder(tmp_path / "earlier")
        train(job, place, rounds=1, best=None)
        exported(job, place, tmp_path)
        return place.result

    def started(self, folder: ModelFolder, earlier: Path, **fields: Any) -> Prepared:
        job = prepared(folder, rounds=1, **fields)
        start = StartingPoint.open(earlier, base=folder, adapter=job.spec.adapter)
        return replace(job, start=start)

    def test_its_blocks_are_that_results(self, folder: ModelFolder, earlier: Path) -> None:
        blocks = load_blocks(self.started(folder, earlier), "cpu")
        assert bool((dict(blocks.bottom.named_parameters())[f"core.{LAYER}"] == 1).all())

    def test_frozen_ones_too_also_in_what_it_exports(
        self, folder: ModelFolder, earlier: Path, tmp_path: Path
    ) -> None:
        job, place = self.started(folder, earlier, silo_blocks="frozen"), JobFolder(tmp_path / "later")
        trainer = SiloTrainer(load_blocks(job, "cpu"), spec=job.spec, silo="a")
        SiloCheckpoints(job, place.checkpoints).save(trainer.state(), round_number=1)
        assert bool((exported(job, place, tmp_path) == 1).all())

    def test_a_result_that_is_gone_is_told_with_what_helps(self, folder: ModelFolder, tmp_path: Path) -> None:
        spec = prepared(folder, start_from="0f3c0000-0000-4000-8000-000000000001").spec
        with pytest.raises(
            StartGoneError, match=r"took part in job 0f3c0000.* put it back from a copy"
        ) as gone:
            open_start(spec, tmp_path / "gone", folder=folder)
        assert str(tmp_path) not in gone.value.public


class TestExport:
    def test_is_of_the_last_round_of_the_plan(self, folder: ModelFolder, tmp_path: Path) -> None:
        job, place = prepared(folder), JobFolder(tmp_path / "job")
        values = train(job, place, rounds=9, best=None)
        assert torch.equal(exported(job, place, tmp_path), values[9])

    def test_is_of_the_best_round_of_a_job_that_ended_early(
        self, folder: ModelFolder, tmp_path: Path
    ) -> None:
        """Its checkpoint is long gone: the last one holds it."""
        job, place = prepared(folder, evaluation=WATCHED), JobFolder(tmp_path / "job")
        values = train(job, place, rounds=4, best=1)
        assert SiloCheckpoints(job, place.checkpoints).rounds() == [3, 4]
        assert torch.equal(exported(job, place, tmp_path), values[1])

    def test_refuses_a_job_of_which_rounds_are_missing(self, folder: ModelFolder, tmp_path: Path) -> None:
        job, place = prepared(folder), JobFolder(tmp_path / "job")
        train(job, place, rounds=4, best=None)
        with pytest.raises(StorageError, match="round-00000009"):
            exported(job, place, tmp_path)
