"""What the benchmarks train: a random model of the Llama layout, its rows, and how."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splitlearn.records import Record
from splitlearn.spec import (
    AdamWSpec,
    EvaluationSpec,
    FullAdapter,
    JobSpec,
    LearningRateSpec,
    LoraAdapter,
    SiloSpec,
)
from splitlearn.tasks import BatchPlan, SiloData, load_tokenizer, prepare_silo_data

Adapter = Literal["full", "lora"]

SILO = "silo"
LAYERS_OF_DIM = {512: 8, 768: 12}
ADAPTERS: tuple[Adapter, ...] = ("full", "lora")
CLIPS: tuple[float | None, ...] = (None, 1.0)
_LORA_TARGETS = ("q_proj", "v_proj")
_LORA_RANK = 8
_NUM_ROWS = 64
_BF16_BYTES = 2
_CROSSINGS = 4  # activations, hidden, and their two gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row: a Llama layout, what of it is trained, and the batch.

    Attributes:
        dim: Hidden size.
        layers: Decoder layers; one stays at the silo at either end.
        adapter: Train every weight, or LoRA of rank 8 on q_proj and v_proj.
        clip: Largest global gradient norm; None for no clipping.
        vocab_size: Tokens.
        num_heads: Attention heads.
        batch_size: Rows per step.
        max_tokens: Tokens of each row; all are full.
    """

    dim: int
    layers: int
    adapter: Adapter
    clip: float | None
    vocab_size: int = 8192
    num_heads: int = 8
    batch_size: int = 8
    max_tokens: int = 128

    @property
    def mlp_dim(self) -> int:
        """Inner size of the feed-forward layers."""
        return 3 * self.dim

    @property
    def num_tokens(self) -> int:
        """Valid tokens of a step."""
        return self.batch_size * self.max_tokens

    @property
    def payload_bytes_per_token(self) -> int:
        """Bytes that the four tensors of a step take per valid token in bf16."""
        return _CROSSINGS * self.dim * _BF16_BYTES

    def spec(self, *, model_folder: Path, num_steps: int) -> JobSpec:
        """Return the job of one silo, whose blocks are trained, that takes so many steps."""
        lora = LoraAdapter(r=_LORA_RANK, alpha=2.0 * _LORA_RANK, targets=_LORA_TARGETS)
        return JobSpec(
            name="bench",
            model=str(model_folder),
            adapter=FullAdapter() if self.adapter == "full" else lora,
            silos=(SiloSpec(name=SILO, dataset="synthetic"),),
            silo_blocks="local",
            optimizer=AdamWSpec(),
            learning_rate=LearningRateSpec(peak=1e-4),
            max_grad_norm=self.clip,
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            steps_per_round=num_steps,
            codec="bf16",
            evaluation=EvaluationSpec(max_rows=1),  # every job ends with one
        )


def select_cases(
    *, dims: Sequence[int] = (), adapters: Sequence[Adapter] = (), clips: Sequence[float | None] = ()
) -> Iterator[Case]:
    """Yield the rows of the table; what is left empty selects all."""
    for dim in dims or LAYERS_OF_DIM:
        for adapter in adapters or ADAPTERS:
            for clip in clips or CLIPS:
                yield Case(dim=dim, layers=LAYERS_OF_DIM[dim], adapter=adapter, clip=clip)


def synthetic_records(spec: JobSpec, *, vocab_size: int, min_tokens: int | None = None) -> tuple[Record, ...]:
    """Return random texts of ``max_tokens`` words each, each word a token of the bench's own models.

    The same for the same job, in every process.

    Args:
        spec: The job.
        vocab_size: Of its model.
        min_tokens: With it rows are of any length from here to ``max_tokens``.
    """
    chance = random.Random(spec.seed)  # noqa: S311 - token numbers, not secrets
    lengths = [
        spec.max_tokens if min_tokens is None else chance.randint(min_tokens, spec.max_tokens)
        for _ in range(_NUM_ROWS)
    ]
    rows = ([chance.randrange(vocab_size) for _ in range(length)] for length in lengths)
    return tuple(
        Record({"text": " ".join(map(str, row))}, "synthetic", line) for line, row in enumerate(rows, 1)
    )


def synthetic_data(spec: JobSpec, *, model_folder: Path, vocab_size: int) -> SiloData:
    """Return the same rows as the silo trains on them: every one of ``max_tokens`` tokens, some held out."""
    return prepare_silo_data(
        synthetic_records(spec, vocab_size=vocab_size),
        silo_name=SILO,
        task=spec.task,
        tokenizer=load_tokenizer(model_folder),
        max_tokens=spec.max_tokens,
        holdout=spec.evaluation.holdout,
        seed=spec.seed,
        vocab_size=vocab_size,
    )


def batch_plan(spec: JobSpec, data: SiloData) -> BatchPlan:
    """Return the batches that every side trains on: those that an agent makes."""
    return BatchPlan(
        data.training, batch_size=spec.batch_size, seed=spec.seed, silo_name=SILO, pad_token_id=0
    )
