"""What silo and worker load to generate on the platform is what the job left at each of them, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from client_agent.generating import _load
from client_agent.places import JobFolder
from splitlearn.partition import ModelFolder, Segment, segment_state
from splitlearn.simulation.generating import load_parts
from tests.integration.conftest import LORA, NewJob, silo_rows
from worker.generation_attempt import trained_trunk
from worker.memory import Demand
from worker.trunk_cache import TrunkCache

SHAPE: dict[str, Any] = {"rounds": 2, "steps_per_round": 3}
CPU = torch.device("cpu")


def values(segment: Segment) -> dict[str, torch.Tensor]:
    return dict(segment.named_parameters())


def assert_same(ours: Segment, theirs: Segment) -> None:
    mine, other = values(ours), values(theirs)
    assert mine.keys() == other.keys()
    assert [name for name in mine if not torch.equal(mine[name], other[name])] == []


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("llama", {}),
        ("gpt2-tied", {}),
        ("llama", {"adapter": LORA}),
        ("llama-tied", {"adapter": {**LORA, "freeze_a": True}}),
        ("llama", {"adapter": LORA, "silo_blocks": "frozen"}),
        ("llama", {"silo_blocks": "frozen"}),
    ],
)
def test_are_those_of_the_result(name: str, fields: dict[str, Any], new_job: NewJob, tmp_path: Path) -> None:
    job = new_job(name, silo_rows("a"), silo_rows("b"), **{**SHAPE, **fields})
    job.run()
    if not (job.folder / "tokenizer.json").exists():  # no text is read here: any will do
        Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(job.folder / "tokenizer.json"))
    folder = ModelFolder.open(job.folder)
    expected = load_parts(job.spec, model_folder=job.folder, silo="b", work_dir=job.work_dir)
    place = JobFolder(job.work_dir / "silos" / "b")
    loaded = _load(job.spec, folder, silo="b", job=place, round_number=expected.round, device="cpu")
    save_file(segment_state(expected.trunk), tmp_path / "result")
    at = job.spec.silos[0].cut
    cut = folder.cut(bottom_layers=at.bottom_layers, top_layers=at.top_layers)
    trunk = trained_trunk(TrunkCache([CPU]), Demand(job.spec, folder, cut), tmp_path / "result")
    assert_same(loaded.blocks.bottom, expected.blocks.bottom)
    assert_same(loaded.blocks.top, expected.blocks.top)
    assert_same(trunk, expected.trunk)
