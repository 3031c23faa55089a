"""Small random models, random rows, and whole jobs run over them through the sealed channel."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from splitlearn.parties import Progress
from splitlearn.simulation.federation import simulate
from splitlearn.simulation.results import SimulationResult
from splitlearn.simulation.trunk_side import trunk_places
from splitlearn.spec import JobSpec
from splitlearn.tasks import IGNORED, DataReport, Example, SiloData, TokenRow
from splitlearn.training import CheckpointStore, average_replicas

VOCAB = 67
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA),
    "llama-tied": ("llama", {**LLAMA, "tie_word_embeddings": True}),
    "llama-dropout": ("llama", {**LLAMA, "attention_dropout": 0.2}),
    "gpt2": ("gpt2", {**GPT2, **NO_DROPOUT, "tie_word_embeddings": False}),
    "gpt2-tied": ("gpt2", {**GPT2, **NO_DROPOUT}),
    "gpt2-dropout": ("gpt2", {**GPT2, "attn_pdrop": 0.2, "embd_pdrop": 0.1, "resid_pdrop": 0.1}),
}
LORA = {"kind": "lora", "r": 4, "alpha": 8.0}


@pytest.fixture(scope="session", autouse=True)
def _one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small random model, made once."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in made:
            family, settings = MODELS[name]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(7)
                whole = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
            made[name] = tmp_path_factory.mktemp(name)
            whole.save_pretrained(made[name])
        return made[name]

    return build


def random_row(chance: random.Random, *, longest: int = 12, labelled: bool = True) -> TokenRow:
    """A row whose prompt, of random length, is not learned; without labels when truncation took them."""
    length = chance.randint(2, longest)
    tokens = tuple(chance.randrange(3, VOCAB) for _ in range(length))
    prompt = chance.randrange(length - 1)
    labels = tuple(token if labelled and place > prompt else IGNORED for place, token in enumerate(tokens))
    return TokenRow(tokens, labels)


def silo_data(name: str, training: Sequence[TokenRow], heldout: Sequence[TokenRow]) -> SiloData:
    """Hand-made data of one silo."""
    examples = tuple(Example((row,), 0, bytes([index])) for index, row in enumerate(heldout))
    rows = len(training) + len(heldout)
    report = DataReport(rows, len(training), len(heldout), 0, 0, 0, 0, 0, 0, 12)
    return SiloData(name, tuple(training), examples, report)


def silo_rows(
    name: str, *, num_rows: int = 40, longest: int = 12, unlabelled: Callable[[int], bool] = lambda _: False
) -> SiloData:
    """Random rows of unequal lengths.

    Args:
        name: The silo; also the seed.
        num_rows: Rows to train on.
        longest: Tokens of the longest.
        unlabelled: Which rows have no label token left.
    """
    chance = random.Random(name)
    training = [
        random_row(chance, longest=longest, labelled=not unlabelled(number)) for number in range(num_rows)
    ]
    return silo_data(name, training, [random_row(chance, longest=longest) for _ in range(5)])


def job(*silos: str, cut: tuple[int, int] = (1, 1), **fields: Any) -> JobSpec:
    """A specification of 20 steps that trains every block in full; fields by name."""
    base: dict[str, Any] = {
        "model": "m",
        "silos": [
            {"name": name, "dataset": name, "cut": {"bottom_layers": cut[0], "top_layers": cut[1]}}
            for name in silos
        ],
        "silo_blocks": "local",
        "adapter": {"kind": "full"},
        "batch_size": 3,
        "max_tokens": 12,
        "rounds": 2,
        "steps_per_round": 10,
        "seed": 5,
        "optimizer": {"kind": "adamw", "weight_decay": 0.01},
        "learning_rate": {"peak": 3e-3, "warmup_steps": 4, "decay": "cosine", "floor": 0.1},
        "evaluation": {"batch_size": 2},
        "patience_seconds": 60,
    }
    return JobSpec.parse({**base, **fields})


@dataclass
class Job:
    """A whole job in a folder of its own."""

    spec: JobSpec
    folder: Path
    data: Sequence[SiloData]
    work_dir: Path

    def run(self, **how: Any) -> SimulationResult:
        """Simulate it; ``how`` as in :func:`simulate`."""
        return simulate(self.spec, model_folder=self.folder, data=self.data, work_dir=self.work_dir, **how)

    def checkpoints(self, party: str) -> CheckpointStore:
        """A party's checkpoints: a silo's, or a trunk's."""
        place = trunk_places(self.spec).get(party, f"silos/{party}")
        return CheckpointStore(self.work_dir / place / "checkpoints", spec=self.spec, party=party)

    def state(self, party: str, *, last_round: int | None = None) -> dict[str, Tensor]:
        """All that a party's training moved, optimiser included, as saved after the last round."""
        return self.checkpoints(party).load(last_round or self.spec.rounds)

    def everything(self) -> dict[str, Tensor]:
        """What every party holds at the end, and what every silo's result holds."""
        names = [silo.name for silo in self.spec.silos]
        held = {
            f"{party}/{key}": value
            for party in (*names, *trunk_places(self.spec))
            for key, value in self.state(party).items()
        }
        for name in names:
            for file in sorted((self.work_dir / "silos" / name / "result").glob("*.safetensors")):
                held |= {f"{name}/result/{key}": value for key, value in load_file(file).items()}
        return held

    def trunk(self) -> dict[str, Tensor]:
        """The trunk's state at the end; of replicas, what they have in common."""
        states = [self.state(party) for party in trunk_places(self.spec)]
        return states[0] if len(states) == 1 else average_replicas(states, moments=self.spec.replica_moments)

    def trained(self, silo: str) -> dict[str, Tensor]:
        """Trained tensors of one silo and the trunk, by the whole model's names."""
        tensors = {**self.state(silo), **self.trunk()}
        mark = "parameter/"
        return {key.removeprefix(mark): value for key, value in tensors.items() if key.startswith(mark)}


NewJob = Callable[..., Job]


@pytest.fixture
def new_job(model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> NewJob:
    """Prepare a job: model, its silos' data (default: one silo), then fields of the specification."""

    def prepare(name: str, *data: SiloData, **fields: Any) -> Job:
        data = data or (silo_rows("clinic"),)
        spec = job(*(silo.name for silo in data), **fields)
        return Job(spec, model(name), data, tmp_path_factory.mktemp("job"))

    return prepare


@pytest.fixture
def rows() -> Callable[..., SiloData]:
    """Makes a silo's rows: see :func:`silo_rows`."""
    return silo_rows


class Heard:
    """Keeps what the parties report, of some kinds."""

    def __init__(self, *kinds: type[Any]) -> None:
        self._kinds = kinds
        self.reports: list[Any] = []

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, self._kinds):
            self.reports.append(progress)


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, f"{len(different)} of {len(left)} tensors differ, first {different[0]}"
