"""Parties without models: real conversations, trainers that are asked for nothing or little."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np

from splitlearn.exchange import Exchange
from splitlearn.link import MemorySwitchboard
from splitlearn.spec import JobSpec
from splitlearn.wire import Activations, GradHidden, Outcome, PaddingSide, Phase
from tests.unit.exchange.conftest import silo_side, trunk_side

HIDDEN = 4


def job(*silos: str, **fields: Any) -> JobSpec:
    """A specification of some silos."""
    roster = [{"name": name, "dataset": name} for name in silos]
    return JobSpec.parse({"model": "m", "silos": roster, "max_tokens": 8, "batch_size": 2, **fields})


def outcome(**fields: Any) -> Outcome:
    """A silo's outcome of a step."""
    plain: dict[str, Any] = {
        "norms_bottom": (),
        "norms_trunk": (),
        "norms_top": (),
        "finite": True,
        "num_tokens": 3,
    }
    return Outcome(**{**plain, **fields})


def activations(micro_batch: int = 0, *, value: float = 0.0, **fields: Any) -> Activations:
    """Activations of two rows, all of one value."""
    plain: dict[str, Any] = {
        "phase": Phase.TRAIN,
        "micro_batch": micro_batch,
        "num_micro_batches": 1,
        "lengths": (2, 1),
        "padding_side": PaddingSide.RIGHT,
        "num_label_tokens": 3,
        "outcome": None,
        "hidden": np.full((3, HIDDEN), value, dtype=np.float32),
    }
    return Activations(**{**plain, **fields})


def grad_hidden(micro_batch: int = 0) -> GradHidden:
    """The gradient that answers."""
    return GradHidden(micro_batch=micro_batch, loss_sum=1.0, grad=np.ones((3, HIDDEN), dtype=np.float32))


@asynccontextmanager
async def meeting(*names: str, **how: Any) -> AsyncIterator[tuple[dict[str, Exchange], dict[str, Exchange]]]:
    """Connect silos with a worker; gives the silos' exchanges and the worker's, by silo."""
    boards = {name: MemorySwitchboard() for name in names}
    async with AsyncExitStack() as stack:
        silos = {
            name: await stack.enter_async_context(silo_side(board.dial, name=name, **how))
            for name, board in boards.items()
        }
        trunk = {
            name: await stack.enter_async_context(trunk_side(board.answer, name=name, **how))
            for name, board in boards.items()
        }
        yield silos, trunk
