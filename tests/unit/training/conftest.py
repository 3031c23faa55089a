"""Small models on disk, random rows, and a split run composed by hand, without protocol or channel."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from splitlearn.partition import ModelFolder, load_silo_blocks, load_trunk
from splitlearn.spec import JobSpec
from splitlearn.tasks import IGNORED, BatchPlan, DataReport, Example, SiloData, TokenBatch, TokenRow
from splitlearn.training import SiloTrainer, StepKey, TrunkPart, TrunkTrainer, token_weights
from splitlearn.wire import Outcome

VOCAB = 67
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 4, "vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA),
    "llama-tied": ("llama", {**LLAMA, "tie_word_embeddings": True}),
    "llama-dropout": ("llama", {**LLAMA, "attention_dropout": 0.2}),
    "gpt2": ("gpt2", {**GPT2, **NO_DROPOUT}),
    "gpt2-dropout": ("gpt2", {**GPT2, "attn_pdrop": 0.2, "embd_pdrop": 0.1, "resid_pdrop": 0.1}),
}


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
                config = AutoConfig.for_model(family, **settings)
                whole = AutoModelForCausalLM.from_config(config)
            made[name] = tmp_path_factory.mktemp(name)
            whole.save_pretrained(made[name])
        return made[name]

    return build


def _row(chance: random.Random, *, longest: int, labelled: bool) -> TokenRow:
    length = chance.randint(2, longest)
    tokens = tuple(chance.randrange(3, VOCAB) for _ in range(length))
    prompt = chance.randrange(length - 1)  # at least the last token is learned
    labels = tuple(token if labelled and place > prompt else IGNORED for place, token in enumerate(tokens))
    return TokenRow(tokens, labels)


def silo_rows(name: str, *, num_rows: int = 40, longest: int = 12, labelled: bool = True) -> SiloData:
    """Random rows of unequal lengths, of which a prompt of unequal length is not learned."""
    chance = random.Random(name)
    rows = [_row(chance, longest=longest, labelled=labelled) for _ in range(num_rows)]
    heldout = tuple(
        Example((_row(chance, longest=longest, labelled=True),), 0, bytes([index])) for index in range(5)
    )
    return SiloData(name, tuple(rows), heldout, DataReport(num_rows, num_rows, 5, 0, 0, 0, 0, 0, 0, longest))


@pytest.fixture
def rows() -> Callable[..., SiloData]:
    """Makes a silo's rows: name, then num_rows, longest, labelled."""
    return silo_rows


