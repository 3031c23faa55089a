"""Randomness that depends on what is computed, never on when or where.

Dropout draws from torch's global generators. Before a segment's forward they are seeded from a key that
names the job's seed, round, step, micro-batch, segment and party, so that any party, or the unsplit
reference, draws the same masks again.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from splitlearn.partition.skeleton import BUILD_LOCK

Segment = Literal["bottom", "trunk", "top"]

TRUNK_PARTY = "replica-0"
"""The party that seeds the trunk of an unreplicated job."""


def replica_party(replica: int) -> str:
    """Return the party that seeds one trunk of several."""
    return f"replica-{replica}"


@dataclass(frozen=True, slots=True)
class StepKey:
    """One micro-batch of one step: what the randomness of its forward is keyed by.

    Attributes:
        seed: The job's seed.
        round: Round, counted from 1.
        step: Global optimiser step, counted from 0.
        micro_batch: Micro-batch within the step, counted from 0.
    """

    seed: int
    round: int
    step: int
    micro_batch: int


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that any change of a part changes.

    Args:
        *parts: Integers and texts. Their order and kind count: ``1`` and ``"1"`` differ.
    """
    digest = hashlib.sha256(b"trunkline/seed/v1\0")
    for part in parts:
        text = f"{'i' if isinstance(part, int) else 's'}{part}".encode()
        digest.update(len(text).to_bytes(4, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def dropout_seed(key: StepKey, segment: Segment, party: str) -> int:
    """Return the seed for the forward of one segment of one micro-batch at one party."""
    return derive_seed("dropout", key.seed, key.round, key.step, key.micro_batch, segment, party)


def has_active_dropout(module: nn.Module) -> bool:
    """Say whether a forward of the module in its present mode may draw random numbers.

    Probabilities kept as plain numbers (``attention_dropout``) count like dropout layers do.
    """
    return any(_draws(child) for child in module.modules() if child.training)


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001 - the only base of all dropouts
        return module.p > 0
    return any(
        isinstance(value, float) and value > 0 for name, value in vars(module).items() if "drop" in name
    )


@contextmanager
def seeded(module: nn.Module, key: StepKey, *, segment: Segment, party: str) -> Iterator[None]:
    """Seed torch's generators around a forward of the module, then put their old state back.

    Where nothing can draw, nothing is locked, seeded or restored.

    Args:
        module: The segment whose forward runs inside; decides whether and on which devices to seed.
        key: The micro-batch.
        segment: Which part of the model runs.
        party: The silo's name, or :data:`TRUNK_PARTY`.
    """
    if not has_active_dropout(module):
        yield
        return
    with BUILD_LOCK:  # torch's generators belong to the process, and whoever builds a model draws too
        generators = _generators(module)
        states = [generator.get_state() for generator in generators]
        for number, generator in enumerate(generators):
            generator.manual_seed(_seed_of(number, dropout_seed(key, segment, party)))
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


def _generators(module: nn.Module) -> list[torch.Generator]:
    """Return the processor's generator, then those of the module's devices in the order of its layers."""
    devices = dict.fromkeys(
        parameter.device for parameter in module.parameters() if parameter.device.type == "cuda"
    )
    return [torch.default_generator, *(torch.cuda.default_generators[device.index] for device in devices)]


def _seed_of(number: int, seed: int) -> int:
    """Return a generator's seed: layers on a second device must not draw the first one's masks again."""
    return seed if number <= 1 else derive_seed("device", seed, number)