@dataclass
class SplitRun:
    """A job on its way, all parties in one process."""

    spec: JobSpec
    folder: Path
    data: Sequence[SiloData]
    undoable: bool = False
    silos: list[SiloTrainer] = field(init=False)
    trunk: TrunkTrainer = field(init=False)

    def __post_init__(self) -> None:
        spec, folder = self.spec, ModelFolder.open(self.folder)
        kept = spec.silos[0].cut
        cut = folder.cut(bottom_layers=kept.bottom_layers, top_layers=kept.top_layers)
        adapter = None if spec.silo_blocks == "frozen" else spec.adapter
        self.silos = [
            SiloTrainer(
                load_silo_blocks(folder, cut, adapter=adapter, seed=spec.seed),
                spec=spec,
                silo=silo.name,
                undoable=self.undoable,
            )
            for silo in spec.silos
        ]
        trunk = load_trunk(folder, cut, adapter=spec.adapter, seed=spec.seed)
        self.trunk = TrunkTrainer(trunk, spec=spec)
        self.plans = [
            BatchPlan(
                silo.training, batch_size=spec.batch_size, seed=spec.seed, silo_name=silo.name, pad_token_id=0
            )
            for silo in self.data
        ]

    def batches(self, step: int) -> list[list[TokenBatch]]:
        """For each silo the step's micro-batches."""
        count = self.spec.accumulation_steps
        return [[plan.batch(step * count + index) for index in range(count)] for plan in self.plans]

    def compute(self, step: int) -> tuple[float, int]:
        """Everything of a step up to the outcomes; returns the loss sum and its tokens over all silos."""
        batches = self.batches(step)
        counts = [sum(batch.num_label_tokens for batch in own) for own in batches]
        for silo, count in zip(self.silos, counts, strict=True):
            silo.begin_step(step, num_label_tokens=count)
        self.trunk.begin_step(step, num_label_tokens=sum(counts))
        loss_sum = 0.0
        for index in range(self.spec.accumulation_steps):
            key = StepKey(self.spec.seed, 1 + step // self.spec.steps_per_round, step, index)
            loss_sum += self._micro_batch([own[index] for own in batches], key, token_weights(counts))
        return loss_sum, sum(counts)

    def _micro_batch(self, batches: list[TokenBatch], key: StepKey, weights: list[float]) -> float:
        parts = [
            TrunkPart(batch.layout, silo.bottom_forward(batch, key))
            for silo, batch in zip(self.silos, batches, strict=True)
        ]
        hiddens = self.trunk.forward(parts, key)
        results = [
            silo.top_loss_and_grad(hidden_ND, batch, key, loss_scale_exponent=self.trunk.loss_scale_exponent)
            for silo, hidden_ND, batch in zip(self.silos, hiddens, batches, strict=True)
        ]
        grads = self.trunk.backward(key.micro_batch, [grad_ND for _, grad_ND in results], weights=weights)
        for silo, grad_ND in zip(self.silos, grads, strict=True):
            silo.bottom_backward(key.micro_batch, grad_ND)
        return sum(loss_sum for loss_sum, _ in results)

    def finish(self) -> list[bool]:
        """Finish the step at every silo, then at the trunk; returns who took it."""
        outcomes: list[Outcome] = [silo.outcome() for silo in self.silos]
        taken = [silo.finish_step(self.trunk.outcome()) for silo in self.silos]
        return [*taken, self.trunk.finish_step(outcomes)]

    def step(self, step: int) -> float:
        """One whole step; returns the mean loss as fp32 division gives it, as in the unsplit model."""
        loss_sum, count = self.compute(step)
        self.finish()
        return float(torch.tensor(loss_sum, dtype=torch.float32) / count)

    def run(self) -> list[float]:
        return [self.step(step) for step in range(self.spec.total_steps)]

    def parameters(self) -> dict[str, Tensor]:
        """Copies of the trained tensors of trunk and first silo, by the whole model's names."""
        tensors = {**self.silos[0].state(), **self.trunk.state()}
        mark = "parameter/"
        return {
            key.removeprefix(mark): value.clone() for key, value in tensors.items() if key.startswith(mark)
        }

    def everything(self) -> list[dict[str, Tensor]]:
        """Copies of all that training may move, of every party."""
        parties: list[SiloTrainer | TrunkTrainer] = [*self.silos, self.trunk]
        return [{key: value.clone() for key, value in party.state().items()} for party in parties]


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
        "rounds": 2,
        "steps_per_round": 10,
        "seed": 5,
        "optimizer": {"kind": "adamw", "weight_decay": 0.01},
        "learning_rate": {"peak": 3e-3, "warmup_steps": 4, "decay": "cosine", "floor": 0.1},
    }
    return JobSpec.parse({**base, **fields})


@pytest.fixture
def new_run(model: Callable[[str], Path]) -> Callable[..., SplitRun]:
    """Begin a job: model, its silos' rows (default: one silo), then fields of the specification."""

    def begin(
        name: str, *data: SiloData, cut: tuple[int, int] = (1, 1), undoable: bool = False, **fields: Any
    ) -> SplitRun:
        data = data or (silo_rows("clinic"),)
        spec = job(*(silo.name for silo in data), cut=cut, **fields)
        return SplitRun(spec, model(name), data, undoable)

    return begin


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, f"{len(different)} of {len(left)} tensors differ, first {different[0]}"


@pytest.fixture
def same() -> Callable[[dict[str, Tensor], dict[str, Tensor]], None]:
    return assert_same
